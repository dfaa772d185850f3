//! Layers that are handed on while the image is still being made.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use common::Project;
use deploy_image::{
    AssemblyPlan, Cache, Compression, Dockerfile, NoImages, Options, Toward, assemble,
    assemble_toward, plan,
};
use oci::{BlobSource, Descriptor, Digest, Store};

const DOCKERFILE: &str = "FROM scratch\nCOPY a /app/a\nCOPY b /app/b\nCOPY c /app/c\n";
/// One for each line.
const LAYERS: usize = 3;

fn project() -> Project {
    let project = Project::new();
    for name in ["a", "b", "c"] {
        project.write(name, &format!("{name} of some length\n").repeat(5000));
    }
    project
}

fn planned(project: &Project, compression: Compression) -> AssemblyPlan {
    let dockerfile = Dockerfile::parse("Dockerfile", DOCKERFILE).unwrap();
    let options = Options {
        compression,
        ..Options::default()
    };
    plan(&dockerfile, &project.context(), &options, &NoImages).unwrap()
}

#[test]
fn a_registrys_own_store_gets_layers_and_configuration() {
    let project = project();
    let planned = planned(&project, Compression::None);
    let plain = assemble(&planned, &project.store(), &mut Cache::none()).unwrap();
    let registry = Store::open(project.path("registry")).unwrap();
    let toward = Toward::Store(&registry);
    let store = project.store();
    let image = assemble_toward(&planned, &store, toward, &mut Cache::none()).unwrap();
    assert_eq!(image.digest, plain.digest);
    assert_eq!(image.layers.len(), LAYERS);
    for layer in &image.layers {
        assert_eq!(registry.size(&layer.digest).unwrap(), layer.size);
        registry.verify(&layer.digest).unwrap();
    }
    registry.verify(&image.config_digest).unwrap();
    assert!(!store.contains(&image.layers[0].digest));
}

#[test]
fn a_file_that_changes_puts_nothing_into_the_registrys_store() {
    let project = project();
    let planned = planned(&project, Compression::None);
    project.write("b", "another length");
    let registry = Store::open(project.path("registry")).unwrap();
    let toward = Toward::Store(&registry);
    let error = assemble_toward(&planned, &project.store(), toward, &mut Cache::none());
    assert!(error.unwrap_err().to_string().contains("COPY b /app/b"));
    let blobs = std::fs::read_dir(registry.root().join("blobs/sha256")).unwrap();
    assert_eq!(blobs.count(), 0);
    let unfinished = std::fs::read_dir(registry.root().join("tmp")).unwrap();
    assert_eq!(unfinished.count(), 0);
}

#[test]
fn a_registrys_store_that_takes_nothing_is_no_reason_to_fail() {
    let project = project();
    let planned = planned(&project, Compression::None);
    let plain = assemble(&planned, &project.store(), &mut Cache::none()).unwrap();
    let registry = Store::open(project.path("registry")).unwrap();
    std::fs::remove_dir(registry.root().join("tmp")).unwrap();
    let toward = Toward::Store(&registry);
    let image = assemble_toward(&planned, &project.store(), toward, &mut Cache::none()).unwrap();
    assert_eq!(image.digest, plain.digest);
    assert!(!registry.contains(&image.layers[0].digest));
}

/// Sending the first layer ends only when the last one has been handed over: whoever compresses one
/// after the other and sends in between never gets there.
#[test]
fn layers_are_sent_while_others_are_compressed() {
    let project = project();
    // A cache remembers no file that was written just now.
    project.age();
    let planned = planned(&project, Compression::Gzip(1));
    let (last, is_last) = channel();
    let (first, handed) = (Mutex::new(Some(is_last)), AtomicUsize::new(0));
    let sent = Mutex::new(Vec::new());
    let send = |layer: &Descriptor, source: &dyn BlobSource| {
        let mut bytes = Vec::new();
        let mut reader = source.open_at(0).unwrap();
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        assert_eq!(layer.digest, Digest::of(&bytes));
        assert_eq!(layer.size, bytes.len() as u64);
        sent.lock().unwrap().push(layer.digest);
        let number = handed.fetch_add(1, Ordering::SeqCst) + 1;
        if number == LAYERS {
            last.send(()).unwrap();
        }
        let waits_for = first.lock().unwrap().take();
        let waited = waits_for.map(|last| last.recv_timeout(Duration::from_mins(1)));
        assert_ne!(waited, Some(Err(RecvTimeoutError::Timeout)));
    };
    let toward = Toward::Sender(&send);
    let mut cache = Cache::open(project.path("layers.json"));
    let store = project.store();
    let image = assemble_toward(&planned, &store, toward, &mut cache).unwrap();
    let mut expected: Vec<Digest> = image.layers.iter().map(|layer| layer.digest).collect();
    let mut handed_over = std::mem::take(&mut *sent.lock().unwrap());
    expected.sort_unstable();
    handed_over.sort_unstable();
    assert_eq!(handed_over, expected);
    // What is there already goes with the push, which knows what the registry has.
    assemble_toward(&planned, &store, toward, &mut cache).unwrap();
    assert_eq!(*sent.lock().unwrap(), []);
}
