//! This crate's server: what the client needs of it, and what the specification asks beyond that.

use oci::{
    Ahead, Client, ClientError, Descriptor, Digest, ImageIndex, ImageManifest, ImagePush, Known,
    Pushed, Repository, Store, media_type, push_image,
};
use registry::Limits;

use crate::image::{TestImage, client, noise, repository, tag};
use crate::raw::{Raw, code, header};
use crate::server::{ALICE, BOB, READER, Server};
use crate::shared;

macro_rules! against_own_server {
    ($($check:ident),* $(,)?) => {
        $(#[test]
        fn $check() {
            shared::$check(&Server::start().host());
        })*
    };
}

against_own_server!(
    push_and_get_back,
    a_first_push_wastes_no_request,
    blobs_are_mounted,
    tags_are_listed,
    what_is_missing_is_named,
    wrong_credentials_are_told,
    an_incomplete_image_is_refused,
    a_short_source_is_told,
    tiny_blobs_pass,
    manifests_are_deleted,
    progress_is_reported,
    referrers_are_listed,
);

#[test]
fn pushes_keep_to_their_budget() {
    crate::budget::pushes_keep_to_their_budget(&Server::start().host());
}

#[test]
fn ten_repositories_get_the_blobs_once() {
    crate::budget::further_repositories_send_no_blobs(&Server::start().host(), 10);
}

#[test]
fn a_killed_push_goes_on() {
    crate::child::a_killed_push_goes_on(&Server::start().host());
}

/// Whoever shares the registry's machine puts blobs into its store; then the manifest is all there is to send.
#[test]
fn what_is_made_in_the_store_is_not_sent() {
    let server = Server::start();
    let store = Store::existing(server.folder.path()).unwrap();
    let image = TestImage::new(61, &[70_000, 3_000, 10]);
    let (late, early) = image.blobs.split_last().unwrap();
    for (descriptor, bytes) in early {
        assert_eq!(store.put_bytes(bytes).unwrap(), descriptor.digest);
    }
    let (name, version, sources) = (repository("alice/placed"), tag("v1"), image.sources());
    let push = |tag, store| {
        let mut known = Known::new();
        for (descriptor, _) in &image.blobs {
            known.produced(descriptor.digest);
        }
        let push = ImagePush {
            repository: &name,
            manifest: &image.manifest,
            sources: &sources,
            tag: Some(tag),
            mount_from: &[],
            known: &known,
            store,
            ahead: None,
        };
        push_image(&client(&server.host(), Some(ALICE)), &push).unwrap()
    };
    // One blob is missing: it goes the usual way.
    let first = push(&version, Some(&store));
    assert_eq!((first.placed, first.uploaded), (early.len(), 1));
    assert_eq!(first.requests, 2 + 2);
    let mut back = Vec::new();
    let reader = client(&server.host(), Some(READER));
    for (descriptor, bytes) in &image.blobs {
        back.clear();
        reader.get_blob(&name, descriptor, &mut back).unwrap();
        assert_eq!(&back, bytes);
    }
    assert_eq!(store.put_bytes(&late.1).unwrap(), late.0.digest);
    let again = push(&version, Some(&store));
    assert_eq!((again.placed, again.requests), (0, 1));
    // A store that nothing can be written to is no reason to fail.
    let elsewhere = tempfile::tempdir().unwrap();
    let empty = Store::open(elsewhere.path()).unwrap();
    let other = push(&tag("v2"), Some(&empty));
    assert_eq!(other.placed, 0);
}

/// What a push does after some of the image was sent ahead.
fn push_the_rest(
    client: &Client,
    image: &TestImage,
    name: &Repository,
    known: &Known,
    ahead: &Ahead<'_>,
) -> Result<Pushed, ClientError> {
    let push = ImagePush {
        repository: name,
        manifest: &image.manifest,
        sources: &image.sources(),
        tag: Some(&tag("v1")),
        mount_from: &[],
        known,
        store: None,
        ahead: Some(ahead),
    };
    push_image(client, &push)
}

#[test]
fn what_was_sent_ahead_is_not_sent_again() {
    let server = Server::start();
    let client = client(&server.host(), Some(ALICE));
    let image = TestImage::new(62, &[70_000, 3_000, 10]);
    let (name, sources) = (repository("alice/ahead"), image.sources());
    let ahead = Ahead::new(&client, name.clone());
    let mut known = Known::new();
    for layer in &image.manifest.layers {
        known.produced(layer.digest);
    }
    for layer in &image.manifest.layers[..2] {
        ahead.send(layer, sources[&layer.digest].as_ref(), &known);
    }
    let pushed = push_the_rest(&client, &image, &name, &known, &ahead).unwrap();
    // As many requests as a push in one go, all counted.
    let layers = image.manifest.layers.len();
    assert_eq!(pushed.uploaded, layers + 1);
    assert_eq!(pushed.requests, 2 * layers as u64 + 4);
    let sent: usize = image.blobs.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(pushed.bytes, (sent + image.manifest.to_vec().len()) as u64);
}

#[test]
fn a_failure_ahead_is_the_pushs() {
    let server = Server::start();
    let client = client(&server.host(), Some(BOB));
    let image = TestImage::new(63, &[3_000, 10]);
    let (name, sources) = (repository("alice/ahead"), image.sources());
    let ahead = Ahead::new(&client, name.clone());
    let known = Known::new();
    for layer in &image.manifest.layers {
        ahead.send(layer, sources[&layer.digest].as_ref(), &known);
    }
    let tried = client.counters().requests;
    let error = push_the_rest(&client, &image, &name, &known, &ahead).unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error}");
    assert_eq!(client.counters().requests, tried);
}

#[test]
fn a_login_asks_for_v2() {
    let raw = Raw::start(Limits::default());
    let response = raw.send("GET", "", &[], b"");
    assert_eq!(response.status(), 200);
    assert_eq!(
        header(&response, "docker-distribution-api-version"),
        "registry/2.0"
    );
    let stranger = raw.agent.get(raw.server.url("")).call().unwrap();
    assert_eq!(
        header(&stranger, "www-authenticate"),
        "Basic realm=\"test\""
    );
    assert_eq!(code(stranger), (401, "UNAUTHORIZED".to_owned()));
}

#[test]
fn an_upload_goes_in_parts() {
    let raw = Raw::start(Limits::default());
    let location = raw.begin();
    let first = raw.send("PATCH", &location, &[("content-range", "0-4")], b"hello");
    assert_eq!(
        (first.status().as_u16(), header(&first, "range")),
        (202, "0-4")
    );
    let status = raw.send("GET", &location, &[], b"");
    assert_eq!(
        (status.status().as_u16(), header(&status, "range")),
        (204, "0-4")
    );

    let wrong = raw.send("PATCH", &location, &[("content-range", "9-9")], b"!");
    assert_eq!(header(&wrong, "range"), "0-4");
    assert_eq!(code(wrong), (416, "BLOB_UPLOAD_INVALID".to_owned()));
    let lying = raw.send("PATCH", &location, &[("content-range", "5-9")], b"!");
    assert_eq!(code(lying), (400, "BLOB_UPLOAD_INVALID".to_owned()));

    let digest = Digest::of(b"hello world");
    let last = raw.send(
        "PUT",
        &format!("{location}?digest={digest}"),
        &[("content-range", "5-10")],
        b" world",
    );
    assert_eq!(last.status(), 201);
    assert_eq!(header(&last, "docker-content-digest"), digest.to_string());
    let mut blob = raw.send("GET", header(&last, "location"), &[], b"");
    assert_eq!(blob.body_mut().read_to_string().unwrap(), "hello world");
    assert_eq!(
        code(raw.send("GET", &location, &[], b"")),
        (404, "BLOB_UPLOAD_UNKNOWN".to_owned())
    );
}

#[test]
fn an_upload_can_be_cancelled() {
    let raw = Raw::start(Limits::default());
    let location = raw.begin();
    assert_eq!(raw.send("DELETE", &location, &[], b"").status(), 204);
    assert_eq!(raw.send("PATCH", &location, &[], b"x").status(), 404);
    let uploads = std::fs::read_dir(raw.server.folder.path().join("uploads")).unwrap();
    assert_eq!(uploads.count(), 0);
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let raw = Raw::start(Limits::default());
    let location = raw.begin();
    let other = Digest::of(b"other");
    let refused = raw.send(
        "PUT",
        &format!("{location}?digest={other}"),
        &[],
        b"content",
    );
    assert_eq!(code(refused), (400, "DIGEST_INVALID".to_owned()));
    let path = format!("alice/app/blobs/uploads/?digest={other}");
    assert_eq!(raw.send("POST", &path, &[], b"content").status(), 400);
    assert_eq!(raw.send("PUT", &location, &[], b"").status(), 400);
    let sha384 = format!("{location}?digest=sha384:{}", "0".repeat(96));
    assert_eq!(
        code(raw.send("PUT", &sha384, &[], b"")),
        (400, "DIGEST_INVALID".to_owned())
    );
    let folder = raw.server.folder.path();
    assert_eq!(
        std::fs::read_dir(folder.join("uploads")).unwrap().count(),
        0
    );
    assert_eq!(
        std::fs::read_dir(folder.join("blobs/sha256"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_blob_comes_in_ranges() {
    let raw = Raw::start(Limits::default());
    let digest = raw.put_blob(b"0123456789");
    let path = format!("alice/app/blobs/{digest}");
    let head = raw.send("HEAD", &path, &[], b"");
    assert_eq!(header(&head, "content-length"), "10");
    assert_eq!(header(&head, "accept-ranges"), "bytes");
    for (range, expected, whole) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
    ] {
        let mut part = raw.send("GET", &path, &[("range", range)], b"");
        assert_eq!(
            (part.status().as_u16(), header(&part, "content-range")),
            (206, whole)
        );
        assert_eq!(part.body_mut().read_to_string().unwrap(), expected);
    }
    let outside = raw.send("GET", &path, &[("range", "bytes=10-")], b"");
    assert_eq!(
        (outside.status().as_u16(), header(&outside, "content-range")),
        (416, "bytes */10")
    );
}

#[test]
fn tags_come_in_pages() {
    let raw = Raw::start(Limits::default());
    let client = client(&raw.server.host(), Some(ALICE));
    let image = TestImage::new(20, &[10]);
    for number in 1..=5 {
        image.push(&client, "alice/app", &format!("v{number}"));
    }
    let mut path = "/v2/alice/app/tags/list?n=2".to_owned();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut response = raw.send("GET", &path, &[], b"");
        let link = header(&response, "link").to_owned();
        let page: serde_json::Value = response.body_mut().read_json().unwrap();
        assert_eq!(page["name"], "alice/app");
        seen.extend(
            page["tags"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t.as_str().unwrap().to_owned()),
        );
        path = link
            .trim_start_matches('<')
            .split('>')
            .next()
            .unwrap()
            .to_owned();
    }
    assert_eq!(seen, ["v1", "v2", "v3", "v4", "v5"]);
    assert_eq!(path, "", "the third page is the last");
    let unknown = raw.send("GET", "alice/unknown/tags/list", &[], b"");
    assert_eq!(code(unknown), (404, "NAME_UNKNOWN".to_owned()));
}

#[test]
fn referrers_are_found_and_filtered() {
    let raw = Raw::start(Limits::default());
    let client = client(&raw.server.host(), Some(ALICE));
    let image = TestImage::new(21, &[10]);
    let subject = image.push(&client, "alice/app", "v1").digest;
    let empty = raw.put_blob(b"{}");
    let mut signature = ImageManifest::new(
        Descriptor::new(media_type::OCI_EMPTY, empty, 2),
        vec![Descriptor::new(media_type::OCI_EMPTY, empty, 2)],
    );
    signature.artifact_type = Some("application/x.signature".to_owned());
    signature.subject = Some(Descriptor::of(
        media_type::OCI_MANIFEST,
        &image.manifest.to_vec(),
    ));
    signature
        .annotations
        .insert("who".to_owned(), "me".to_owned());
    let bytes = signature.to_vec();
    let digest = Digest::of(&bytes);
    let sent = raw.send(
        "PUT",
        &format!("alice/app/manifests/{digest}"),
        &[("content-type", media_type::OCI_MANIFEST)],
        &bytes,
    );
    assert_eq!(header(&sent, "oci-subject"), subject.to_string());

    let list = |query: &str| {
        let path = format!("alice/app/referrers/{subject}{query}");
        let mut response = raw.send("GET", &path, &[], b"");
        assert_eq!(header(&response, "content-type"), media_type::OCI_INDEX);
        ImageIndex::from_slice(&response.body_mut().read_to_vec().unwrap()).unwrap()
    };
    let all = list("").manifests;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].digest, digest);
    assert_eq!(
        all[0].artifact_type.as_deref(),
        Some("application/x.signature")
    );
    assert_eq!(all[0].annotations["who"], "me");
    assert_eq!(
        list("?artifactType=application/x.signature")
            .manifests
            .len(),
        1
    );
    assert!(
        list("?artifactType=application/x.other")
            .manifests
            .is_empty()
    );
    assert!(
        client
            .delete_manifest(&repository("alice/app"), &digest)
            .unwrap()
    );
    assert!(list("").manifests.is_empty());
}

#[test]
fn manifests_are_checked() {
    let raw = Raw::start(Limits {
        manifest: 1000,
        ..Limits::default()
    });
    let client = client(&raw.server.host(), Some(ALICE));
    let image = TestImage::new(22, &[10]);
    image.push(&client, "alice/app", "v1");
    let bytes = image.manifest.to_vec();
    let put = |target: &str, media_type: &str, bytes: &[u8]| {
        let path = format!("alice/app/manifests/{target}");
        code(raw.send("PUT", &path, &[("content-type", media_type)], bytes))
    };
    let oci = media_type::OCI_MANIFEST;
    let wrong = Digest::of(b"x").to_string();
    assert_eq!(put(&wrong, oci, &bytes), (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(
        put("v2", media_type::OCI_INDEX, &bytes),
        (400, "MANIFEST_INVALID".to_owned())
    );
    assert_eq!(
        put("v2", "text/plain", b"{}"),
        (400, "MANIFEST_INVALID".to_owned())
    );
    assert_eq!(
        put("v2", oci, b"nonsense"),
        (400, "MANIFEST_INVALID".to_owned())
    );
    assert_eq!(
        put("v2", oci, &[b' '; 1001]),
        (413, "SIZE_INVALID".to_owned())
    );
    let other = TestImage::new(23, &[10]).manifest.to_vec();
    assert_eq!(
        put("v2", oci, &other),
        (400, "MANIFEST_BLOB_UNKNOWN".to_owned())
    );
    let index = ImageIndex::new(vec![Descriptor::of(oci, b"unknown")]).to_vec();
    let refused = put("v2", media_type::OCI_INDEX, &index);
    assert_eq!(refused, (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    let index = ImageIndex::new(vec![Descriptor::of(oci, &bytes)]).to_vec();
    let name = repository("alice/app");
    client
        .put_manifest(&name, &tag("all"), &index, media_type::OCI_INDEX)
        .unwrap();
    let received = client.get_manifest(&name, &tag("all")).unwrap();
    assert_eq!(
        (received.media_type.as_str(), received.bytes),
        (media_type::OCI_INDEX, index)
    );
}

#[test]
fn tenants_do_not_meet() {
    let server = Server::start();
    let (alice, bob) = (
        client(&server.host(), Some(ALICE)),
        client(&server.host(), Some(BOB)),
    );
    let image = TestImage::new(24, &[1000]);
    let digest = image.push(&alice, "alice/app", "v1").digest;
    let blob = &image.blobs[0].0;

    let error = bob
        .get_manifest(&repository("alice/app"), &digest)
        .unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error}");
    // The content is in the same store, but not in bob's repository, and a mount does not take it.
    assert!(
        !bob.blob_exists(&repository("bob/app"), &blob.digest)
            .unwrap()
    );
    assert!(
        !bob.mount(
            &repository("bob/app"),
            &blob.digest,
            &repository("alice/app")
        )
        .unwrap()
    );
    let pushed = image
        .try_push(&bob, "bob/app", "v1", &[repository("alice/app")])
        .unwrap();
    assert_eq!((pushed.uploaded, pushed.mounted), (2, 0));

    let reader = client(&server.host(), Some(READER));
    assert!(
        reader
            .manifest_exists(&repository("alice/app"), &digest)
            .unwrap()
            .is_some()
    );
    let error = TestImage::new(25, &[1])
        .try_push(&reader, "alice/app", "v2", &[])
        .unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error}");
}

#[test]
fn names_do_not_leave_the_store() {
    let raw = Raw::start(Limits::default());
    for path in [
        "alice/../../etc/manifests/v1",
        "alice/%2e%2e/manifests/v1",
        "alice/app/manifests/..%2f..%2fx",
        "alice/_tags/manifests/v1",
        "_catalog",
    ] {
        let status = raw.send("GET", path, &[], b"").status().as_u16();
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    assert_eq!(
        raw.send("POST", "alice/app/tags/list", &[], b"").status(),
        405
    );
}

#[test]
fn too_large_a_blob_is_refused_before_and_while_it_comes() {
    let raw = Raw::start(Limits {
        blob: 1000,
        ..Limits::default()
    });
    let location = raw.begin();
    let refused = raw.send("PATCH", &location, &[], &[0; 1001]);
    assert_eq!(code(refused), (413, "SIZE_INVALID".to_owned()));
    assert_eq!(raw.send("PATCH", &location, &[], &[0; 600]).status(), 202);
    assert_eq!(code(raw.send("PATCH", &location, &[], &[0; 600])).0, 413);
    let chunked = ureq::SendBody::from_owned_reader(std::io::Cursor::new(vec![0; 600]));
    let request = ureq::http::Request::builder()
        .method("PATCH")
        .uri(format!("http://{}{location}", raw.server.address))
        .header("authorization", "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==")
        .body(chunked)
        .unwrap();
    assert_eq!(code(raw.agent.run(request).unwrap()).0, 413);
}

#[test]
fn many_push_the_same_image_at_once() {
    let server = Server::start();
    let host = server.host();
    let images: Vec<_> = (0..4)
        .map(|seed| TestImage::new(30 + seed, &[300_000, 5, 80_000]))
        .collect();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let (image, host) = (&images[index % 4], &host);
            scope.spawn(move || {
                let client = client(host, Some(ALICE));
                image.push(&client, "alice/busy", &format!("v{index}"));
            });
        }
    });
    let client = client(&host, Some(ALICE));
    let name = repository("alice/busy");
    assert_eq!(client.list_tags(&name).unwrap().len(), 8);
    let store = oci::Store::open(server.folder.path()).unwrap();
    for image in &images {
        for (descriptor, _) in &image.blobs {
            store.verify(&descriptor.digest).unwrap();
        }
    }
}

#[test]
fn a_large_blob_does_not_fill_memory() {
    struct Endless(u64);
    impl oci::BlobSource for Endless {
        fn open_at(&self, offset: u64) -> std::io::Result<Box<dyn std::io::Read + '_>> {
            use std::io::Read as _;
            Ok(Box::new(std::io::repeat(7).take(self.0 - offset)))
        }
    }
    const SIZE: u64 = 192 * 1024 * 1024;
    let mut hasher = oci::DigestWriter::new(std::io::sink());
    let source = Endless(SIZE);
    std::io::copy(
        &mut oci::BlobSource::open_at(&source, 0).unwrap(),
        &mut hasher,
    )
    .unwrap();
    let descriptor = Descriptor::new(media_type::OCI_LAYER, hasher.finish().0, SIZE);
    let server = Server::start();
    let client = client(&server.host(), Some(ALICE));
    let before = peak_memory();
    client
        .push_blob(&repository("alice/large"), &descriptor, &source)
        .unwrap();
    client
        .get_blob(
            &repository("alice/large"),
            &descriptor,
            &mut std::io::sink(),
        )
        .unwrap();
    let grown = peak_memory() - before;
    assert!(grown < 64 * 1024, "{grown} kB more than before");
}

/// Many at once have bounded buffers each, whatever their length: with the clients' own, and this is the debug build.
/// How it is with blobs of a gigabyte is measured by `docs/tools/bench-platform --case uploads`.
#[test]
fn many_large_blobs_do_not_fill_memory() {
    const SIZE: usize = 8 * 1024 * 1024;
    const UPLOADS: u64 = 32;
    let bytes = noise(7500, SIZE);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let server = Server::start();
    let begun = std::sync::Barrier::new(usize::try_from(UPLOADS).unwrap());
    let before = peak_memory();
    std::thread::scope(|scope| {
        for number in 0..UPLOADS {
            let (begun, bytes, descriptor, host) = (&begun, &bytes, &descriptor, server.host());
            scope.spawn(move || {
                let name = repository(&format!("alice/large{number}"));
                begun.wait();
                let client = client(&host, Some(ALICE));
                client.push_blob(&name, descriptor, bytes).unwrap();
            });
        }
    });
    let grown = peak_memory() - before;
    assert!(grown < 64 * 1024, "{grown} kB more than before");
}

/// The process's largest memory so far, in kB.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_store_gets_what_it_lacks() {
    let server = Server::start();
    let client = client(&server.host(), Some(ALICE));
    let bytes = noise(40, 500_000);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let name = repository("alice/fetched");
    client.push_blob(&name, &descriptor, &bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = oci::Store::open(folder.path()).unwrap();
    client.fetch_blob(&name, &descriptor, &store).unwrap();
    store.verify(&descriptor.digest).unwrap();
    let requests = client.counters().requests;
    client.fetch_blob(&name, &descriptor, &store).unwrap();
    assert_eq!(client.counters().requests, requests);
}
