//! The interface description (OpenAPI 3.1), generated from the table of routes and the wire types.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use management_api::error::ErrorBody;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::routes::{self, Content, Route};
use crate::auth::Access;

/// Written once: whoever asks for it often takes no memory.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| describe(&routes::table()).to_string().into());

/// `GET /api/v1/openapi.json`.
pub(crate) async fn document() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        DOCUMENT.clone(),
    )
}

fn describe(table: &[Route]) -> Value {
    // OpenAPI 3.1 is JSON Schema 2020-12; only the place of the definitions differs.
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in table {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        let method = route.method.as_str().to_ascii_lowercase();
        item[method] = operation(route, &mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "systemprompt Management API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Deploys images of this server's own registry and keeps their history.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": generator.take_definitions(true),
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "parameters": parameters(route, generator),
        "responses": responses(route, generator),
        "security": security(route.access),
    });
    if let Some((schema, media_type)) = route.body {
        operation["requestBody"] = json!({
            "required": !route.body_is_optional,
            "content": { media_type: { "schema": schema(generator) } },
        });
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1");
    let words = path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let method = route.method.as_str().to_ascii_lowercase();
    std::iter::once(method.as_str())
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}

fn parameters(route: &Route, generator: &mut SchemaGenerator) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        let schema = match name {
            "number" => json!({ "type": "integer", "minimum": 1 }),
            _ => json!({ "type": "string" }),
        };
        Some(json!({ "name": name, "in": "path", "required": true, "schema": schema }))
    });
    let query = route.query.map(|schema| schema(generator).to_value());
    let mut all: Vec<_> = in_path.chain(in_query(query.as_ref())).collect();
    if route.idempotent {
        all.push(json!({
            "name": "Idempotency-Key", "in": "header",
            "description": "the same key and body are answered alike and never act twice",
            "schema": { "type": "string", "maxLength": 255 },
        }));
    }
    all
}

/// The properties of the object as parameters. None is ever required, and what may be left out is not null.
fn in_query(query: Option<&Value>) -> impl Iterator<Item = Value> {
    let properties = query.and_then(|schema| schema["properties"].as_object());
    properties.into_iter().flatten().map(|(name, schema)| {
        let mut schema = schema.clone();
        let meaning = schema["description"].take();
        if let Some(fields) = schema.as_object_mut() {
            fields.remove("description");
            fields.remove("default");
            if let Some(kind) = fields.get_mut("type").filter(|kind| kind.is_array()) {
                *kind = kind[0].take();
            }
        }
        json!({ "name": name, "in": "query", "description": meaning, "schema": schema })
    })
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for (status, content) in &route.answers {
        // A status may have several kinds of content.
        let response = responses
            .entry(status.to_string())
            .or_insert_with(|| json!({ "description": route.summary }));
        match content {
            Content::Nothing => {}
            Content::Json(schema) => {
                response["content"]["application/json"]["schema"] = schema(generator).to_value();
            }
            Content::Media(media_type) => {
                response["content"][media_type]["schema"] = json!({ "type": "string" });
            }
            Content::Events => {
                let text = json!({ "type": "string" });
                // Of one event; there is no better way to say so before OpenAPI 3.2.
                response["content"]["text/event-stream"]["schema"] = json!({
                    "type": "object",
                    "properties": { "id": text, "event": text, "data": text },
                    "required": ["data"],
                });
            }
        }
    }
    let error = generator.subschema_for::<ErrorBody>();
    responses.insert(
        "default".to_owned(),
        json!({
            "description": "Refused",
            "content": { "application/json": { "schema": error } },
        }),
    );
    Value::Object(responses)
}

fn security(access: Access) -> Value {
    match access {
        Access::Public => json!([]),
        Access::Scrape => json!([{}, { "token": [] }]),
        Access::AnyToken | Access::Operator | Access::Tenant(_) => json!([{ "token": [] }]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_has_exactly_the_routes_of_the_table() {
        let document = describe(&routes::table());
        let described: BTreeSet<_> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let table: BTreeSet<_> = routes::table()
            .iter()
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        assert_eq!(described, table);
    }

    #[test]
    fn operation_ids_are_unique() {
        let table = routes::table();
        let ids: BTreeSet<_> = table.iter().map(operation_id).collect();
        assert_eq!(ids.len(), table.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let text = std::str::from_utf8(&DOCUMENT).unwrap();
        let document: Value = serde_json::from_str(text).unwrap();
        let schemas = &document["components"]["schemas"];
        let mut references = 0;
        for part in text.split("\"$ref\":\"").skip(1) {
            let target = part.split('"').next().unwrap();
            let name = target.strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas.get(name).is_some(), "{target} leads nowhere");
            references += 1;
        }
        assert!(references > 20);
    }
}
