//! The answers, call by call, in the shapes of the three variants.

use serde_json::{Map, Value, json};

use super::identity::unauthorized;
use super::{APP_ID, Core, REPOSITORY, TENANT, Variant};
use crate::http::{Request, Response};

impl Core {
    pub(super) fn tenant_call(
        &self,
        method: &str,
        tenant: &str,
        rest: &[&str],
        request: &Request,
    ) -> Response {
        if !self.may_call_tenant(request) {
            return unauthorized();
        }
        if tenant != TENANT {
            return error(404, "not_found", "no such tenant");
        }
        match (method, rest) {
            ("GET", ["registry-token"]) => self.registry_token(),
            ("POST", ["deploy"]) => self.deploy(request),
            ("GET", ["status"]) => self.status(),
            ("PUT", ["secrets"]) => self.put_secrets(request),
            ("POST", ["rotate-credentials"]) => Response::json(
                200,
                &json!({"status": "rotated", "message": "new credentials"}),
            ),
            ("DELETE", []) => Response::empty(204),
            _ => self.not_found(),
        }
    }

    pub(super) fn me(&self) -> Response {
        let user = json!({"id": "usr_1", "email": "ops@example.com", "name": "Ops"});
        let body = match self.variant {
            Variant::SeedEra => json!({"user": user, "tenants": [tenant()]}),
            _ => json!({
                "user": user,
                "customer": {"id": "cus_1"},
                "tenants": [tenant()],
                "enterprise": null,
            }),
        };
        Response::json(200, &body)
    }

    pub(super) fn tenants() -> Response {
        Response::json(200, &json!({"data": [tenant()]}))
    }

    fn registry_token(&self) -> Response {
        let mut data = Map::new();
        let mut put = |name: &str, value: &str| data.insert(name.to_owned(), json!(value));
        put("registry", &self.registry.registry);
        put("username", &self.registry.username);
        match self.variant {
            Variant::SeedEra => {
                put("password", &self.registry.password);
                put("repository", REPOSITORY);
            }
            Variant::ServerTag => {
                put("token", &self.registry.password);
                put("repository", REPOSITORY);
                put("tag", &self.next_tag());
            }
            Variant::Current | Variant::Services => {
                put("token", &self.registry.password);
            }
        }
        Response::json(200, &json!({"data": data}))
    }

    /// A server that issues tags issues a new one with every token.
    fn next_tag(&self) -> String {
        let mut state = self.lock();
        state.tags += 1;
        format!("release-{}", state.tags)
    }

    fn deploy(&self, request: &Request) -> Response {
        let body = request.json().unwrap_or(Value::Null);
        let Some(image) = body.get("image").and_then(Value::as_str) else {
            return error(422, "invalid_request", "image is missing");
        };
        if self.variant != Variant::Services
            && let Some(field) = unknown_field(&body)
        {
            return error(422, "invalid_request", &format!("unknown field {field}"));
        }
        let services = body["services"].as_object().into_iter().flatten();
        let services = services.filter_map(|(_, service)| service["image"].as_str());
        if !services
            .chain([image])
            .all(|image| (self.image_exists)(image))
        {
            return error(
                404,
                "image_not_found",
                "the registry does not hold this image",
            );
        }
        let mut state = self.lock();
        state.images.push(image.to_owned());
        state.requests.push(body.clone());
        state.position = Some(0);
        let url_field = match self.variant {
            Variant::SeedEra => "url",
            _ => "app_url",
        };
        let answer = json!({"data": {"status": "deploying", url_field: self.app_url}});
        Response::json(200, &answer)
    }

    /// Walks the scripted statuses, one a call; before the first deployment there is nothing.
    fn status(&self) -> Response {
        let mut state = self.lock();
        let Some(position) = state.position else {
            return Response::json(200, &json!({"data": {"status": "pending"}}));
        };
        let last = state.statuses.len().saturating_sub(1);
        let (status, message) = state
            .statuses
            .get(position)
            .cloned()
            .unwrap_or_else(|| ("deploying".to_owned(), None));
        state.position = Some((position + 1).min(last));
        let mut data = json!({"status": status, "app_url": self.app_url});
        if let Some(message) = message {
            data["message"] = json!(message);
        }
        if self.variant != Variant::SeedEra {
            data["secrets_url"] = json!(format!("{}/secrets", self.app_url));
        }
        Response::json(200, &json!({"data": data}))
    }

    pub(super) fn capabilities(&self) -> Response {
        if self.variant != Variant::Services {
            return self.not_found();
        }
        let data = json!({
            "product": "double",
            "version": "1",
            "features": ["services", "volumes"],
            "strategies": ["rolling"],
            "engine": {"name": "none"},
        });
        Response::json(200, &json!({"data": data}))
    }

    fn put_secrets(&self, request: &Request) -> Response {
        let Some(body) = request.json().filter(|body| body["secrets"].is_object()) else {
            return error(422, "invalid_request", "secrets is missing");
        };
        self.lock().secrets.push(body);
        Response::empty(204)
    }

    /// Servers of the seed's time answered unknown paths with plain text.
    pub(super) fn not_found(&self) -> Response {
        match self.variant {
            Variant::SeedEra => Response::new(404, "text/plain", "404 page not found\n"),
            _ => error(404, "not_found", "no such route"),
        }
    }
}

fn tenant() -> Value {
    json!({
        "id": TENANT,
        "name": "Example",
        "fly_app_name": APP_ID,
        "fly_hostname": format!("{APP_ID}.fly.dev"),
        "hostname": "example.systemprompt.io",
    })
}

/// The contract knows `image` and nothing else; a client must not send more to a server that has
/// not announced that it understands more.
fn unknown_field(body: &Value) -> Option<&str> {
    let fields = body.as_object()?.keys();
    fields.map(String::as_str).find(|field| *field != "image")
}

fn error(status: u16, code: &str, message: &str) -> Response {
    Response::json(
        status,
        &json!({"error": {"code": code, "message": message}}),
    )
}
