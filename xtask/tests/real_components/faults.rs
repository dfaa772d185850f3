//! Every call of the Management API fails in every way.

use testkit::http::Response;
use testkit::management::Variant;
use testkit::{Fault, Gate, ManagementApi, Rule};

use crate::world::{World, failed};

/// A call, the step that it belongs to, and its path.
const TOKEN: (&str, &str, &str) = ("GET", "token", "/api/v1/tenants/*/registry-token");
const DEPLOY: (&str, &str, &str) = ("POST", "deploy", "/api/v1/tenants/*/deploy");
const STATUS: (&str, &str, &str) = ("GET", "wait", "/api/v1/tenants/*/status");

type Call = (&'static str, &'static str, &'static str);

/// A fault that stays, and how a deployment ends because of it.
struct Lasting {
    call: Call,
    fault: Fault,
    exit: i32,
    code: &'static str,
}

fn lasting(call: Call, fault: Fault, exit: i32, code: &'static str) -> Lasting {
    Lasting {
        call,
        fault,
        exit,
        code,
    }
}

/// Faults after which nothing was deployed, and one that leaves the token unread.
fn of_the_token() -> Vec<Lasting> {
    vec![
        lasting(TOKEN, Fault::Status(401), 4, "unauthorized"),
        lasting(TOKEN, Fault::Status(403), 4, "forbidden"),
        lasting(TOKEN, Fault::Status(404), 1, "not_found"),
        lasting(TOKEN, Fault::Status(422), 1, "refused"),
        lasting(TOKEN, Fault::RateLimited(0), 1, "rate_limited"),
        lasting(TOKEN, Fault::Status(500), 1, "server_error"),
        lasting(TOKEN, Fault::HtmlPage(200), 1, "answer_malformed"),
        lasting(TOKEN, Fault::HtmlPage(502), 1, "server_error"),
        lasting(TOKEN, Fault::TruncatedJson, 1, "answer_malformed"),
        lasting(TOKEN, Fault::WrongShape, 1, "answer_malformed"),
        lasting(TOKEN, Fault::ResetBeforeAnswer, 1, "unreachable"),
        lasting(TOKEN, Fault::ResetDuringAnswer, 1, "unreachable"),
    ]
}

fn of_the_request() -> Vec<Lasting> {
    vec![
        lasting(DEPLOY, Fault::Status(401), 4, "unauthorized"),
        lasting(DEPLOY, Fault::Status(403), 4, "forbidden"),
        lasting(DEPLOY, Fault::Status(404), 1, "not_found"),
        lasting(DEPLOY, Fault::Status(409), 7, "deployment_in_progress"),
        lasting(DEPLOY, Fault::Status(422), 1, "refused"),
        lasting(DEPLOY, Fault::RateLimited(0), 1, "rate_limited"),
        lasting(DEPLOY, Fault::Status(503), 1, "server_error"),
        // Whether the server has begun cannot be known: it is said, and nothing is repeated.
        lasting(DEPLOY, Fault::Status(500), 1, "outcome_unknown"),
        lasting(DEPLOY, Fault::Status(502), 1, "outcome_unknown"),
        lasting(DEPLOY, Fault::ResetBeforeAnswer, 1, "outcome_unknown"),
        lasting(DEPLOY, Fault::HtmlPage(502), 1, "outcome_unknown"),
    ]
}

/// The request has its effect in these, but its answer is lost.
fn of_the_answer() -> Vec<Lasting> {
    vec![
        lasting(DEPLOY, Fault::ResetAfterEffect, 1, "outcome_unknown"),
        lasting(DEPLOY, Fault::ResetDuringAnswer, 1, "outcome_unknown"),
        lasting(DEPLOY, Fault::TruncatedJson, 1, "outcome_unknown"),
    ]
}

fn of_the_wait() -> Vec<Lasting> {
    vec![
        lasting(STATUS, Fault::Status(401), 4, "unauthorized"),
        lasting(STATUS, Fault::Status(403), 4, "forbidden"),
        lasting(STATUS, Fault::Status(404), 1, "not_found"),
        lasting(STATUS, Fault::TruncatedJson, 1, "answer_malformed"),
        lasting(STATUS, Fault::WrongShape, 1, "answer_malformed"),
    ]
}

/// Provokes one fault after the other in one project.
fn check(variant: Variant, faults: Vec<Lasting>, deployed: usize) {
    let world = World::new(variant);
    world.deploy(&["--tag", "before"]).expect_success();
    for Lasting {
        call: (method, step, path),
        fault,
        exit,
        code,
    } in faults
    {
        world.api.forget();
        world
            .api
            .inject(Rule::on(method, path, fault.clone()).always());
        let finished = world.deploy(&["--skip-build", "--timeout", "20s"]);
        world.api.heal();
        let failed = failed(&finished);
        let found = (failed.exit, failed.step.as_str(), failed.code.as_str());
        assert_eq!(
            found,
            (exit, step, code),
            "{fault:?} at {method} {path}: {finished}"
        );
        assert_eq!(
            world.api.deployed().len(),
            deployed,
            "{fault:?} at {path}: {finished}"
        );
    }
    // Nothing is held or half done: the next one goes through.
    world
        .deploy(&["--skip-build", "--tag", "after"])
        .expect_success();
    world.assert_nothing_leaked();
}

#[test]
fn seed_era_token() {
    check(Variant::SeedEra, of_the_token(), 0);
}

#[test]
fn server_tag_token() {
    check(Variant::ServerTag, of_the_token(), 0);
}

#[test]
fn current_token() {
    check(Variant::Current, of_the_token(), 0);
}

#[test]
fn seed_era_request() {
    check(Variant::SeedEra, of_the_request(), 0);
}

#[test]
fn server_tag_request() {
    check(Variant::ServerTag, of_the_request(), 0);
}

#[test]
fn current_request() {
    check(Variant::Current, of_the_request(), 0);
}

#[test]
fn seed_era_answer() {
    check(Variant::SeedEra, of_the_answer(), 1);
}

#[test]
fn server_tag_answer() {
    check(Variant::ServerTag, of_the_answer(), 1);
}

#[test]
fn current_answer() {
    check(Variant::Current, of_the_answer(), 1);
}

#[test]
fn seed_era_wait() {
    check(Variant::SeedEra, of_the_wait(), 1);
}

#[test]
fn server_tag_wait() {
    check(Variant::ServerTag, of_the_wait(), 1);
}

#[test]
fn current_wait() {
    check(Variant::Current, of_the_wait(), 1);
}

/// What passes by itself is waited out, and one deployment comes of it.
#[test]
fn faults_that_pass_are_waited_out() {
    let world = World::new(Variant::ServerTag);
    world.deploy(&[]).expect_success();
    let passing = [
        (TOKEN, Fault::RateLimited(1)),
        (TOKEN, Fault::Status(500)),
        (TOKEN, Fault::Status(502)),
        (TOKEN, Fault::ResetBeforeAnswer),
        (DEPLOY, Fault::RateLimited(1)),
        (DEPLOY, Fault::Status(503)),
        (STATUS, Fault::RateLimited(1)),
        (STATUS, Fault::Status(503)),
        (STATUS, Fault::Status(500)),
        (STATUS, Fault::ResetBeforeAnswer),
    ];
    for ((method, _, path), fault) in passing {
        world.api.forget();
        world.api.inject(Rule::on(method, path, fault.clone()));
        let finished = world.deploy(&["--skip-build"]);
        world.api.heal();
        assert_eq!(
            finished.code(),
            0,
            "{fault:?} at {method} {path}: {finished}"
        );
        assert_eq!(
            world.api.deployed().len(),
            1,
            "{fault:?} at {method} {path}: {finished}"
        );
    }
    world.assert_nothing_leaked();
}

#[test]
fn a_slow_answer_is_waited_for() {
    let world = World::new(Variant::Current);
    for (method, _, path) in [TOKEN, DEPLOY, STATUS] {
        let gate = Gate::closed(std::time::Duration::from_secs(2));
        world.api.inject(Rule::on(method, path, Fault::Slow(gate)));
    }
    world.deploy(&[]).expect_success();
    assert_eq!(world.api.deployed().len(), 1);
}

/// The limit is the contract's: 30 seconds a call.
#[test]
fn an_answer_that_never_comes_ends_by_itself() {
    let world = World::new(Variant::Current);
    let gate = Gate::closed(std::time::Duration::from_mins(10));
    let (method, step, path) = TOKEN;
    world
        .api
        .inject(Rule::on(method, path, Fault::Slow(gate)).always());
    let finished = world.deploy(&[]);
    let failed = failed(&finished);
    assert_eq!((failed.exit, failed.step.as_str()), (1, step), "{finished}");
    assert!(
        finished.took < std::time::Duration::from_mins(2),
        "{finished}"
    );
    world.api.heal();
}

#[test]
fn an_exchanged_token_that_was_revoked_is_replaced() {
    let world = World::new(Variant::ServerTag);
    // 401 in the middle of the job is what a revoked token meets.
    let (method, _, path) = DEPLOY;
    world.api.inject(Rule::on(method, path, Fault::Status(401)));
    world.deploy(&[]).expect_success();
    assert_eq!(world.api.granted_exchanges(), 2);
    assert_eq!(world.api.deployed().len(), 1);
}

#[test]
fn a_failing_exchange_is_an_authentication_failure() {
    let world = World::new(Variant::ServerTag);
    let exchange = "/api/v1/core/oauth/token";
    for fault in [
        Fault::Status(401),
        Fault::Status(403),
        Fault::Answer(Response::new(
            400,
            "application/json",
            r#"{"error":"invalid_grant"}"#,
        )),
    ] {
        world
            .api
            .inject(Rule::on("POST", exchange, fault.clone()).always());
        let finished = world.deploy(&[]);
        world.api.heal();
        let failed = failed(&finished);
        assert_eq!(
            (failed.exit, failed.step.as_str()),
            (4, "token"),
            "{fault:?}: {finished}"
        );
    }
    world.assert_nothing_leaked();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let world = World::new(Variant::Current);
    let gone = testkit::server::Server::start(Box::new(|_| Response::empty(204))).url();
    let arguments = ["deploy", "-e", "production", "--output", "json"];
    let finished = world.run_with(&arguments, &[("SYSTEMPROMPT_API_URL", &gone)]);
    let failed = failed(&finished);
    assert_eq!(failed.code, "unreachable", "{finished}");
    assert!(
        failed.details.contains(gone.trim_start_matches("http://")),
        "{finished}"
    );
}

/// A token that was given for one server is not sent to another.
#[test]
fn a_token_stays_with_its_server() {
    let world = World::new(Variant::Current);
    let other = ManagementApi::start(
        Variant::Current,
        world.registry.access_through(&world.proxy.host()),
        world.registry.looks_up(),
    );
    let url = other.url();
    let arguments = [
        "deploy",
        "-e",
        "production",
        "--output",
        "json",
        "--api-url",
        &url,
    ];
    let finished = world.run(&arguments);
    let failed = failed(&finished);
    assert_eq!(
        (failed.exit, failed.code.as_str()),
        (4, "credentials_elsewhere"),
        "{finished}"
    );
    assert!(other.exchanges().is_empty(), "{finished}");
}
