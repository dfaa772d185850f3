//! What a program writes and where it ends up.

use std::fs;
use std::time::{Duration, Instant};

use engines::Exit;

use crate::images::{PROGRAM, command};
use crate::setup::{Bench, MODES, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_are_kept_line_by_line() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let script = "echo out; echo err >&2; printf 'no end'";
        let (_, log) = bench.run(command(&["/bin/sh", "-c", script])).await;
        let mut sorted = log.clone();
        sorted.sort();
        assert_eq!(sorted, ["err", "no end", "out"]);
        let file = fs::read_to_string(bench.folder.path().join("run-0.log")).unwrap();
        for line in file.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let expected = if line["line"] == "err" {
                "stderr"
            } else {
                "stdout"
            };
            assert_eq!(line["stream"], expected);
            let at = line["at"].as_str().unwrap();
            assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
        }
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_is_rotated_and_the_end_is_kept() {
    let bench = Bench::new(engines::process::IsolationMode::Auto);
    let begun = Instant::now();
    let (exit, log) = bench
        .run(command(&[PROGRAM, "write", "60000", "1000"]))
        .await;
    assert_eq!(exit, Exit::Code(0));
    assert!(begun.elapsed() < PATIENCE);
    let last = log.last().unwrap();
    assert!(
        last.starts_with("59999 ") || last.starts_with("[engine] "),
        "{last}"
    );
    let size =
        |name: &str| fs::metadata(bench.folder.path().join(name)).map_or(0, |found| found.len());
    assert!(size("run-0.log") < engines::LOG_FILE_BYTES);
    for number in 1..=engines::LOG_FILES_KEPT {
        let full = size(&format!("run-0.log.{number}"));
        assert!(full >= engines::LOG_FILE_BYTES, "{number}: {full}");
    }
    let beyond = engines::LOG_FILES_KEPT + 1;
    assert_eq!(size(&format!("run-0.log.{beyond}")), 0);
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_outlives_its_instance_and_is_added_to() {
    let bench = Bench::new(engines::process::IsolationMode::Auto);
    let image = bench.app(command(&["/bin/sh", "-c", "echo again"]));
    for _ in 0..2 {
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        let exit = tokio::time::timeout(PATIENCE, instance.wait()).await;
        assert_eq!(exit.unwrap(), Exit::Code(0));
        instance.stop(PATIENCE).await;
    }
    let file = fs::read_to_string(bench.folder.path().join("one.log")).unwrap();
    assert_eq!(file.lines().count(), 2);
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_program_is_seen_at_once() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", "echo broken >&2; exit 9"]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        let exit = tokio::time::timeout(PATIENCE, instance.wait())
            .await
            .unwrap();
        assert_eq!(exit, Exit::Code(9));
        assert_eq!(exit.to_string(), "exit code 9");
        assert_eq!(instance.exited(), Some(exit));
        assert_eq!(instance.log_tail(5), ["broken"], "complete by then");
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}
