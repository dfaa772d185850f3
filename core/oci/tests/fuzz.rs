//! Documents from registries, mutated: each is read or refused, and what was read means the same
//! when it is written and read again.

use fuzzing::fuzz;
use oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Reference};

const MANIFESTS: &[&str] = &[
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"annotations":{"a":"b"},"urls":["https://example.org/x"]}],"annotations":{"org.opencontainers.image.created":"1970-01-01T00:00:01Z"}}"#,
    r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":null,"subject":null}"#,
    r#"{"schemaVersion":2,"artifactType":"application/spdx+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"layers":[],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e","size":7}}"#,
    r#"{"schemaVersion":1,"name":"library/x","tag":"latest","fsLayers":[{"blobSum":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}],"signatures":[]}"#,
];

const INDEXES: &[&str] = &[
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"platform":{"architecture":"amd64","os":"windows","os.version":"10.0.1","os.features":["win32k"]}}]}"#,
    r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[],"annotations":null}"#,
];

const CONFIGS: &[&str] = &[
    r#"{"created":"2024-01-01T00:00:00Z","author":"a","architecture":"amd64","os":"linux","config":{"User":"1000:1000","ExposedPorts":{"8080/tcp":{}},"Env":["PATH=/bin","A="],"Entrypoint":["/e"],"Cmd":null,"Volumes":{"/data":{}},"WorkingDir":"/w","Labels":{"a":"b"},"StopSignal":"SIGTERM","Healthcheck":{"Test":["CMD","x"],"Interval":1000000000,"Timeout":1,"StartPeriod":2,"StartInterval":3,"Retries":3},"Shell":["/bin/sh","-c"],"OnBuild":null},"rootfs":{"type":"layers","diff_ids":["sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"]},"history":[{"created":"2024-01-01T00:00:00Z","created_by":"COPY a b","comment":"c","empty_layer":true}]}"#,
    r#"{"architecture":"arm64","variant":"v8","os":"linux","config":null,"rootfs":{"type":"layers","diff_ids":null},"history":null,"container_config":{"Hostname":""},"docker_version":"20.10"}"#,
];

const REFERENCES: &[&str] = &[
    "debian",
    "debian:bookworm-slim",
    "localhost:5000/team/app:v1.2.3_x-y",
    "registry.example.org/a/b_c/d--e@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "[::1]:5000/a:b@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "user/app",
    "127.0.0.1/x",
];

const WORDS: &[&str] = &[
    "null",
    "\"layers\":[",
    "\"manifests\":[",
    "\"config\":",
    "\"platform\":{\"architecture\":\"amd64\",\"os\":\"linux\"}",
    "\"schemaVersion\":2",
    "\"size\":-1",
    "{\"a\":",
    "[",
    "sha256:",
    "sha512:",
    "\\u0000",
    "\\ud800",
    "://",
    "@",
    ":",
];

#[test]
fn fuzz_manifests() {
    fuzz(MANIFESTS, WORDS, |bytes| {
        let Ok(manifest) = ImageManifest::from_slice(bytes) else {
            return;
        };
        let written = manifest.to_vec();
        let again = ImageManifest::from_slice(&written).expect("what was written is read");
        assert_eq!(again, manifest);
        assert_eq!(again.to_vec(), written);
        assert!(manifest.blobs().count() == manifest.layers.len() + 1);
        // No reader may take the same bytes for something else (CVE-2021-41190).
        assert!(ImageIndex::from_slice(&written).map_or(true, |index| index.manifests.is_empty()));
    });
}

#[test]
fn fuzz_indexes() {
    let wanted = oci::Platform::host();
    fuzz(INDEXES, WORDS, |bytes| {
        let Ok(index) = ImageIndex::from_slice(bytes) else {
            return;
        };
        let written = index.to_vec();
        let again = ImageIndex::from_slice(&written).expect("what was written is read");
        assert_eq!(again, index);
        let found: Option<&Descriptor> = index.for_platform(&wanted);
        assert!(found.is_none_or(|found| index.manifests.contains(found)));
    });
}

#[test]
fn fuzz_configurations() {
    fuzz(CONFIGS, WORDS, |bytes| {
        let Ok(config) = ImageConfig::from_slice(bytes) else {
            return;
        };
        let written = config.to_vec();
        let again = ImageConfig::from_slice(&written).expect("what was written is read");
        assert_eq!(again, config);
        assert_eq!(again.to_vec(), written);
    });
}

#[test]
fn fuzz_references() {
    fuzz(REFERENCES, WORDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(reference) = text.parse::<Reference>() {
            let shown = reference.to_string();
            let again: Reference = shown.parse().expect("what is shown is read");
            assert_eq!(again, reference);
            // It becomes part of a URL's path.
            let repository = reference.repository().to_string();
            let plain =
                |ch: char| ch.is_ascii_lowercase() || ch.is_ascii_digit() || "/._-".contains(ch);
            assert!(repository.chars().all(plain), "{repository}");
            assert!(
                !repository
                    .split('/')
                    .any(|part| part.is_empty() || part == "..")
            );
        }
        if let Ok(digest) = text.parse::<Digest>() {
            assert_eq!(digest.to_string().parse::<Digest>().ok(), Some(digest));
        }
    });
}
