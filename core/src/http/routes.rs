//! The table of routes. The router and the interface description are both made from it, so that
//! neither can have what the other lacks.

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};
use management_api::paths;
use management_api::types::{
    AuditEntry, Capabilities, CollectRequest, Collection, Data, DeployAnswer, DeployRequest,
    Deployment, ExchangedToken, Health, IssuedToken, LogLine, Me, NewTenant, NewToken,
    RegistryAccessToken, RegistryToken, RollbackRequest, RotateRequest, RotatedCredentials,
    SecretInfo, SecretsRequest, Tenant, TenantLock, TenantStatus, TokenInfo, VolumeInfo,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    MAX_BODY, audit, collect, deploy, events, guard, history, logs, openapi, operations,
    registry_token, secrets, tenants, tokens, volumes,
};
use crate::auth::{Access, Permission};
use crate::platform::App;

/// Makes the schema of one type.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a route answers when all is well.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    /// No body.
    Nothing,
    /// JSON of this schema.
    Json(SchemaOf),
    /// Another media type.
    Media(&'static str),
    /// Server-sent events.
    Events,
}

/// One line of the table.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Path with `{tenant}`, `{number}`, `{id}`, `{name}`.
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) access: Access,
    /// Streams have no time-out.
    pub(crate) streams: bool,
    /// Schema of the query string: an object with the parameters.
    pub(crate) query: Option<SchemaOf>,
    /// Schema and media type of the body.
    pub(crate) body: Option<(SchemaOf, &'static str)>,
    /// Whether the body may be left out.
    pub(crate) body_is_optional: bool,
    /// Whether `Idempotency-Key` is honoured.
    pub(crate) idempotent: bool,
    pub(crate) answers: Vec<(u16, Content)>,
    handler: MethodRouter<App>,
}

impl Route {
    fn new<H, T>(method: Method, path: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = match method {
            Method::POST => MethodFilter::POST,
            Method::PUT => MethodFilter::PUT,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        Self {
            method,
            path,
            summary,
            access: Access::Operator,
            streams: false,
            query: None,
            body: None,
            body_is_optional: false,
            idempotent: false,
            answers: Vec::new(),
            handler: on(filter, handler),
        }
    }

    fn get<H: Handler<T, App>, T: 'static>(
        path: &'static str,
        summary: &'static str,
        h: H,
    ) -> Self {
        Self::new(Method::GET, path, summary, h)
    }

    fn post<H: Handler<T, App>, T: 'static>(
        path: &'static str,
        summary: &'static str,
        h: H,
    ) -> Self {
        Self::new(Method::POST, path, summary, h)
    }

    fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    fn tenant(self, permission: Permission) -> Self {
        self.access(Access::Tenant(permission))
    }

    fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    fn query<Q: JsonSchema>(mut self) -> Self {
        self.query = Some(Q::json_schema);
        self
    }

    fn body<B: JsonSchema>(mut self) -> Self {
        self.body = Some((SchemaGenerator::subschema_for::<B>, "application/json"));
        self
    }

    fn form<B: JsonSchema>(mut self) -> Self {
        self.body = Some((
            SchemaGenerator::subschema_for::<B>,
            "application/x-www-form-urlencoded",
        ));
        self
    }

    fn body_is_optional(mut self) -> Self {
        self.body_is_optional = true;
        self
    }

    fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    fn answers<A: JsonSchema>(mut self, status: u16) -> Self {
        let schema = Content::Json(SchemaGenerator::subschema_for::<A>);
        self.answers.push((status, schema));
        self
    }

    fn answers_nothing(mut self) -> Self {
        self.answers.push((204, Content::Nothing));
        self
    }

    fn answers_media(mut self, media_type: &'static str) -> Self {
        self.answers.push((200, Content::Media(media_type)));
        self
    }

    fn answers_events(mut self) -> Self {
        self.answers.push((200, Content::Events));
        self
    }

    /// Path and handler with everything that stands before it.
    pub(crate) fn into_router(self, app: &App) -> (&'static str, MethodRouter<App>) {
        let handler = if self.streams {
            self.handler
        } else {
            self.handler.route_layer(from_fn(guard::timeout))
        };
        let state = (App::clone(app), self.access);
        let guarded = handler
            .route_layer(DefaultBodyLimit::max(MAX_BODY))
            .route_layer(from_fn_with_state(state, guard::access));
        (self.path, guarded)
    }
}

/// Every route of the API.
pub(crate) fn table() -> Vec<Route> {
    let mut routes = platform_routes();
    routes.extend(tenant_routes());
    routes.extend(deployment_routes());
    routes.extend(token_routes());
    routes.extend(keeping_routes());
    routes
}

fn platform_routes() -> Vec<Route> {
    vec![
        Route::get(
            "/api/v1/health",
            "Liveness of the server",
            operations::health,
        )
        .access(Access::Public)
        .answers::<Health>(200),
        Route::get("/healthz", "Liveness, for probes", operations::healthz)
            .access(Access::Public)
            .answers_media("text/plain"),
        Route::get("/readyz", "Readiness, for probes", operations::readyz)
            .access(Access::Public)
            .answers_media("text/plain"),
        Route::get(
            "/metrics",
            "Measurements in Prometheus' text format",
            operations::metrics,
        )
        .access(Access::Scrape)
        .answers_media("application/openmetrics-text"),
        Route::get(
            "/api/v1/openapi.json",
            "This description",
            openapi::document,
        )
        .access(Access::Public)
        .answers::<serde_json::Map<String, serde_json::Value>>(200),
        Route::get(
            "/api/v1/capabilities",
            "What this server offers",
            operations::capabilities,
        )
        .access(Access::AnyToken)
        .answers::<Data<Capabilities>>(200),
    ]
}

fn keeping_routes() -> Vec<Route> {
    vec![
        Route::get(
            paths::AUDIT,
            "Who changed what, newest first: everything for the operator, else the caller's tenant",
            audit::list,
        )
        .access(Access::AnyToken)
        .query::<audit::ListQuery>()
        .answers::<Data<Vec<AuditEntry>>>(200),
        Route::post(
            paths::COLLECT,
            "Remove images, secrets and logs that nothing needs any more",
            collect::collect,
        )
        .body::<CollectRequest>()
        .body_is_optional()
        .answers::<Data<Collection>>(200),
    ]
}

fn tenant_routes() -> Vec<Route> {
    vec![
        Route::get(
            "/api/v1/tenants",
            "Tenants that the caller may see",
            tenants::list,
        )
        .access(Access::AnyToken)
        .answers::<Data<Vec<Tenant>>>(200),
        Route::post("/api/v1/tenants", "Make a tenant", tenants::create)
            .body::<NewTenant>()
            .answers::<Data<Tenant>>(201),
        Route::new(
            Method::DELETE,
            "/api/v1/tenants/{tenant}",
            "Stop and remove a tenant",
            tenants::delete,
        )
        .tenant(Permission::Administer)
        .answers_nothing(),
        Route::get("/api/v1/tenants/{tenant}", "One tenant", tenants::show)
            .tenant(Permission::Look)
            .answers::<Data<Tenant>>(200),
        Route::get(
            "/api/v1/tenants/{tenant}/status",
            "Present state",
            tenants::status,
        )
        .tenant(Permission::Look)
        .answers::<Data<TenantStatus>>(200),
        Route::get(
            "/api/v1/tenants/{tenant}/lock",
            "Who holds the tenant: the deployment that is being made, or that needs an operator",
            tenants::lock,
        )
        .tenant(Permission::Look)
        .answers::<Data<TenantLock>>(200),
        Route::get(
            "/api/v1/tenants/{tenant}/metrics",
            "Measurements of one tenant in Prometheus' text format",
            operations::tenant_metrics,
        )
        .tenant(Permission::Look)
        .answers_media("application/openmetrics-text"),
        Route::get(
            "/api/v1/tenants/{tenant}/registry-token",
            "Short-lived credentials for the tenant's repository",
            registry_token::issue,
        )
        .tenant(Permission::Deploy)
        .answers::<Data<RegistryToken>>(200),
        Route::new(
            Method::PUT,
            "/api/v1/tenants/{tenant}/secrets",
            "Change secrets; deployments from now on have them",
            secrets::change,
        )
        .tenant(Permission::Deploy)
        .body::<SecretsRequest>()
        .answers_nothing(),
        Route::get(
            "/api/v1/tenants/{tenant}/secrets",
            "Names and versions of the secrets, without their values",
            secrets::list,
        )
        .tenant(Permission::Look)
        .answers::<Data<Vec<SecretInfo>>>(200),
        Route::get(
            "/api/v1/tenants/{tenant}/volumes",
            "Volumes, and what has them",
            volumes::list,
        )
        .tenant(Permission::Look)
        .answers::<Data<Vec<VolumeInfo>>>(200),
        Route::new(
            Method::DELETE,
            "/api/v1/tenants/{tenant}/volumes/{name}",
            "Remove a volume with all that is in it, by the operator; refused while a release has it",
            volumes::remove,
        )
        // nobody can make again what is in it, and tokens of tenants are those of pipelines
        .tenant(Permission::Administer)
        .answers_nothing(),
        Route::post(
            "/api/v1/tenants/{tenant}/rotate-credentials",
            "Make the tenant's tokens anew; the old ones hold for a while, or end at once",
            tokens::rotate,
        )
        .tenant(Permission::Administer)
        .body::<RotateRequest>()
        .body_is_optional()
        .answers::<RotatedCredentials>(200),
    ]
}

fn deployment_routes() -> Vec<Route> {
    vec![
        Route::post(
            "/api/v1/tenants/{tenant}/deploy",
            "Ask for a deployment",
            deploy::deploy,
        )
        .tenant(Permission::Deploy)
        .idempotent()
        .body::<DeployRequest>()
        .answers::<Data<DeployAnswer>>(200)
        .answers::<Data<DeployAnswer>>(202),
        Route::post(
            "/api/v1/tenants/{tenant}/rollback",
            "Return to an older release",
            deploy::rollback,
        )
        .tenant(Permission::Deploy)
        .idempotent()
        .body::<RollbackRequest>()
        .body_is_optional()
        .answers::<Data<DeployAnswer>>(202),
        Route::get(
            "/api/v1/tenants/{tenant}/deployments",
            "History, newest first",
            history::list,
        )
        .tenant(Permission::Look)
        .query::<history::ListQuery>()
        .answers::<Data<Vec<Deployment>>>(200),
        Route::get(
            "/api/v1/tenants/{tenant}/deployments/{number}",
            "One deployment",
            history::show,
        )
        .tenant(Permission::Look)
        .answers::<Data<Deployment>>(200),
        Route::get(
            "/api/v1/tenants/{tenant}/deployments/{number}/events",
            "Events of a deployment until its final state; resumes after `Last-Event-ID`",
            events::follow,
        )
        .tenant(Permission::Look)
        .streams()
        .answers_events(),
        Route::post(
            "/api/v1/tenants/{tenant}/deployments/{number}/abort",
            "Undo a running deployment",
            history::abort,
        )
        .tenant(Permission::Deploy)
        .answers::<Data<Deployment>>(202),
        Route::post(
            "/api/v1/tenants/{tenant}/deployments/{number}/promote",
            "Let a deployment that is being watched go on to its next step",
            history::promote,
        )
        .tenant(Permission::Deploy)
        .answers::<Data<Deployment>>(202),
        Route::post(
            "/api/v1/tenants/{tenant}/deployments/{number}/resume",
            "Let a paused deployment go on, as it is",
            history::resume,
        )
        .tenant(Permission::Deploy)
        .answers::<Data<Deployment>>(202),
        Route::get(
            "/api/v1/tenants/{tenant}/logs",
            "The application's log",
            logs::logs,
        )
        .tenant(Permission::Look)
        .streams()
        .query::<logs::LogsQuery>()
        .answers::<Data<Vec<LogLine>>>(200)
        .answers_events(),
    ]
}

fn token_routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/auth/me", "Who calls", tokens::me)
            .access(Access::AnyToken)
            .answers::<Me>(200),
        Route::get("/api/v1/tokens", "The platform's tokens", tokens::list)
            .answers::<Data<Vec<TokenInfo>>>(200),
        Route::post("/api/v1/tokens", "Make a token", tokens::create)
            .body::<NewToken>()
            .answers::<Data<IssuedToken>>(201),
        Route::new(
            Method::DELETE,
            "/api/v1/tokens/{id}",
            "End a token",
            tokens::revoke,
        )
        .answers_nothing(),
        Route::get(
            "/token",
            "A token for registry clients, for a platform token as the password of Basic authentication",
            registry_token::get,
        )
        .access(Access::Public)
        .query::<registry_token::TokenQuery>()
        .answers::<RegistryAccessToken>(200),
        Route::post(
            "/token",
            "A token for registry clients, for a platform token as the password of a form",
            registry_token::post,
        )
        .access(Access::Public)
        .form::<registry_token::TokenForm>()
        .answers::<RegistryAccessToken>(200),
        Route::post(
            "/api/v1/core/oauth/token",
            "Token exchange (RFC 8693)",
            tokens::exchange,
        )
        .access(Access::Public)
        .form::<tokens::ExchangeRequest>()
        .answers::<ExchangedToken>(200),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_has_every_path_that_clients_know() {
        let table: BTreeSet<_> = table()
            .iter()
            .map(|route| {
                let path = route.path.replace("{tenant}", "a").replace("{number}", "7");
                path.replace("{id}", "i").replace("{name}", "v")
            })
            .collect();
        for path in [
            paths::HEALTH.to_owned(),
            paths::CAPABILITIES.to_owned(),
            paths::OPENAPI.to_owned(),
            paths::ME.to_owned(),
            paths::TENANTS.to_owned(),
            paths::TOKENS.to_owned(),
            paths::AUDIT.to_owned(),
            paths::COLLECT.to_owned(),
            paths::TOKEN.to_owned(),
            paths::TOKEN_EXCHANGE.to_owned(),
            paths::tenant("a"),
            paths::registry_token("a"),
            paths::deploy("a"),
            paths::status("a"),
            paths::secrets("a"),
            paths::volumes("a"),
            paths::volume("a", "v"),
            paths::rotate_credentials("a"),
            paths::deployments("a"),
            paths::deployment("a", 7),
            paths::deployment_events("a", 7),
            paths::abort("a", 7),
            paths::promote("a", 7),
            paths::resume("a", 7),
            paths::lock("a"),
            paths::metrics("a"),
            paths::rollback("a"),
            paths::logs("a"),
            paths::token("i"),
        ] {
            assert!(table.contains(&path), "{path} is missing");
        }
    }

    #[test]
    fn a_route_of_a_tenant_asks_for_a_permission_on_it() {
        for route in table() {
            let of_tenant = route.path.contains("{tenant}");
            let asks = matches!(route.access, Access::Tenant(_));
            assert_eq!(of_tenant, asks, "{} {}", route.method, route.path);
        }
    }
}
