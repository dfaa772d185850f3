//! Going back to an older release, with all that belongs to it.

use management_api::client::ApiError;
use management_api::types::{Deployment, RollbackRequest};

use crate::harness::{Server, get, key};
use crate::image::push;

fn roll_back(server: &Server, to: Option<&str>) -> Result<Deployment, ApiError> {
    let request = RollbackRequest {
        to: to.map(Into::into),
        timeout_seconds: None,
    };
    let answer = server.client().rollback("local", &request, &key())?;
    Ok(server.wait(answer.deployment.unwrap()))
}

#[test]
pub(crate) fn a_rollback_restores_image_and_environment() {
    let server = Server::start();
    assert!(roll_back(&server, None).is_err());
    for version in ["one", "two", "three"] {
        push(&server, "local", version, &[("VERSION", version)]);
        let mut request = server.request(version);
        request
            .env
            .insert("COLOUR".into(), format!("colour {version}"));
        let number = server.deploy(&request).deployment.unwrap();
        assert_eq!(server.wait(number).state, "succeeded");
    }
    let back = roll_back(&server, None).unwrap();
    assert_eq!(
        (back.kind.as_str(), back.state.as_str()),
        ("rollback", "succeeded")
    );
    assert_eq!(
        (back.number, back.restores, back.previous),
        (4, Some(2), Some(3))
    );
    assert_eq!(server.version().as_deref(), Some("two"));
    let colour = get(&format!("{}/env/COLOUR", server.app_url()));
    assert_eq!(colour.as_deref(), Some("colour two"));
    // Once more goes back further; by name it goes anywhere.
    assert_eq!(roll_back(&server, None).unwrap().restores, Some(1));
    assert_eq!(server.version().as_deref(), Some("one"));
    assert_eq!(roll_back(&server, Some("three")).unwrap().restores, Some(3));
    assert_eq!(roll_back(&server, Some("2")).unwrap().restores, Some(2));
    assert_eq!(server.version().as_deref(), Some("two"));
}

#[test]
pub(crate) fn a_release_that_never_served_is_not_restored() {
    let server = Server::start();
    push(&server, "local", "good", &[]);
    push(&server, "local", "bad", &[("MODE", "exit")]);
    server.deploy_and_wait("good");
    server.deploy_and_wait("bad");
    for to in [None, Some("2"), Some("bad"), Some("99")] {
        let refused = format!("{:?}", roll_back(&server, to).unwrap_err());
        assert!(
            refused.contains("nothing_to_roll_back"),
            "{to:?}: {refused}"
        );
    }
}
