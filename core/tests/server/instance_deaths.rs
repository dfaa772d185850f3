//! Instances are killed at every record that a deployment writes, with each strategy: the new ones, the old ones, all of them. The
//! server stands still meanwhile, so that it finds them dead in whatever it was about to do.

use std::process::Command;
use std::thread;

use management_api::types::{DeployRequest, Deployment, is_final};
use serde_json::Value;

use crate::audit::{outcome, program};
use crate::engine::Engine;
use crate::harness::{BOUND, Server, attend, until};
use crate::image::push;
use crate::records::{Case, RECORDS, REPLICAS, one_serves};
use crate::services;

/// Whose instances are killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victims {
    New,
    Old,
    All,
}

impl Victims {
    const ALL: [Self; 3] = [Self::New, Self::Old, Self::All];

    fn include(self, is_new: bool) -> bool {
        match self {
            Self::New => is_new,
            Self::Old => !is_new,
            Self::All => true,
        }
    }
}

/// What is deployed.
struct Scene<'a> {
    push: &'a (dyn Fn(&Server) + Sync),
    request: &'a (dyn Fn(&Server, &str) -> DeployRequest + Sync),
    serves: &'a (dyn Fn(&Server, &str) -> Option<()> + Sync),
    /// How many serve.
    instances: usize,
    /// How many may be kept beside them for a quick return.
    warm: usize,
    /// How many records there are at least.
    records: u32,
    /// How the deployment of version `two` ends where nobody dies.
    end: &'static str,
}

impl Scene<'_> {
    /// Side by side: most of it is waiting.
    fn check(&self) {
        let engine = Engine::current();
        thread::scope(|scope| {
            for victims in Victims::ALL {
                let engine = engine.clone();
                scope.spawn(move || engine.run(|| self.check_with(victims)));
            }
        });
    }

    fn check_with(&self, victims: Victims) {
        let server = Server::start();
        (self.push)(&server);
        let number = server.deploy(&(self.request)(&server, "one")).deployment;
        assert_eq!(server.wait(number.unwrap()).state, "succeeded");
        let stops = [("SYSTEMPROMPT_DIE_AT", "stop:each")];
        let mut server = server.restart_with(&stops);
        let mut live = "one";
        for record in 1..RECORDS {
            until("one release serves", || (self.serves)(&server, live));
            let next = if live == "one" { "two" } else { "one" };
            let (end, killed) = self.deploy(&server, next, victims, record);
            let what = format!("{victims:?} killed at record {record}: {end:?}");
            live = match end.state.as_str() {
                "succeeded" => next,
                "rolled_back" => live,
                _ => panic!("{what}"),
            };
            self.has_settled(&server, &end, live, &what);
            if !killed {
                let expected = if next == "two" { self.end } else { "succeeded" };
                assert_eq!(end.state, expected, "{what}");
                assert!(record > self.records, "only {record} records");
                has_whole_history(&server, record);
                return;
            }
            if live != next && victims != Victims::New {
                // Its instances have died once more: whoever has kept them so far would wait twice as long the next time.
                server = server.restart_with(&stops);
            }
        }
        panic!("more than {RECORDS} records");
    }

    /// Deploys, and kills at a record; how that ended, and whether it came to that record.
    fn deploy(
        &self,
        server: &Server,
        version: &str,
        victims: Victims,
        record: u32,
    ) -> (Deployment, bool) {
        let number = server.last_deployment().number + 1;
        let request = (self.request)(server, version);
        let mut written = 0;
        let mut stand_by = || {
            if server.is_stopped() {
                written += 1;
                if written == record {
                    kill(server, number, victims);
                }
                server.send("CONT");
            }
            written
        };
        thread::scope(|scope| {
            let deployed = scope.spawn(|| follow(server, &request, number));
            attend("the deployment is over", || {
                stand_by();
                deployed.is_finished().then_some(())
            });
            let (end, records) = deployed.join().unwrap();
            // Its last record is read before the server stops at it.
            attend("the server goes on", || {
                (stand_by() == records).then_some(())
            });
            (end, record <= records)
        })
    }

    /// One release serves, with all of its instances and no others, and nobody is locked out.
    fn has_settled(&self, server: &Server, end: &Deployment, live: &str, what: &str) {
        assert!(end.finished_at.is_some(), "{what}");
        assert_eq!(end.live, end.state == "succeeded", "{what}");
        assert_eq!(end.failure.is_none(), end.state == "succeeded", "{what}");
        until(&format!("one release serves; {what}"), || {
            (self.serves)(server, live)
        });
        until(&format!("nothing else is left; {what}"), || {
            let instances = server.instances();
            let all_run = instances.values().all(|one| runs(&one["program"]));
            let expected = self.instances..=self.instances + self.warm;
            (all_run && expected.contains(&instances.len())).then_some(())
        });
        let status = server.client().status("local").unwrap();
        assert!(status.running.is_none(), "{what}");
    }
}

/// Every deployment is there, one of them lives, and nothing of what was written has been changed.
fn has_whole_history(server: &Server, deployed: u32) {
    let history = server.client().deployments("local").unwrap().unwrap();
    let numbers: Vec<u64> = history.iter().rev().map(|row| row.number).collect();
    assert!(
        numbers.iter().copied().eq(1..=u64::from(deployed) + 1),
        "{numbers:?}"
    );
    assert_eq!(history.iter().filter(|row| row.live).count(), 1);
    outcome(&program(&["verify"], server.data())).unwrap();
}

/// Deploys to the end; how many records were written since it was asked for, of which none is missing.
fn follow(server: &Server, request: &DeployRequest, number: u64) -> (Deployment, u32) {
    assert_eq!(server.deploy(request).deployment, Some(number));
    let client = server.client();
    let end = server.wait_for(number, |deployment| {
        if deployment.state == "paused" {
            // Too few have answered to tell. It may go on by itself meanwhile.
            let _ = client.promote("local", number);
        }
        is_final(&deployment.state)
    });
    let events = client.deployment_events("local", number, 0, BOUND).unwrap();
    let events: Vec<_> = events.map(Result::unwrap).collect();
    let states: Vec<&str> = events.iter().map(|event| event.state.as_str()).collect();
    assert_eq!(
        (states.first(), states.last()),
        (Some(&"requested"), Some(&end.state.as_str()))
    );
    assert!(
        events
            .iter()
            .map(|event| event.seq)
            .eq(1..=events.len() as u64),
        "{events:?}"
    );
    (end, u32::try_from(events.len() - 1).unwrap())
}

/// Programs of instances, as they are while the server stands still.
fn kill(server: &Server, number: u64, victims: Victims) {
    for (id, record) in server.instances() {
        let started = id.rsplit('-').nth(1).and_then(|text| text.parse().ok());
        let program = &record["program"];
        if victims.include(started == Some(number)) && runs(program) {
            let pid = program["pid"].to_string();
            // It may just have ended.
            let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
        }
    }
}

fn runs(program: &Value) -> bool {
    program["pid"]
        .as_u64()
        .is_some_and(|pid| pid > 0 && std::fs::exists(format!("/proc/{pid}")).unwrap())
}

impl Case {
    fn kill_instances(&self) {
        let scene = Scene {
            push: &|server| self.push(server),
            request: &|server, version| self.request(server, version),
            serves: &one_serves,
            instances: REPLICAS as usize,
            warm: match self.strategy {
                "blue-green" => REPLICAS as usize,
                _ => 0,
            },
            records: self.records,
            end: self.end,
        };
        scene.check();
    }
}

#[test]
pub(crate) fn of_rolling_with_a_release_command() {
    Case::rolling_with_a_release_command().kill_instances();
}

#[test]
pub(crate) fn of_blue_green() {
    Case::blue_green().kill_instances();
}

#[test]
fn of_canary_that_passes() {
    Case::canary_that_passes().kill_instances();
}

#[test]
fn of_canary_that_fails() {
    Case::canary_that_fails().kill_instances();
}

#[test]
fn of_recreate() {
    Case::recreate().kill_instances();
}

#[test]
fn of_recreate_that_fails() {
    Case::recreate_that_fails().kill_instances();
}

/// An application with an interface and a worker behind it.
fn of_several_services(strategy: &str) {
    let scene = Scene {
        push: &|server| {
            push(server, "local", "it", &[]);
        },
        request: &|server, version| DeployRequest {
            strategy: Some(strategy.to_owned()),
            ..services::shop(server, version)
        },
        serves: &services::serves,
        instances: 3,
        warm: 0,
        records: 5,
        end: "succeeded",
    };
    scene.check();
}

#[test]
pub(crate) fn of_several_services_rolling() {
    of_several_services("rolling");
}

#[test]
fn of_several_services_recreate() {
    of_several_services("recreate");
}
