//! Who may do what: every route, every role, the own and another tenant.

use management_api::types::Role;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::harness::{Server, agent, get};

/// What a route asks of its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    Nothing,
    /// Basic authentication, whatever bearer token there is.
    Password,
    AnyToken,
    Look,
    Deploy,
    Operator,
}

/// Every route of the description with what it needs. A route that is missing here fails the test.
const NEEDS: &[(&str, Needs)] = &[
    ("GET /api/v1/health", Needs::Nothing),
    ("GET /healthz", Needs::Nothing),
    ("GET /readyz", Needs::Nothing),
    ("GET /metrics", Needs::Nothing),
    ("GET /api/v1/openapi.json", Needs::Nothing),
    ("POST /api/v1/core/oauth/token", Needs::Nothing),
    ("GET /token", Needs::Password),
    // The password is in its form.
    ("POST /token", Needs::Nothing),
    ("GET /api/v1/capabilities", Needs::AnyToken),
    ("GET /api/v1/auth/me", Needs::AnyToken),
    ("GET /api/v1/audit", Needs::AnyToken),
    ("GET /api/v1/tenants", Needs::AnyToken),
    ("POST /api/v1/tenants", Needs::Operator),
    ("GET /api/v1/tenants/{tenant}", Needs::Look),
    ("GET /api/v1/tenants/{tenant}/status", Needs::Look),
    ("GET /api/v1/tenants/{tenant}/lock", Needs::Look),
    ("GET /api/v1/tenants/{tenant}/metrics", Needs::Look),
    ("GET /api/v1/tenants/{tenant}/deployments", Needs::Look),
    (
        "GET /api/v1/tenants/{tenant}/deployments/{number}",
        Needs::Look,
    ),
    (
        "GET /api/v1/tenants/{tenant}/deployments/{number}/events",
        Needs::Look,
    ),
    ("GET /api/v1/tenants/{tenant}/logs", Needs::Look),
    ("GET /api/v1/tenants/{tenant}/registry-token", Needs::Deploy),
    ("PUT /api/v1/tenants/{tenant}/secrets", Needs::Deploy),
    ("GET /api/v1/tenants/{tenant}/secrets", Needs::Look),
    ("GET /api/v1/tenants/{tenant}/volumes", Needs::Look),
    (
        "DELETE /api/v1/tenants/{tenant}/volumes/{name}",
        Needs::Operator,
    ),
    ("POST /api/v1/tenants/{tenant}/deploy", Needs::Deploy),
    ("POST /api/v1/tenants/{tenant}/rollback", Needs::Deploy),
    (
        "POST /api/v1/tenants/{tenant}/deployments/{number}/abort",
        Needs::Deploy,
    ),
    (
        "POST /api/v1/tenants/{tenant}/deployments/{number}/promote",
        Needs::Deploy,
    ),
    (
        "POST /api/v1/tenants/{tenant}/deployments/{number}/resume",
        Needs::Deploy,
    ),
    (
        "POST /api/v1/tenants/{tenant}/rotate-credentials",
        Needs::Operator,
    ),
    ("DELETE /api/v1/tenants/{tenant}", Needs::Operator),
    ("POST /api/v1/collect", Needs::Operator),
    ("GET /api/v1/tokens", Needs::Operator),
    ("POST /api/v1/tokens", Needs::Operator),
    ("DELETE /api/v1/tokens/{id}", Needs::Operator),
];

fn routes(server: &Server) -> Vec<String> {
    let text = get(&format!("{}/api/v1/openapi.json", server.url)).unwrap();
    let description: Value = serde_json::from_str(&text).unwrap();
    let paths = description["paths"].as_object().unwrap();
    let methods = |(path, item): (&String, &Value)| {
        let keys: Vec<_> = item.as_object().unwrap().keys().cloned().collect();
        keys.into_iter()
            .map(|method| format!("{} {path}", method.to_uppercase()))
            .collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

fn ask(server: &Server, route: &str, tenant: &str, token: Option<&str>) -> u16 {
    let (method, path) = route.split_once(' ').unwrap();
    // Nothing that exists: what is allowed must not change the server under the other cases.
    let path = path
        .replace("{tenant}", tenant)
        .replace("{number}", "999")
        .replace("{id}", "none")
        .replace("{name}", "none");
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", server.url));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = if method == "GET" || method == "DELETE" {
        ""
    } else {
        "{"
    };
    let answer = agent().run(request.body(body.to_owned()).unwrap()).unwrap();
    answer.status().as_u16()
}

fn issue(server: &Server, role: Role, tenant: Option<&str>) -> String {
    let issued = server.issue(role, tenant);
    issued.token.expose_secret().to_owned()
}

#[test]
fn every_route_every_role_own_and_other_tenant() {
    let server = Server::start();
    server.create_tenants(&["own", "other"]);
    let mut described = routes(&server);
    let mut known: Vec<_> = NEEDS.iter().map(|(route, _)| (*route).to_owned()).collect();
    described.sort();
    known.sort();
    assert_eq!(described, known);
    let registry = server.client().registry_token("own").unwrap();
    let callers = [
        ("nobody", None),
        ("forged", Some("sp_0011223344556677_00".to_owned())),
        ("registry", Some(registry.token.expose_secret().to_owned())),
        ("reader", Some(issue(&server, Role::Reader, Some("own")))),
        (
            "deployer",
            Some(issue(&server, Role::Deployer, Some("own"))),
        ),
        ("operator", Some(issue(&server, Role::Operator, None))),
    ];
    for (route, needs) in NEEDS {
        for (who, token) in &callers {
            for tenant in ["own", "other"] {
                // The tenants are still needed.
                if *who == "operator" && *route == "DELETE /api/v1/tenants/{tenant}" {
                    continue;
                }
                let status = ask(&server, route, tenant, token.as_deref());
                let context = format!("{who} {route} of {tenant}: {status}");
                match expected(who, *needs, tenant) {
                    None => assert!(![401, 403].contains(&status), "{context}"),
                    // The exchange says 400 to a body that is no form, to everybody.
                    Some(refusal) => assert_eq!(status, refusal, "{context}"),
                }
            }
        }
    }
}

/// The refusal that is due, or `None` where the request must pass the guard.
fn expected(who: &str, needs: Needs, tenant: &str) -> Option<u16> {
    let own = tenant == "own";
    let allowed = match (who, needs) {
        (_, Needs::Nothing) => return None,
        (_, Needs::Password) | ("nobody" | "forged" | "registry", _) => return Some(401),
        ("operator", _) | (_, Needs::AnyToken) => true,
        ("deployer", Needs::Look | Needs::Deploy) | ("reader", Needs::Look) => own,
        _ => false,
    };
    (!allowed).then_some(403)
}

#[test]
fn a_deployer_sees_its_tenant_only() {
    let server = Server::start();
    server.create_tenants(&["own"]);
    let deployer = server.client_with(&issue(&server, Role::Deployer, Some("own")));
    let ids = |tenants: Vec<management_api::types::Tenant>| {
        tenants.into_iter().map(|t| t.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(deployer.tenants().unwrap()), ["own"]);
    assert_eq!(ids(deployer.me().unwrap().tenants), ["own"]);
    assert_eq!(ids(server.client().tenants().unwrap()), ["local", "own"]);
}

#[test]
fn a_revoked_token_ends_with_everything_derived_from_it() {
    let server = Server::start();
    let operator = server.client();
    let token = issue(&server, Role::Deployer, Some("local"));
    let session = exchange(&server, &token);
    let registry = server
        .client_with(&session)
        .registry_token("local")
        .unwrap();
    let login = |token: &str| {
        let url = format!("{}/v2/", server.url);
        let header = format!("Bearer {token}");
        let answer = agent().get(url).header("authorization", header).call();
        answer.unwrap().status().as_u16()
    };
    assert_eq!(login(registry.token.expose_secret()), 200);
    let listed = operator.tokens().unwrap();
    let info = listed.iter().find(|info| info.name == "Deployer").unwrap();
    assert_eq!(listed.len(), 2, "derived tokens are not listed: {listed:?}");
    operator.revoke_token(&info.id).unwrap();
    assert!(server.client_with(&token).me().is_err());
    assert!(server.client_with(&session).me().is_err());
    assert_eq!(login(registry.token.expose_secret()), 401);
}

#[test]
fn basic_authentication_with_the_first_request_saves_the_others() {
    let server = Server::start();
    let registry = server.client().registry_token("local").unwrap();
    let url = format!("{}/v2/", server.url);
    let address = url.trim_start_matches("http://");
    let user = format!("{}:{}", registry.username, registry.token.expose_secret());
    let logged_in = agent()
        .get(format!("http://{user}@{address}"))
        .call()
        .unwrap();
    assert_eq!(logged_in.status(), 200);
}

fn exchange(server: &Server, token: &str) -> String {
    let form = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", token),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("resource", server.url.as_str()),
        ("client_id", "sp_web"),
    ];
    let mut answer = agent()
        .post(format!("{}/api/v1/core/oauth/token", server.url))
        .send_form(form)
        .unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.body_mut().read_json().unwrap();
    assert_eq!(answer["expires_in"], 300);
    answer["access_token"].as_str().unwrap().to_owned()
}
