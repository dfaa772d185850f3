//! Who may do what in the registry: every route, every role, the own and another tenant, and each kind of credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use management_api::types::Role;
use secrecy::ExposeSecret;

use crate::harness::{Server, agent};
use crate::image::push;
use crate::registry_tokens::token;

const UPLOAD: &str = "blobs/uploads/00000000-0000-4000-8000-000000000000";
const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// What a route asks of its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    Login,
    Pull,
    Push,
}

/// Every route of the distribution specification. Nothing that exists is named, so that nothing changes.
fn routes() -> Vec<(&'static str, String, Needs)> {
    let blob = format!("blobs/{DIGEST}");
    let manifest = format!("manifests/{DIGEST}");
    let referrers = format!("referrers/{DIGEST}");
    let of = |path: &str| path.to_owned();
    vec![
        ("GET", String::new(), Needs::Login),
        ("HEAD", String::new(), Needs::Login),
        ("GET", blob.clone(), Needs::Pull),
        ("HEAD", blob.clone(), Needs::Pull),
        ("DELETE", blob, Needs::Push),
        ("POST", of("blobs/uploads/"), Needs::Push),
        ("GET", of(UPLOAD), Needs::Push),
        ("PATCH", of(UPLOAD), Needs::Push),
        ("PUT", of(UPLOAD), Needs::Push),
        ("DELETE", of(UPLOAD), Needs::Push),
        ("GET", of("manifests/none"), Needs::Pull),
        ("HEAD", manifest.clone(), Needs::Pull),
        ("PUT", of("manifests/none"), Needs::Push),
        ("DELETE", manifest, Needs::Push),
        ("DELETE", of("manifests/none"), Needs::Push),
        ("GET", of("tags/list"), Needs::Pull),
        ("GET", referrers, Needs::Pull),
    ]
}

fn ask(server: &Server, method: &str, path: &str, header: Option<&str>) -> u16 {
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}/v2/{path}", server.url));
    if let Some(header) = header {
        request = request.header("authorization", header);
    }
    let answer = agent().run(request.body(String::new()).unwrap()).unwrap();
    answer.status().as_u16()
}

/// Who calls, and whether that one may pull and push the own and the other tenant's images.
type Caller = (&'static str, String, [bool; 2], [bool; 2]);

fn callers(server: &Server) -> Vec<Caller> {
    let secret = |role, tenant| {
        let issued = server.issue(role, tenant);
        issued.token.expose_secret().to_owned()
    };
    let contract = server.client().registry_token("own").unwrap();
    vec![
        (
            "reader",
            secret(Role::Reader, Some("own")),
            [true, false],
            [false; 2],
        ),
        (
            "deployer",
            secret(Role::Deployer, Some("own")),
            [true; 2],
            [false; 2],
        ),
        (
            "operator",
            secret(Role::Operator, None),
            [true; 2],
            [true; 2],
        ),
        (
            "contract",
            contract.token.expose_secret().to_owned(),
            [true; 2],
            [false; 2],
        ),
    ]
}

#[test]
fn every_registry_route_every_role_own_and_other_tenant() {
    let server = Server::start();
    server.create_tenants(&["own", "other"]);
    for tenant in ["own", "other"] {
        push(&server, tenant, "v1", &[]);
    }
    for (who, secret, own, other) in callers(&server) {
        for (tenant, [pull, push]) in [("own", own), ("other", other), ("nobody", [false; 2])] {
            let scope = format!("repository:{tenant}:pull,push,delete");
            let scoped = token(&server, &[&scope], &secret);
            let pair = STANDARD.encode(format!("x:{secret}"));
            let ways = [
                ("basic", format!("Basic {pair}")),
                ("bearer", format!("Bearer {secret}")),
                ("scoped", format!("Bearer {scoped}")),
            ];
            for (method, path, needs) in routes() {
                let allowed = match needs {
                    Needs::Login => true,
                    Needs::Pull => pull,
                    Needs::Push => push,
                };
                let path = match needs {
                    Needs::Login => String::new(),
                    _ => format!("{tenant}/{path}"),
                };
                for (way, header) in &ways {
                    let status = ask(&server, method, &path, Some(header));
                    let refused = matches!(status, 401 | 403);
                    assert_eq!(refused, !allowed, "{who} {way}: {method} {path}: {status}");
                }
            }
        }
    }
}

#[test]
fn strangers_are_asked_to_log_in_everywhere() {
    let server = Server::start();
    push(&server, "local", "v1", &[]);
    let forged = "Bearer sp_0011223344556677_00";
    for (method, path, needs) in routes() {
        let path = match needs {
            Needs::Login => String::new(),
            _ => format!("local/{path}"),
        };
        for header in [
            None,
            Some(forged),
            Some("Basic eDp5"),
            Some("x"),
            Some("Bearer a.b.c"),
        ] {
            let status = ask(&server, method, &path, header);
            assert_eq!(status, 401, "{header:?}: {method} {path}");
        }
    }
    // What makes no sense is not told to strangers either.
    for path in ["_catalog", "local", "../x", "A/tags/list"] {
        assert_eq!(ask(&server, "GET", path, None), 401, "{path}");
    }
}

#[test]
fn an_image_is_mounted_only_from_where_one_may_pull() {
    let server = Server::start();
    server.create_tenants(&["own", "other"]);
    push(&server, "other", "v1", &[]);
    let manifest = format!("{}/v2/other/manifests/v1", server.url);
    let operator = format!("Bearer {}", server.token());
    let mut answer = agent()
        .get(manifest)
        .header("authorization", &operator)
        .call()
        .unwrap();
    let manifest: serde_json::Value = answer.body_mut().read_json().unwrap();
    let digest = manifest["layers"][0]["digest"].as_str().unwrap();
    let deployer = server.issue(Role::Deployer, Some("own"));
    let deployer = format!("Bearer {}", deployer.token.expose_secret());
    let mount = format!("own/blobs/uploads/?mount={digest}&from=other");
    // 202: an upload like any other.
    assert_eq!(ask(&server, "POST", &mount, Some(&deployer)), 202);
    assert_eq!(ask(&server, "POST", &mount, Some(&operator)), 201);
}

/// Status and body of a `DELETE` with a deployer's token.
fn delete(server: &Server, token: &str, path: &str) -> (u16, String) {
    let request = agent()
        .delete(format!("{}/v2/local/{path}", server.url))
        .header("authorization", format!("Bearer {token}"));
    let mut answer = request.call().unwrap();
    let body = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), body)
}

#[test]
fn nobody_removes_what_a_release_needs() {
    let server = Server::start();
    let deployer = server.issue(Role::Deployer, Some("local"));
    let deployer = deployer.token.expose_secret();
    let first = push(&server, "local", "v1", &[("VERSION", "v1")]);
    assert_eq!(server.deploy_and_wait("v1").state, "succeeded");
    let second = push(&server, "local", "v2", &[("VERSION", "v2")]);
    assert_eq!(server.deploy_and_wait("v2").state, "succeeded");
    let third = push(&server, "local", "v3", &[("VERSION", "v3")]);
    let shared = crate::image::digest(&crate::image::layer());
    for needed in [
        format!("manifests/{first}"),
        format!("manifests/{second}"),
        format!("blobs/{shared}"),
    ] {
        let (status, body) = delete(&server, deployer, &needed);
        assert_eq!(status, 409, "{needed}: {body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["errors"][0]["code"], "DENIED");
        let message = body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("can be restored"), "{message}");
    }
    // What a tag means may change, and what was never deployed may go.
    assert_eq!(delete(&server, deployer, "manifests/v2").0, 202);
    assert_eq!(
        delete(&server, deployer, &format!("manifests/{third}")).0,
        202
    );
    let history = server.client().deployments("local").unwrap().unwrap();
    assert!(history.iter().all(|deployment| !deployment.gone));
}
