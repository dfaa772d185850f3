//! The server dies at every record that a deployment writes, with each strategy: whatever had been written, the
//! next one ends it, and one release serves.

use management_api::types::{AnalysisSettings, CanaryStep, DeployRequest, RolloutSettings};

use crate::harness::{Server, until};
use crate::image::push;

/// More records than any deployment writes.
pub(crate) const RECORDS: u32 = 40;
pub(crate) const REPLICAS: u32 = 2;

/// A deployment, and how it goes where nobody dies.
pub(crate) struct Case {
    pub(crate) strategy: &'static str,
    rollout: RolloutSettings,
    release_command: &'static [&'static str],
    /// What the new release is like.
    env: &'static [(&'static str, &'static str)],
    /// How it ends.
    pub(crate) end: &'static str,
    /// Why it fails, if it does.
    failure: Option<&'static str>,
    /// How many records there are at least.
    pub(crate) records: u32,
}

impl Case {
    fn check(&self) {
        let server = Server::start();
        self.push(&server);
        let first = DeployRequest {
            replicas: Some(REPLICAS),
            ..server.request("one")
        };
        let number = server.deploy(&first).deployment.unwrap();
        assert_eq!(server.wait(number).state, "succeeded");
        let mut server = Some(server);
        for record in 1..RECORDS {
            let (next, died) = self.die_at(server.take().unwrap(), record);
            if !died {
                assert!(record > self.records, "only {record} records");
                return;
            }
            server = Some(next);
        }
        panic!("more than {RECORDS} records");
    }

    /// Both releases.
    pub(crate) fn push(&self, server: &Server) {
        push(server, "local", "one", &[("VERSION", "one")]);
        let mut env = self.env.to_vec();
        env.push(("VERSION", "two"));
        push(server, "local", "two", &env);
    }

    pub(crate) fn request(&self, server: &Server, version: &str) -> DeployRequest {
        DeployRequest {
            replicas: Some(REPLICAS),
            strategy: Some(self.strategy.to_owned()),
            rollout: self.rollout.clone(),
            release_command: self.release_command.iter().map(|w| (*w).into()).collect(),
            ..server.request(version)
        }
    }

    /// Deploys with a server that dies at a record; returns the one after it, on which version `one` serves again,
    /// and whether it came to that.
    fn die_at(&self, server: Server, record: u32) -> (Server, bool) {
        let wanted = record.to_string();
        let mut server = server.restart_with(&[("SYSTEMPROMPT_DIE_AT", &wanted)]);
        until("the first release serves", || one_serves(&server, "one"));
        let request = self.request(&server, "two");
        let died = server.dies_deploying(&request);
        let server = server.restart_with(&[]);
        let last = server.last_deployment();
        let what = format!("{} died at record {record}: {last:?}", self.strategy);
        assert!(last.finished_at.is_some(), "{what}");
        if !died {
            assert_eq!(last.state, self.end, "{what}");
            return (server, false);
        }
        let serves = if last.state == "succeeded" {
            assert!(last.failure.is_none(), "{what}");
            "two"
        } else {
            assert_eq!(last.state, "rolled_back", "{what}");
            let code = last.failure.as_ref().map(|failure| failure.code.as_str());
            // A deployment that was being undone keeps the reason for that.
            assert!(
                code == Some("interrupted") || code == self.failure,
                "{what}"
            );
            "one"
        };
        assert_eq!(last.live, serves == "two", "{what}");
        until("one release serves", || one_serves(&server, serves));
        let status = server.client().status("local").unwrap();
        assert!(status.running.is_none(), "{what}");
        leaves_nothing(&server);
        // And nobody is locked out.
        let mut back = server.request("one");
        back.replicas = Some(REPLICAS);
        back.force = true;
        let number = server.deploy(&back).deployment.unwrap();
        assert_eq!(server.wait(number).state, "succeeded");
        (server, true)
    }
}

/// As many instances as there should be.
fn leaves_nothing(server: &Server) {
    until("only the instances that serve are left", || {
        (server.instances().len() == REPLICAS as usize).then_some(())
    });
}

/// Whether this version answers every request, of as many that each instance has its turn.
pub(crate) fn one_serves(server: &Server, version: &str) -> Option<()> {
    let all = (0..6).all(|_| server.version().as_deref() == Some(version));
    all.then_some(())
}

fn canary() -> RolloutSettings {
    RolloutSettings {
        steps: Some(vec![CanaryStep {
            weight: 50,
            pause_ms: Some(100),
        }]),
        ..RolloutSettings::default()
    }
}

/// A busy machine makes any release slower than the one before.
fn however_slow() -> AnalysisSettings {
    AnalysisSettings {
        max_p95_ratio: Some(1000.0),
        max_p95_ms: Some(60_000),
        ..AnalysisSettings::default()
    }
}

/// Every strategy, each way that it goes.
impl Case {
    pub(crate) fn rolling_with_a_release_command() -> Self {
        Self {
            strategy: "rolling",
            rollout: RolloutSettings::default(),
            release_command: &["print"],
            env: &[],
            end: "succeeded",
            failure: None,
            records: 7,
        }
    }

    /// What an engine that replaces instances by itself has fewer records for.
    fn of_an_orchestrator() -> Self {
        Self {
            records: 4,
            ..Self::rolling_with_a_release_command()
        }
    }

    fn of_an_orchestrator_that_gives_up() -> Self {
        Self {
            strategy: "rolling",
            ..Self::recreate_that_fails()
        }
    }

    pub(crate) fn blue_green() -> Self {
        Self {
            strategy: "blue-green",
            rollout: RolloutSettings {
                bake_ms: Some(100),
                analysis: Some(however_slow()),
                ..RolloutSettings::default()
            },
            release_command: &[],
            env: &[],
            end: "succeeded",
            failure: None,
            records: 6,
        }
    }

    pub(crate) fn canary_that_passes() -> Self {
        Self {
            strategy: "canary",
            rollout: RolloutSettings {
                analysis: Some(however_slow()),
                ..canary()
            },
            release_command: &[],
            env: &[],
            end: "succeeded",
            failure: None,
            records: 7,
        }
    }

    pub(crate) fn canary_that_fails() -> Self {
        Self {
            strategy: "canary",
            rollout: RolloutSettings {
                analysis: Some(AnalysisSettings {
                    log_patterns: Some(vec!["version two".to_owned()]),
                    ..AnalysisSettings::default()
                }),
                ..canary()
            },
            release_command: &[],
            env: &[],
            end: "rolled_back",
            failure: Some("analysis_failed"),
            records: 4,
        }
    }

    pub(crate) fn recreate() -> Self {
        Self {
            strategy: "recreate",
            rollout: RolloutSettings::default(),
            release_command: &[],
            env: &[],
            end: "succeeded",
            failure: None,
            records: 5,
        }
    }

    pub(crate) fn recreate_that_fails() -> Self {
        Self {
            strategy: "recreate",
            rollout: RolloutSettings::default(),
            release_command: &[],
            env: &[("MODE", "exit")],
            end: "rolled_back",
            failure: Some("exited"),
            records: 3,
        }
    }
}

#[test]
pub(crate) fn rolling_with_a_release_command() {
    Case::rolling_with_a_release_command().check();
}

/// For another engine: this one has the cases above.
pub(crate) fn of_an_orchestrator() {
    Case::of_an_orchestrator().check();
}

pub(crate) fn of_an_orchestrator_that_gives_up() {
    Case::of_an_orchestrator_that_gives_up().check();
}

#[test]
pub(crate) fn blue_green() {
    Case::blue_green().check();
}

#[test]
pub(crate) fn canary_that_passes() {
    Case::canary_that_passes().check();
}

#[test]
pub(crate) fn canary_that_fails() {
    Case::canary_that_fails().check();
}

#[test]
pub(crate) fn recreate() {
    Case::recreate().check();
}

#[test]
pub(crate) fn recreate_that_fails() {
    Case::recreate_that_fails().check();
}
