//! Docker's token authentication, with a token server that counts and whose tokens end soon.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse as _;
use http::{HeaderMap, StatusCode, Uri};
use registry::{Action, Authorize, Caller, Decision, Limits};

use crate::image::{TestImage, client, repository};
use crate::server::{ALICE, Server};

/// Gives out tokens, and once takes back all it has given, whatever it said of their life.
struct TokenServer {
    realm: String,
    /// After so many requests.
    revokes_after: usize,
    requests: AtomicUsize,
    refuses: AtomicBool,
    issued: AtomicUsize,
    /// Each token's scopes, and whether it holds; its place is its name.
    tokens: Mutex<Vec<(String, bool)>>,
    expires_in: u64,
}

impl TokenServer {
    fn issue(&self, headers: &HeaderMap, uri: &Uri) -> Result<String, StatusCode> {
        let authorization = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        // "alice:correct horse"
        if authorization != Some("Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==") {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let number = self.issued.fetch_add(1, Ordering::SeqCst);
        let query = uri.query().unwrap_or_default().to_owned();
        self.tokens.lock().unwrap().push((query, true));
        Ok(format!(
            "{{\"token\":\"t{number}\",\"expires_in\":{}}}",
            self.expires_in
        ))
    }

    fn takes(&self, token: &str, repository: &str, action: Action) -> bool {
        let mut tokens = self.tokens.lock().unwrap();
        if self.requests.fetch_add(1, Ordering::SeqCst) == self.revokes_after {
            tokens.iter_mut().for_each(|(_, holds)| *holds = false);
        }
        let number: Option<usize> = token.strip_prefix('t').and_then(|text| text.parse().ok());
        let Some((query, holds)) = number.and_then(|number| tokens.get(number)) else {
            return false;
        };
        let name = repository.replace('/', "%2F");
        let scope = match action {
            Action::Pull => format!("scope=repository%3A{name}%3Apull"),
            Action::Push | Action::Delete => format!("scope=repository%3A{name}%3Apull%2Cpush"),
        };
        *holds && !self.refuses.load(Ordering::SeqCst) && query.contains(&scope)
    }
}

struct ByToken(Arc<TokenServer>);

impl Authorize for ByToken {
    fn authorize(&self, caller: &Caller, repository: Option<&str>, action: Action) -> Decision {
        let header = caller.headers.get("authorization");
        let token = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let repository = repository.unwrap_or_default();
        if token.is_some_and(|token| self.0.takes(token, repository, action)) {
            return Decision::Allow;
        }
        Decision::Challenge(format!(
            "Bearer realm=\"{}\",service=\"test\"",
            self.0.realm
        ))
    }
}

fn start(revokes_after: usize, expires_in: u64) -> (Arc<TokenServer>, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tokens = Arc::new(TokenServer {
        realm: format!("http://{}/token", listener.local_addr().unwrap()),
        revokes_after,
        requests: AtomicUsize::new(0),
        refuses: AtomicBool::new(false),
        issued: AtomicUsize::new(0),
        tokens: Mutex::new(Vec::new()),
        expires_in,
    });
    let state = Arc::clone(&tokens);
    let issue = |State(tokens): State<Arc<TokenServer>>, uri: Uri, headers: HeaderMap| async move {
        match tokens.issue(&headers, &uri) {
            Ok(document) => document.into_response(),
            Err(status) => status.into_response(),
        }
    };
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let authorize = Arc::new(ByToken(Arc::clone(&tokens)));
    let server = Server::on(listener, folder, authorize, Limits::default(), |router| {
        let issuing = Router::new()
            .route("/token", axum::routing::get(issue))
            .with_state(state);
        router.merge(issuing)
    });
    (tokens, server)
}

#[test]
fn one_token_serves_a_whole_push() {
    let (tokens, server) = start(usize::MAX, 300);
    let client = client(&server.host(), Some(ALICE));
    TestImage::new(50, &[1000, 2000, 3000, 4000, 5000]).push(&client, "alice/app", "v1");
    // One to look, one to push; the four that upload at the same time share it.
    assert_eq!(tokens.issued.load(Ordering::SeqCst), 2);
    assert_eq!(client.counters().token_requests, 2);
}

#[test]
fn a_token_that_ends_in_between_is_renewed() {
    let (tokens, server) = start(7, 300);
    let client = client(&server.host(), Some(ALICE));
    let image = TestImage::new(51, &[300_000, 200_000, 100_000]);
    let pushed = image.push(&client, "alice/app", "v1");
    assert_eq!(pushed.uploaded, 4);
    // Before: one to look and one to push. After: one to push, and one to look if that came first.
    assert!((3..=4).contains(&tokens.issued.load(Ordering::SeqCst)));
}

#[test]
fn a_mount_asks_for_both_repositories() {
    let (tokens, server) = start(usize::MAX, 300);
    let client = client(&server.host(), Some(ALICE));
    let image = TestImage::new(52, &[1000]);
    image.push(&client, "alice/source", "v1");
    let from = [repository("alice/source")];
    let pushed = image
        .try_push(&client, "alice/target", "v1", &from)
        .unwrap();
    assert_eq!(pushed.mounted, 2);
    let queries = tokens.tokens.lock().unwrap();
    let both = queries
        .iter()
        .filter(|(query, _)| query.matches("scope=").count() == 2)
        .count();
    assert_eq!(both, 1);
}

#[test]
fn a_refused_password_is_told_without_it() {
    let (_tokens, server) = start(usize::MAX, 300);
    let client = client(&server.host(), Some(("alice", "wrong-secret")));
    let error = TestImage::new(53, &[10])
        .try_push(&client, "alice/app", "v1", &[])
        .unwrap_err();
    assert!(
        matches!(error, oci::ClientError::Unauthorized { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("get a registry token"),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("wrong-secret"));
}

#[test]
fn a_token_never_accepted_ends_the_attempt() {
    let (tokens, server) = start(usize::MAX, 300);
    tokens.refuses.store(true, Ordering::SeqCst);
    let client = client(&server.host(), Some(ALICE));
    let error = TestImage::new(54, &[10])
        .try_push(&client, "alice/app", "v1", &[])
        .unwrap_err();
    assert!(
        matches!(error, oci::ClientError::Unauthorized { .. }),
        "{error}"
    );
    assert!(tokens.issued.load(Ordering::SeqCst) <= 2);
}

#[test]
fn a_token_near_its_end_is_renewed_before_it_is_refused() {
    let (tokens, server) = start(usize::MAX, 1);
    let client = client(&server.host(), Some(ALICE));
    let name = repository("alice/app");
    let digest = oci::Digest::of(b"x");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while tokens.issued.load(Ordering::SeqCst) < 3 {
        assert!(
            std::time::Instant::now() < deadline,
            "the token was never renewed"
        );
        assert!(!client.blob_exists(&name, &digest).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Only the very first request was refused: its answer named the token server.
    let answered = tokens.requests.load(Ordering::SeqCst) as u64;
    assert_eq!(client.counters().requests, answered + 1);
}
