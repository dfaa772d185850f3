//! A server for the tests of this crate to kill: takes over what the one before it has left, else
//! starts an instance, says so, and waits.

#![expect(
    clippy::print_stdout,
    reason = "what it prints is what the tests wait for"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use engines::process::{IsolationMode, Launcher, ProcessEngine, Settings};
use engines::{InstanceSpec, Resources};
use tokio::time::timeout;

/// Longer than any test.
const LONG: Duration = Duration::from_mins(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [mode, launcher, store, root, image, port, orphan] = arguments[..] else {
        panic!("expected: MODE LAUNCHER STORE ROOT IMAGE PORT ORPHAN_MS");
    };
    let root = PathBuf::from(root);
    let spec = InstanceSpec {
        id: "held".to_owned(),
        repository: "test".parse().expect("a repository"),
        image: image.parse().expect("a digest"),
        env: BTreeMap::from([("MARK".to_owned(), root.display().to_string())]),
        port: port.parse().expect("a port"),
        log: root.join("held.log"),
        command: None,
        resources: Resources::default(),
        volumes: Vec::new(),
    };
    let settings = Settings {
        volumes: root.with_extension("volumes"),
        store: Arc::new(oci::Store::open(store).expect("a store")),
        root,
        launcher: Launcher {
            program: launcher.into(),
            arguments: Vec::new(),
        },
        isolation: if mode == "off" {
            IsolationMode::Off
        } else {
            IsolationMode::Auto
        },
        orphan: Duration::from_millis(orphan.parse().expect("milliseconds")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let engine = ProcessEngine::new(settings).expect("an engine");
    let instance = runtime.block_on(async {
        let adopted = engine.adopt().await.expect("a directory").pop();
        engine.sweep().await.expect("nothing else is left");
        match adopted {
            Some(instance) => instance,
            None => engine.start(spec).await.expect("an instance"),
        }
    });
    println!("runs {}", instance.pid());
    if let Ok(exit) = runtime.block_on(async { timeout(LONG, instance.wait()).await }) {
        println!("ended with {exit}");
    }
    thread::sleep(LONG);
}
