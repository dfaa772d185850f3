//! Logs and events over HTTP.

use std::fs;
use std::time::Duration;

use management_api::client::LogQuery;
use management_api::types::Role;
use secrecy::ExposeSecret as _;

use crate::harness::{BOUND, Server, agent, get, until};
use crate::image::push;

#[test]
pub(crate) fn logs_are_listed_filtered_and_followed() {
    let server = Server::start();
    let client = server.client();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    push(&server, "local", "v2", &[("VERSION", "two")]);
    server.deploy_and_wait("v1");
    server.deploy_and_wait("v2");
    let all = until("both have written", || {
        let lines = client.logs("local", &LogQuery::default()).unwrap();
        let listening = |deployment| {
            lines
                .iter()
                .any(|l| l.deployment == deployment && l.line.contains("listening"))
        };
        (listening(1) && listening(2)).then_some(lines)
    });
    assert!(all.is_sorted_by_key(|line| line.at));
    let query = LogQuery {
        filter: Some("version two".into()),
        since: Some("10m".into()),
        tail: Some(5),
        ..LogQuery::default()
    };
    let found = client.logs("local", &query).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].deployment, found[0].stream.as_str()),
        (2, "stdout")
    );
    // Its other lines are found by its name, and nobody else's.
    let instance = found[0].instance.clone();
    assert!(instance.is_some());
    let query = LogQuery {
        instance: instance.clone(),
        ..LogQuery::default()
    };
    let of_one = client.logs("local", &query).unwrap();
    assert!(of_one.len() > 1 && of_one.iter().all(|line| line.instance == instance));
    let query = LogQuery {
        deployment: Some(1),
        ..LogQuery::default()
    };
    let of_first = client.logs("local", &query).unwrap();
    assert!(!of_first.is_empty() && of_first.iter().all(|line| line.deployment == 1));
    let bad = LogQuery {
        since: Some("yesterday".into()),
        ..LogQuery::default()
    };
    assert!(client.logs("local", &bad).is_err());

    let query = LogQuery {
        filter: Some("told to end".into()),
        ..LogQuery::default()
    };
    let mut lines = client.follow_logs("local", &query, BOUND).unwrap();
    get(&format!("{}/exit/7", server.app_url()));
    let line = lines.next().unwrap().unwrap();
    assert_eq!(line.line, "told to end with 7");
}

#[test]
pub(crate) fn a_long_line_stays_whole() {
    let server = Server::start();
    push(&server, "local", "v1", &[("LONG", "40000")]);
    server.deploy_and_wait("v1");
    let query = LogQuery::default();
    let lines = until("it has written", || {
        let lines = server.client().logs("local", &query).unwrap();
        let listens = lines.iter().any(|line| line.line.contains("listening"));
        listens.then_some(lines)
    });
    let lengths: Vec<usize> = lines.iter().map(|line| line.line.len()).collect();
    assert_eq!(lengths.len(), 3, "{lengths:?}");
    assert_eq!(lengths[1], 40_000);
    assert!(lines[2].line.starts_with("listening"), "{}", lines[2].line);
}

#[test]
fn events_resume_where_a_client_has_stopped() {
    let server = Server::start();
    let client = server.client();
    push(
        &server,
        "local",
        "v1",
        &[("MODE", "slow"), ("START_MS", "500")],
    );
    let number = server.deploy(&server.request("v1")).deployment.unwrap();
    let follow = |after| {
        let events = client
            .deployment_events("local", number, after, BOUND)
            .unwrap();
        events.map(|event| event.unwrap())
    };
    let first: Vec<_> = follow(0).take(2).collect();
    assert_eq!(first[0].state, "requested");
    let rest: Vec<_> = follow(first[1].seq).collect();
    let all: Vec<_> = follow(0).collect();
    assert_eq!([first, rest].concat(), all);
    let states: Vec<_> = all.iter().map(|event| event.state.as_str()).collect();
    assert_eq!(
        states,
        [
            "requested",
            "provisioned",
            "healthy",
            "shifting",
            "verified",
            "succeeded"
        ]
    );
    let numbers: Vec<_> = all.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    // Who has seen the end gets an end, not an endless stream.
    let nothing = client
        .deployment_events("local", number, 6, Duration::from_secs(5))
        .unwrap();
    assert_eq!(nothing.count(), 0);
}

#[test]
fn a_stream_ends_with_the_token_that_it_was_asked_for_with() {
    let server = Server::start();
    let slow = [("MODE", "slow"), ("START_MS", "300000")];
    push(&server, "local", "v1", &slow);
    let mut request = server.request("v1");
    request.timeout_seconds = Some(600);
    if let Some(health) = &mut request.health {
        health.start_period_ms = 300_000;
    }
    let number = server.deploy(&request).deployment.unwrap();
    let events = format!("deployments/{number}/events");
    let reader = server.issue(Role::Reader, Some("local"));
    let bearer = format!("Bearer {}", reader.token.expose_secret());
    let open = |path: &str| {
        let url = format!("{}/api/v1/tenants/local/{path}", server.url);
        let answer = agent().get(url).header("authorization", &bearer).call();
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.into_body()
    };
    let streams = [open("logs?follow=true"), open(&events)];
    server.client().revoke_token(&reader.info.id).unwrap();
    for mut stream in streams {
        stream.read_to_string().unwrap();
    }
    let deployment = server.client().deployment("local", number).unwrap();
    assert!(deployment.finished_at.is_none(), "{deployment:?}");
    server.client().abort("local", number).unwrap();
    server.wait(number);
}

#[test]
fn whoever_follows_the_log_of_a_tenant_is_let_go_with_it() {
    let server = Server::start();
    server.create_tenants(&["own"]);
    let mut followed = agent()
        .get(format!(
            "{}/api/v1/tenants/own/logs?follow=true",
            server.url
        ))
        .header("authorization", format!("Bearer {}", server.token()))
        .call()
        .unwrap();
    assert_eq!(followed.status(), 200);
    let deleted = agent()
        .delete(format!("{}/api/v1/tenants/own", server.url))
        .header("authorization", format!("Bearer {}", server.token()))
        .call()
        .unwrap();
    assert_eq!(deleted.status(), 204);
    followed.body_mut().read_to_string().unwrap();
}

#[test]
fn the_logs_of_a_tenant_whose_deletion_was_cut_short_go_at_the_next_start() {
    let mut server = Server::start();
    server.create_tenants(&["own"]);
    server.client().delete_tenant("own").unwrap();
    server.kill();
    // As when it was killed before they were removed.
    let logs = server.data().join("logs");
    let [own, local] = ["own", "local"].map(|tenant| logs.join(tenant));
    for folder in [&own, &local] {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("1.log"), "").unwrap();
    }
    let _server = server.restart_with(&[]);
    until("the logs are removed", || (!own.exists()).then_some(()));
    assert!(local.join("1.log").exists());
}
