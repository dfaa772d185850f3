//! How instances end.

use std::time::{Duration, Instant};

use engines::Exit;
use oci::RunConfig;

use crate::images::command;
use crate::setup::{Bench, MODES, processes, until};

/// Says that it is ready, and then what it was asked by.
const POLITE: &str = "trap 'echo asked to end; exit 3' TERM; trap 'echo asked to quit; exit 4' QUIT; \
                      echo ready; while :; do sleep 0.01; done";
const DEAF: &str = "trap '' TERM; echo ready; while :; do sleep 0.01; done";

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_first() {
    for mode in MODES {
        let bench = Bench::new(mode);
        for (signal, expected) in [
            (None, (3, "asked to end")),
            (Some("SIGQUIT"), (4, "asked to quit")),
        ] {
            let run = RunConfig {
                stop_signal: signal.map(str::to_owned),
                ..command(&["/bin/sh", "-c", POLITE])
            };
            let image = bench.app(run);
            let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
            // The log goes on from that of the one before: its last line counts.
            until("it is ready", || instance.log_tail(1) == ["ready"]).await;
            assert_eq!(
                instance.stop(Duration::from_secs(20)).await,
                Exit::Code(expected.0)
            );
            assert_eq!(instance.log_tail(1), [expected.1]);
            assert_eq!(
                instance.stop(Duration::ZERO).await,
                Exit::Code(expected.0),
                "again"
            );
        }
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_killed_when_it_does_not_listen() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", DEAF]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        until("it is ready", || {
            instance.log_tail(10).iter().any(|line| line == "ready")
        })
        .await;
        let begun = Instant::now();
        let grace = Duration::from_millis(300);
        assert_eq!(instance.stop(grace).await, Exit::Signal(9));
        assert!(begun.elapsed() >= grace);
        assert_eq!(instance.exited(), Some(Exit::Signal(9)));
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_has_started_ends_with_it() {
    for mode in MODES {
        let bench = Bench::new(mode);
        // children, and orphans of a session and group of their own
        let script =
            "sleep 600 & (sleep 600 &) ; (trap '' TERM HUP; sleep 600 &) ; echo ready; wait";
        let image = bench.app(command(&["/bin/sh", "-c", script]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        let folder = bench.folder.path().to_owned();
        until("all run", || processes(&folder).len() >= 4).await;
        instance.stop(Duration::from_secs(20)).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_ended_when_the_program_ends_by_itself() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let (exit, log) = bench
            .run(command(&["/bin/sh", "-c", "(sleep 600 &); echo done"]))
            .await;
        assert_eq!((exit, log), (Exit::Code(0), vec!["done".to_owned()]));
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zombies_are_reaped() {
    for mode in MODES {
        let bench = Bench::new(mode);
        // the inner shell is gone before its child ends, so that nobody but the init is left
        let script = "for i in 1 2 3 4 5 6 7 8; do (sleep 0.05 &); done; sleep 0.6; echo init $PPID; \
                      for stat in /proc/[0-9]*/stat; do cat $stat 2>/dev/null; done; echo done";
        let (_, log) = bench.run(command(&["/bin/sh", "-c", script])).await;
        assert!(log.last().is_some_and(|line| line == "done"), "{log:#?}");
        let init = log.iter().find_map(|line| line.strip_prefix("init "));
        // Without isolation those of everybody are seen.
        let zombie = format!("(sleep) Z {} ", init.unwrap());
        let zombies: Vec<_> = log.iter().filter(|line| line.contains(&zombie)).collect();
        assert!(zombies.is_empty(), "{zombies:#?}");
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_launcher_takes_its_instance_along() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sleep", "600"]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        let guard = launcher_of(instance.pid());
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(guard),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        assert_eq!(instance.wait().await, Exit::Signal(9));
        let folder = bench.folder.path().to_owned();
        until("all is ended", || processes(&folder).is_empty()).await;
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

/// The grandparent: program, init, guard.
fn launcher_of(pid: u32) -> i32 {
    let parent = |pid: i32| -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        fields.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    parent(parent(i32::try_from(pid).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_the_launcher_reaches_the_program() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", POLITE]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        until("it is ready", || {
            instance.log_tail(10).iter().any(|line| line == "ready")
        })
        .await;
        let guard = nix::unistd::Pid::from_raw(launcher_of(instance.pid()));
        nix::sys::signal::kill(guard, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(instance.wait().await, Exit::Code(3));
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}
