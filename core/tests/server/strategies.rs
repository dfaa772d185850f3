//! How a release takes the place of another: recreate, rolling, blue-green, canary; several instances of
//! each, promoted, aborted, found bad and killed half-way.

use std::collections::BTreeSet;

use management_api::client::ApiError;
use management_api::types::{
    AnalysisSettings, CanaryStep, DeployRequest, Deployment, Failure, RollbackRequest,
    RolloutSettings, TenantLock,
};

use crate::harness::{BOUND, Server, agent, get, key, until};
use crate::image::push;
use crate::load::Load;

const REPLICAS: u32 = 3;

/// A server on which three instances of version `one` serve.
fn serving() -> Server {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    push(&server, "local", "two", &[("VERSION", "two")]);
    assert_eq!(deploy(&server, &request(&server, "one")).state, "succeeded");
    server
}

fn request(server: &Server, tag: &str) -> DeployRequest {
    DeployRequest {
        replicas: Some(REPLICAS),
        ..server.request(tag)
    }
}

fn by(strategy: &str, rollout: RolloutSettings, request: DeployRequest) -> DeployRequest {
    DeployRequest {
        strategy: Some(strategy.to_owned()),
        rollout,
        ..request
    }
}

fn canary(steps: &[(u32, Option<u64>)], analysis: AnalysisSettings) -> RolloutSettings {
    let steps = steps.iter().map(|(weight, pause_ms)| CanaryStep {
        weight: *weight,
        pause_ms: *pause_ms,
    });
    RolloutSettings {
        steps: Some(steps.collect()),
        analysis: Some(analysis),
        ..RolloutSettings::default()
    }
}

fn begin(server: &Server, request: &DeployRequest) -> u64 {
    server.deploy(request).deployment.unwrap()
}

fn deploy(server: &Server, request: &DeployRequest) -> Deployment {
    server.wait(begin(server, request))
}

fn state_of(server: &Server, number: u64, state: &str) {
    server.wait_for(number, |deployment| deployment.state == state);
}

/// The states that a deployment went through, with their words.
fn events(server: &Server, number: u64) -> Vec<(String, String)> {
    let events = server
        .client()
        .deployment_events("local", number, 0, BOUND)
        .unwrap();
    let events = events.map(|event| event.unwrap());
    events.map(|event| (event.state, event.message)).collect()
}

/// The ports of the instances that answer, found by asking often enough for each to have its turn.
fn instances(server: &Server) -> BTreeSet<String> {
    let url = format!("{}/env/PORT", server.app_url());
    (0..30).map(|_| get(&url).unwrap()).collect()
}

/// How many of the next requests each version answers.
fn versions(server: &Server, requests: usize) -> (usize, usize) {
    let url = format!("{}/version", server.app_url());
    let answers: Vec<String> = (0..requests).map(|_| get(&url).unwrap()).collect();
    let of = |version| answers.iter().filter(|answer| *answer == version).count();
    (of("one"), of("two"))
}

fn failure(done: &Deployment, code: &str) -> Failure {
    let failure = done.failure.clone().unwrap();
    assert_eq!(failure.code, code, "{done:?}");
    failure
}

/// Three instances of the old release, and nothing else.
fn is_as_before(server: &Server, before: &BTreeSet<String>) {
    assert_eq!(versions(server, 12), (12, 0));
    let now = instances(server);
    assert_eq!(now.len(), REPLICAS as usize);
    assert!(
        now.iter().any(|port| before.contains(port)),
        "{now:?} {before:?}"
    );
}

#[test]
pub(crate) fn rolling_replaces_one_instance_after_the_other_and_no_request_fails() {
    let server = serving();
    let before = instances(&server);
    assert_eq!(before.len(), REPLICAS as usize);
    let load = Load::start(&server);
    let settings = RolloutSettings {
        batch_pause_ms: Some(300),
        ..RolloutSettings::default()
    };
    let number = begin(&server, &by("rolling", settings, request(&server, "two")));
    let done = server.wait(number);
    assert_eq!(done.state, "succeeded", "{done:?}");
    assert_eq!(done.replicas, REPLICAS);
    assert!(load.stop() > 0);
    let words: Vec<String> = events(&server, number).into_iter().map(|e| e.1).collect();
    for part in ["1 of 3", "2 of 3", "3 of 3"] {
        let told = format!("{part} instances are new");
        assert!(words.contains(&told), "{told}: {words:?}");
    }
    let after = instances(&server);
    assert_eq!(after.len(), REPLICAS as usize);
    assert!(after.is_disjoint(&before), "{after:?} {before:?}");
    assert_eq!(versions(&server, 12), (0, 12));
}

#[test]
fn instances_may_be_missing_where_there_is_no_room_for_more() {
    let server = serving();
    let load = Load::start(&server);
    let settings = RolloutSettings {
        max_surge: Some(0),
        max_unavailable: Some(2),
        ..RolloutSettings::default()
    };
    let done = deploy(&server, &by("rolling", settings, request(&server, "two")));
    assert_eq!(done.state, "succeeded", "{done:?}");
    load.stop();
    assert_eq!(instances(&server).len(), REPLICAS as usize);
    assert_eq!(versions(&server, 12), (0, 12));
}

#[test]
pub(crate) fn a_batch_that_dies_while_it_is_watched_brings_all_old_instances_back() {
    let server = serving();
    let before = instances(&server);
    let crash = [("VERSION", "two"), ("MODE", "crash"), ("CRASH_MS", "1500")];
    push(&server, "local", "crash", &crash);
    let load = Load::start(&server);
    let settings = RolloutSettings {
        batch_pause_ms: Some(1000),
        ..RolloutSettings::default()
    };
    let done = deploy(&server, &by("rolling", settings, request(&server, "crash")));
    assert_eq!(done.state, "rolled_back");
    // Its end is seen, or the requests that it did not answer are.
    let code = done.failure.clone().unwrap().code;
    assert!(
        ["exited", "analysis_failed"].contains(&code.as_str()),
        "{done:?}"
    );
    load.stop();
    is_as_before(&server, &before);
}

#[test]
fn the_number_of_instances_is_part_of_the_release() {
    let server = serving();
    let more = DeployRequest {
        replicas: Some(5),
        ..request(&server, "one")
    };
    assert_eq!(deploy(&server, &more).state, "succeeded");
    assert_eq!(instances(&server).len(), 5);
    let fewer = DeployRequest {
        replicas: None,
        ..more
    };
    let answer = server.deploy(&fewer);
    assert!(!answer.unchanged);
    assert_eq!(server.wait(answer.deployment.unwrap()).state, "succeeded");
    assert_eq!(instances(&server).len(), 1);
    let again = server.deploy(&fewer);
    assert!(again.unchanged);
}

#[test]
fn a_release_grows_and_shrinks_without_room_and_without_a_gap() {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    push(&server, "local", "two", &[("VERSION", "two")]);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
    let tight = || RolloutSettings {
        max_surge: Some(0),
        max_unavailable: Some(1),
        ..RolloutSettings::default()
    };
    let load = Load::start(&server);
    let number = begin(&server, &by("rolling", tight(), request(&server, "two")));
    assert_eq!(server.wait(number).state, "succeeded");
    // Beside the load, one of them may have nothing left for these few requests.
    until("all instances are seen", || {
        (instances(&server).len() == REPLICAS as usize).then_some(())
    });
    let steps = events(&server, number);
    assert!(steps.len() < 12, "{steps:?}");
    let done = deploy(&server, &by("rolling", tight(), server.request("one")));
    assert_eq!(done.state, "succeeded");
    assert_eq!(instances(&server).len(), 1);
    load.stop();
}

#[test]
fn a_word_too_many_skips_no_step() {
    let server = serving();
    let settings = canary(&[(10, None), (50, None)], AnalysisSettings::default());
    let number = begin(&server, &by("canary", settings, request(&server, "two")));
    state_of(&server, number, "paused");
    server.client().promote("local", number).unwrap();
    // Either nobody waits for this one, or the next step does.
    let again = server.client().promote("local", number);
    if again.is_ok() {
        assert_eq!(server.wait(number).state, "succeeded");
        return;
    }
    until("it waits at the second step", || {
        (versions(&server, 10) == (5, 5)).then_some(())
    });
    server.client().abort("local", number).unwrap();
    assert_eq!(server.wait(number).state, "rolled_back");
}

#[test]
pub(crate) fn an_instance_that_ends_is_replaced_and_the_others_serve() {
    let server = serving();
    let before = instances(&server);
    let url = format!("{}/exit/7", server.app_url());
    // The one that gets this ends in the middle of its answer. A GET would be sent once more, to another.
    let lost = agent().post(&url).send_empty().unwrap();
    assert_eq!(lost.status(), 502);
    let load = Load::start(&server);
    let now = until("all three serve again", || {
        let now = instances(&server);
        (now.len() == REPLICAS as usize && now != before).then_some(now)
    });
    assert_eq!(now.intersection(&before).count(), 2);
    load.stop();
}

#[test]
pub(crate) fn blue_green_switches_at_once_and_returns_to_the_very_instances() {
    let server = serving();
    let before = instances(&server);
    let load = Load::start(&server);
    let settings = RolloutSettings {
        bake_ms: Some(300),
        keep_warm_ms: Some(600_000),
        ..RolloutSettings::default()
    };
    let request = by("blue-green", settings, request(&server, "two"));
    assert_eq!(deploy(&server, &request).state, "succeeded");
    assert_eq!(versions(&server, 12), (0, 12));
    let back = server
        .client()
        .rollback("local", &RollbackRequest::default(), &key())
        .unwrap();
    let back = server.wait(back.deployment.unwrap());
    assert_eq!((back.state.as_str(), back.restores), ("succeeded", Some(1)));
    load.stop();
    assert_eq!(versions(&server, 12), (12, 0));
    assert_eq!(instances(&server), before);
}

#[test]
fn a_set_is_kept_warm_only_for_its_time() {
    let server = serving();
    let before = instances(&server);
    let settings = RolloutSettings {
        keep_warm_ms: Some(200),
        ..RolloutSettings::default()
    };
    let request = by("blue-green", settings, request(&server, "two"));
    assert_eq!(deploy(&server, &request).state, "succeeded");
    until("the old instances have ended", || {
        (server.instances().len() == REPLICAS as usize).then_some(())
    });
    assert!(instances(&server).is_disjoint(&before));
    assert_eq!(versions(&server, 12), (0, 12));
}

#[test]
fn a_canary_gets_exactly_its_part_until_it_is_promoted() {
    let server = serving();
    let load = Load::start(&server);
    let settings = canary(&[(20, None)], AnalysisSettings::default());
    let number = begin(&server, &by("canary", settings, request(&server, "two")));
    state_of(&server, number, "paused");
    let answered = load.stop();
    assert!(answered > 0);
    assert_eq!(versions(&server, 100), (80, 20));
    server.client().promote("local", number).unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
    assert_eq!(versions(&server, 12), (0, 12));
    assert_eq!(instances(&server).len(), REPLICAS as usize);
    let over = server.client().promote("local", number).unwrap_err();
    assert!(
        matches!(over, ApiError::Refused { status: 409, .. }),
        "{over:?}"
    );
}

#[test]
fn whoever_asks_is_told_who_holds_the_tenant_and_what_is_paused_goes_on() {
    let server = serving();
    let lock = || server.client().lock("local").unwrap().unwrap();
    assert_eq!(lock(), TenantLock::default());
    let settings = canary(&[(20, None)], AnalysisSettings::default());
    let number = begin(&server, &by("canary", settings, request(&server, "two")));
    state_of(&server, number, "paused");
    let held = lock();
    let words = [&held.reason, &held.holder, &held.step].map(|word| word.as_deref().unwrap());
    assert_eq!(words, ["deployment_in_progress", "operator", "paused"]);
    assert_eq!((held.locked, held.deployment), (true, Some(number)));
    server.client().resume("local", number).unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
    assert!(!lock().locked);
    let over = server.client().resume("local", number).unwrap_err();
    assert!(
        matches!(over, ApiError::Refused { status: 409, .. }),
        "{over:?}"
    );
    let mut measured = agent()
        .get(format!("{}/api/v1/tenants/local/metrics", server.url))
        .header("authorization", format!("Bearer {}", server.token()))
        .call()
        .unwrap();
    let text = measured.body_mut().read_to_string().unwrap();
    assert!(
        text.contains("systemprompt_tenant_up{tenant=\"local\"} 1"),
        "{text}"
    );
}

#[test]
pub(crate) fn a_good_canary_goes_through_its_steps_by_itself() {
    let server = serving();
    let settings = canary(
        &[(10, Some(400)), (50, Some(400))],
        AnalysisSettings::default(),
    );
    let number = begin(&server, &by("canary", settings, request(&server, "two")));
    assert_eq!(server.wait(number).state, "succeeded");
    let words: Vec<String> = events(&server, number).into_iter().map(|e| e.1).collect();
    for told in [
        "10 % of the traffic",
        "50 % of the traffic",
        "nothing speaks against it",
    ] {
        assert!(words.iter().any(|word| word == told), "{told}: {words:?}");
    }
    assert!(
        !words.iter().any(|word| word.contains("promote")),
        "{words:?}"
    );
}

#[test]
fn a_canary_that_answers_with_errors_is_undone() {
    let server = serving();
    let before = instances(&server);
    push(&server, "local", "faulty", &[("MODE", "faulty")]);
    let settings = canary(&[(50, Some(20_000))], AnalysisSettings::default());
    let number = begin(&server, &by("canary", settings, request(&server, "faulty")));
    state_of(&server, number, "shifting");
    let url = format!("{}/version", server.app_url());
    let done = until("the deployment is over", || {
        // Half of the requests fail: that is what has to be noticed.
        for _ in 0..10 {
            let _ = get(&url);
        }
        let found = server.client().deployment("local", number).unwrap();
        management_api::types::is_final(&found.state).then_some(found)
    });
    assert_eq!(done.state, "rolled_back");
    let why = failure(&done, "analysis_failed").message;
    assert!(
        why.contains("requests failed") && why.contains("the old release: 0.0 %"),
        "{why}"
    );
    is_as_before(&server, &before);
}

#[test]
fn a_canary_that_is_slower_than_the_old_release_is_undone_by_requests_that_are_made_up() {
    let server = serving();
    let before = instances(&server);
    push(
        &server,
        "local",
        "lazy",
        &[("MODE", "lazy"), ("DELAY_MS", "250")],
    );
    let settings = canary(&[(10, Some(60_000))], AnalysisSettings::default());
    let done = deploy(&server, &by("canary", settings, request(&server, "lazy")));
    assert_eq!(done.state, "rolled_back");
    let why = failure(&done, "analysis_failed").message;
    assert!(why.contains("times as long"), "{why}");
    is_as_before(&server, &before);
}

#[test]
pub(crate) fn a_line_of_the_log_can_speak_against_a_canary() {
    let server = serving();
    let analysis = AnalysisSettings {
        log_patterns: Some(vec!["panicked at".into(), "version two".into()]),
        ..AnalysisSettings::default()
    };
    let settings = canary(&[(10, Some(60_000))], analysis);
    let done = deploy(&server, &by("canary", settings, request(&server, "two")));
    assert_eq!(done.state, "rolled_back");
    let why = failure(&done, "analysis_failed").message;
    assert_eq!(why, "its log says: starting in mode ok, version two");
}

#[test]
fn every_line_of_the_new_instances_counts_and_none_of_the_release_command() {
    let server = serving();
    // More lines than anybody keeps in mind between two looks.
    let chatty = [("VERSION", "three"), ("LINES", "5000")];
    push(&server, "local", "three", &chatty);
    let watched = |tag: &str, pattern: &str| {
        let analysis = AnalysisSettings {
            log_patterns: Some(vec![pattern.to_owned()]),
            ..AnalysisSettings::default()
        };
        let mut asked = request(&server, tag);
        asked.release_command = vec!["print".into()];
        deploy(
            &server,
            &by("canary", canary(&[(50, Some(500))], analysis), asked),
        )
    };
    let done = watched("two", "running print for version two");
    assert_eq!(done.state, "succeeded", "{done:?}");
    let done = watched("three", "starting in mode ok, version three");
    assert_eq!(done.state, "rolled_back", "{done:?}");
    failure(&done, "analysis_failed");
}

#[test]
fn where_nobody_can_say_it_is_paused_and_can_be_aborted() {
    let server = serving();
    let before = instances(&server);
    let analysis = AnalysisSettings {
        synthetic: Some(false),
        ..AnalysisSettings::default()
    };
    let settings = canary(&[(10, Some(200))], analysis);
    let number = begin(&server, &by("canary", settings, request(&server, "two")));
    state_of(&server, number, "paused");
    let words = events_so_far(&server, number);
    assert!(
        words.last().unwrap().contains("too few to judge by"),
        "{words:?}"
    );
    server.client().abort("local", number).unwrap();
    let done = server.wait(number);
    assert_eq!(done.state, "rolled_back");
    failure(&done, "aborted");
    is_as_before(&server, &before);
}

/// The words of the events that there are already.
fn events_so_far(server: &Server, number: u64) -> Vec<String> {
    let events = server
        .client()
        .deployment_events("local", number, 0, BOUND)
        .unwrap();
    let mut words = Vec::new();
    for event in events {
        let event = event.unwrap();
        words.push(event.message);
        if event.state == "paused" {
            break;
        }
    }
    words
}

#[test]
fn nobody_promotes_for_ever_the_deadline_undoes_it() {
    let server = serving();
    let settings = canary(&[(10, None)], AnalysisSettings::default());
    let mut request = by("canary", settings, request(&server, "two"));
    request.timeout_seconds = Some(15);
    let done = deploy(&server, &request);
    assert_eq!(done.state, "rolled_back");
    assert!(
        failure(&done, "deadline")
            .message
            .contains("nobody promoted or aborted")
    );
}

#[test]
fn without_a_release_before_every_strategy_starts_everything() {
    for strategy in ["recreate", "rolling", "blue-green", "canary"] {
        let server = Server::start();
        push(&server, "local", "one", &[("VERSION", "one")]);
        let request = by(
            strategy,
            RolloutSettings::default(),
            request(&server, "one"),
        );
        let done = deploy(&server, &request);
        assert_eq!(
            (done.state.as_str(), done.strategy.as_str()),
            ("succeeded", strategy)
        );
        assert_eq!(instances(&server).len(), REPLICAS as usize);
    }
}

#[test]
fn a_server_killed_while_a_canary_is_paused_serves_the_old_release_again() {
    let server = serving();
    let settings = canary(&[(50, None)], AnalysisSettings::default());
    let number = begin(&server, &by("canary", settings, request(&server, "two")));
    state_of(&server, number, "paused");
    let server = server.kill_and_restart();
    let done = server.client().deployment("local", number).unwrap();
    assert_eq!(done.state, "rolled_back");
    failure(&done, "interrupted");
    until("three instances serve again", || {
        server.version()?;
        (instances(&server).len() == REPLICAS as usize).then_some(())
    });
    assert_eq!(versions(&server, 12), (12, 0));
}

#[test]
fn a_server_killed_in_the_middle_of_rolling_has_all_old_instances_again() {
    let server = serving();
    let settings = RolloutSettings {
        batch_pause_ms: Some(60_000),
        ..RolloutSettings::default()
    };
    let number = begin(&server, &by("rolling", settings, request(&server, "two")));
    state_of(&server, number, "shifting");
    let server = server.kill_and_restart();
    let done = server.client().deployment("local", number).unwrap();
    assert_eq!(done.state, "rolled_back");
    until("three instances serve again", || {
        server.version()?;
        (instances(&server).len() == REPLICAS as usize).then_some(())
    });
    assert_eq!(versions(&server, 12), (12, 0));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_happens() {
    let server = serving();
    let foreign = RolloutSettings {
        keep_warm_ms: Some(1),
        ..RolloutSettings::default()
    };
    let none = DeployRequest {
        replicas: Some(0),
        ..request(&server, "two")
    };
    for (request, told) in [
        (
            by("canary", foreign, request(&server, "two")),
            "is for the strategy blue-green",
        ),
        (
            by("yolo", RolloutSettings::default(), request(&server, "two")),
            "canary",
        ),
        (none, "replicas must be between 1 and 100"),
        (
            by(
                "canary",
                canary(&[(50, None), (10, None)], AnalysisSettings::default()),
                request(&server, "two"),
            ),
            "must grow",
        ),
    ] {
        let refused = server
            .client()
            .deploy("local", &request, &key(), false)
            .unwrap_err();
        let text = format!("{refused:?}");
        assert!(text.contains(told), "{told}: {text}");
    }
    assert_eq!(
        server.client().deployments("local").unwrap().unwrap().len(),
        1
    );
}

#[test]
fn deployments_of_each_strategy_under_load_fail_no_request() {
    let server = serving();
    let settings = |strategy: &str| match strategy {
        "canary" => canary(&[(25, Some(200))], AnalysisSettings::default()),
        "blue-green" => RolloutSettings {
            keep_warm_ms: Some(500),
            ..RolloutSettings::default()
        },
        _ => RolloutSettings::default(),
    };
    let load = Load::start(&server);
    for round in 0..3 {
        for strategy in ["rolling", "blue-green", "canary", "recreate"] {
            let tag = if round % 2 == 0 { "two" } else { "one" };
            let mut request = by(strategy, settings(strategy), request(&server, tag));
            request.force = true;
            let done = deploy(&server, &request);
            assert_eq!(done.state, "succeeded", "{done:?}");
        }
    }
    assert!(load.stop() > 100);
}
