//! Making a tenant's tokens anew.

use std::collections::BTreeSet;

use management_api::types::{NewToken, Role, RotateRequest};
use secrecy::{ExposeSecret, SecretString};

use crate::harness::{Server, agent};

fn holds(server: &Server, token: &SecretString) -> bool {
    server.client_with(token.expose_secret()).me().is_ok()
}

#[test]
pub(crate) fn every_token_of_the_tenant_is_made_anew_and_the_old_ones_hold_for_a_while() {
    let server = Server::start();
    server.create_tenants(&["own", "other"]);
    let deployer = server.issue(Role::Deployer, Some("own"));
    let reader = server.issue(Role::Reader, Some("own"));
    let stranger = server.issue(Role::Reader, Some("other"));
    let rotated = server
        .client()
        .rotate_credentials("own", &RotateRequest::default())
        .unwrap();
    assert_eq!(rotated.status, "rotated");
    let grace = rotated.old_valid_until - chrono::Utc::now();
    assert!((3500..=3600).contains(&grace.num_seconds()), "{grace}");
    let replaced: BTreeSet<_> = rotated.credentials.iter().map(|c| &c.replaces).collect();
    assert_eq!(
        replaced,
        BTreeSet::from([&deployer.info.id, &reader.info.id])
    );
    for old in [&deployer, &reader] {
        let new = rotated
            .credentials
            .iter()
            .find(|c| c.replaces == old.info.id);
        let new = new.unwrap();
        let info = &new.issued.info;
        assert_eq!(
            (info.role, &info.name, &info.tenant),
            (old.info.role, &old.info.name, &old.info.tenant)
        );
        // For as long as the one before it was made for.
        let life =
            |info: &management_api::types::TokenInfo| info.expires_at.unwrap() - info.created_at;
        assert_eq!(life(info).num_seconds(), life(&old.info).num_seconds());
        assert!(holds(&server, &new.issued.token) && holds(&server, &old.token));
    }
    assert!(holds(&server, &stranger.token));
    // Once more: the old ones are left to their end, the new ones are made anew.
    let again = server
        .client()
        .rotate_credentials("own", &RotateRequest::default())
        .unwrap();
    assert_eq!(again.credentials.len(), 2);
    let made: BTreeSet<_> = rotated
        .credentials
        .iter()
        .map(|c| &c.issued.info.id)
        .collect();
    let replaced: BTreeSet<_> = again.credentials.iter().map(|c| &c.replaces).collect();
    assert_eq!(replaced, made);
}

#[test]
pub(crate) fn on_request_the_old_ones_end_at_once_with_all_that_was_got_with_them() {
    let server = Server::start();
    let old = server.issue(Role::Deployer, Some("local"));
    let login = |token: &SecretString| {
        let header = format!("Bearer {}", token.expose_secret());
        let answer = agent()
            .get(format!("{}/v2/", server.url))
            .header("authorization", header);
        answer.call().unwrap().status().as_u16()
    };
    let registry = server
        .client_with(old.token.expose_secret())
        .registry_token("local")
        .unwrap();
    assert_eq!(login(&registry.token), 200);
    let now = RotateRequest {
        grace_seconds: Some(0),
    };
    let rotated = server.client().rotate_credentials("local", &now).unwrap();
    assert!(!holds(&server, &old.token));
    assert_eq!(login(&registry.token), 401);
    let new = &rotated.credentials[0].issued.token;
    assert!(holds(&server, new));
    assert_eq!(login(new), 200);
}

#[test]
fn tokens_without_an_end_stay_so_and_a_tenant_without_tokens_gets_none() {
    let server = Server::start();
    let none = server
        .client()
        .rotate_credentials("local", &RotateRequest::default())
        .unwrap();
    assert!(
        none.credentials.is_empty() && none.message.contains("no tokens"),
        "{}",
        none.message
    );
    let endless = NewToken {
        name: "ci".into(),
        role: Role::Deployer,
        tenant: Some("local".into()),
        expires_in: None,
    };
    let old = server.client().create_token(&endless).unwrap();
    let short = RotateRequest {
        grace_seconds: Some(60),
    };
    let rotated = server.client().rotate_credentials("local", &short).unwrap();
    assert_eq!(rotated.credentials[0].issued.info.expires_at, None);
    let listed = server.client().tokens().unwrap();
    let listed = listed.iter().find(|info| info.id == old.info.id).unwrap();
    assert_eq!(listed.expires_at, Some(rotated.old_valid_until));
}

#[test]
fn a_grace_without_end_and_a_tenant_that_is_not_there_are_refused() {
    let server = Server::start();
    for seconds in [30 * 24 * 3600 + 1, u64::MAX] {
        let long = RotateRequest {
            grace_seconds: Some(seconds),
        };
        let refused = server
            .client()
            .rotate_credentials("local", &long)
            .unwrap_err();
        assert_eq!(refused.code(), Some("invalid_request"), "{refused}");
    }
    let none = server
        .client()
        .rotate_credentials("nobody", &RotateRequest::default());
    assert_eq!(none.unwrap_err().code(), Some("not_found"));
}
