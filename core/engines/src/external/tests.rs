//! What an engine may answer, and what becomes of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::{External, Settings};
use crate::error::EngineError;
use crate::orchestrator::{
    HealthCheck, Orchestrator as _, Probe, RestartPolicy, Task, Wanted, WantedService,
};
use crate::registry::Registry;
use crate::resources::Resources;

const SECRET: &str = "hunter2";
const TOKEN: &str = "a token";
const ABOUT: &str = r#"{"protocol": 1, "name": "it", "enforces": ["memory"], "notes": ["a note"]}"#;

struct Here;

impl Registry for Here {
    fn host(&self) -> String {
        "127.0.0.1:1".to_owned()
    }

    fn has_tls(&self) -> bool {
        false
    }

    fn token(&self, _: &oci::Repository) -> SecretString {
        TOKEN.into()
    }
}

fn settings(folder: &Path) -> Settings {
    Settings {
        socket: folder.join("engine.sock"),
        registry: Arc::new(Here),
    }
}

/// Answers so, one request after the other; says what it was asked.
fn answering(folder: &Path, answers: &[(u16, &str)]) -> JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(folder.join("engine.sock")).unwrap();
    let answers: Vec<_> = answers
        .iter()
        .map(|(status, body)| (*status, (*body).to_owned()))
        .collect();
    tokio::spawn(async move {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 64 << 10];
            let length = stream.read(&mut request).await.unwrap();
            asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    })
}

fn service() -> WantedService {
    WantedService {
        name: "app".to_owned(),
        repository: "shop".parse().unwrap(),
        image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
        command: None,
        env: BTreeMap::from([("PASSWORD".to_owned(), SECRET.to_owned())]),
        replicas: 1,
        resources: Resources::default(),
        health: HealthCheck {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            start_period: Duration::from_secs(1),
            retries: 1,
            liveness: None,
        },
        restart: RestartPolicy::Always,
        depends_on: Vec::new(),
        protocol: None,
        routes: Vec::new(),
    }
}

fn wanted() -> Wanted {
    Wanted {
        tenant: "shop".to_owned(),
        turn: 7,
        deployment: 3,
        restart: false,
        surge: 1,
        unavailable: 0,
        services: vec![service()],
    }
}

fn task() -> Task {
    Task {
        tenant: "shop".to_owned(),
        turn: 6,
        deployment: 3,
        service: service(),
    }
}

#[tokio::test]
async fn refusals_are_told_and_secrets_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let outdated = r#"{"code": "outdated", "message": "it has turn 9"}"#;
    let missing = r#"{"code": "image_not_found", "message": "it is not there"}"#;
    let answers = answering(
        folder.path(),
        &[
            (200, ABOUT),
            (204, ""),
            (409, outdated),
            (500, "out of order"),
            (404, "{}"),
            (422, missing),
            (200, "{}"),
        ],
    );
    let engine = External::new(settings(folder.path())).await.unwrap();
    assert!(engine.notes()[0].contains("`it`") && engine.notes()[1] == "a note");
    engine.apply(wanted()).await.unwrap();
    let refused = engine.apply(wanted()).await.unwrap_err();
    assert!(
        matches!(refused, EngineError::Outdated { turn: 7, .. }),
        "{refused}"
    );
    let failed = engine.apply(wanted()).await.unwrap_err().to_string();
    assert_eq!(
        failed,
        "engine: cannot apply a release: 500 Internal Server Error: out of order"
    );
    assert_eq!(engine.observe("shop".to_owned()).await.unwrap(), None);
    let missing = engine.run_once(task()).await.unwrap_err();
    assert!(
        matches!(missing, EngineError::ImageNotFound { .. }),
        "{missing}"
    );
    let unclear = engine.run_once(task()).await.unwrap_err().to_string();
    assert!(unclear.contains("does not say how"), "{unclear}");
    let gone = engine.apply(wanted()).await.unwrap_err().to_string();
    assert!(gone.contains("nobody answers"), "{gone}");
    for told in [failed, unclear, gone, format!("{:?}", wanted())] {
        assert!(!told.contains(SECRET) && !told.contains(TOKEN), "{told}");
    }
    let asked = answers.await.unwrap();
    assert!(
        asked[1].starts_with("PUT /v1/tenants/shop/release HTTP/1.1"),
        "{asked:?}"
    );
    assert!(asked[1].contains(SECRET) && asked[1].contains("127.0.0.1:1/shop@sha256:aaa"));
}

#[tokio::test]
async fn what_it_does_not_enforce_is_named_and_lines_come_whole() {
    let folder = tempfile::tempdir().unwrap();
    let line = |number: u64, text: &str| {
        format!(
            r#"{{"number": {number}, "at": "2026-01-31T12:00:00.123Z", "deployment": 3, "service": "app", "stream": "stderr", "line": "{text}"}}"#
        )
    };
    let lines = format!("{}\n{}\n{{\n", line(8, "one"), line(9, "two"));
    let _answers = answering(folder.path(), &[(200, ABOUT), (200, &lines)]);
    let engine = External::new(settings(folder.path())).await.unwrap();
    let mut asked = Resources {
        memory: Some(1),
        ..Resources::default()
    };
    assert_eq!(engine.lacks(&asked), None);
    asked.read_only = true;
    asked.pids = Some(1);
    let lacks = engine.lacks(&asked).unwrap();
    assert!(lacks.starts_with("processes, a read-only root"), "{lacks}");
    let mut lines = engine.logs("shop".to_owned(), 7).await.unwrap();
    for (number, text) in [(8, "one"), (9, "two")] {
        let line = lines.next().await.unwrap().unwrap();
        assert_eq!(
            (line.number, line.text.as_str(), line.is_error),
            (number, text, true)
        );
    }
    let broken = lines.next().await.unwrap().unwrap_err().to_string();
    assert!(broken.contains("a line is not understood"), "{broken}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_not_there_is_waited_for_and_one_of_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let absent = External::new(settings(folder.path())).await;
    let absent = absent.err().unwrap().to_string();
    assert!(absent.contains("engine.sock`"), "{absent}");
    let _answers = answering(folder.path(), &[(200, r#"{"protocol": 2, "name": "it"}"#)]);
    let other = External::new(settings(folder.path())).await;
    let other = other.err().unwrap().to_string();
    assert!(
        other.contains("version 2 of the protocol, this server 1"),
        "{other}"
    );
}
