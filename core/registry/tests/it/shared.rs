//! What every registry must do for the client, whichever registry it is.

use oci::{ClientError, Descriptor, Digest, ImageManifest, media_type};

use crate::image::{TestImage, client, noise, options, repository, tag};
use crate::server::ALICE;

/// A push, its repetition, and getting everything back.
pub(crate) fn push_and_get_back(address: &str) {
    let client = client(address, Some(ALICE));
    let image = TestImage::new(1, &[3_000_000, 70_000, 1]);
    let name = repository("alice/app");
    let first = image.push(&client, "alice/app", "v1");
    assert_eq!((first.uploaded, first.existing, first.mounted), (4, 0, 0));
    assert_eq!(first.digest, Digest::of(&image.manifest.to_vec()));

    // The tag means it already: one request.
    let again = image.push(&client, "alice/app", "v1");
    assert_eq!(
        (again.uploaded, again.existing, again.requests, again.bytes),
        (0, 4, 1, 0)
    );
    // A new tag for a known image: tag, digest, put.
    let renamed = image.push(&client, "alice/app", "v2");
    assert_eq!(
        (renamed.uploaded, renamed.existing, renamed.requests),
        (0, 4, 3)
    );

    let found = client.manifest_exists(&name, &tag("v2")).unwrap().unwrap();
    assert_eq!(found.digest, first.digest);
    assert_eq!(found.media_type, media_type::OCI_MANIFEST);
    let received = client.get_manifest(&name, &first.digest).unwrap();
    assert_eq!(received.bytes, image.manifest.to_vec());
    for (descriptor, bytes) in &image.blobs {
        let mut copy = Vec::new();
        client.get_blob(&name, descriptor, &mut copy).unwrap();
        assert!(copy == *bytes, "blob {} differs", descriptor.digest);
    }
}

/// Requests of a first push: what is looked for, begun, put. None twice.
pub(crate) fn a_first_push_wastes_no_request(address: &str) {
    let client = client(address, Some(ALICE));
    let image = TestImage::new(2, &[10, 20]);
    let pushed = image.push(&client, "alice/counted", "v1");
    // Manifest by tag and by digest, HEAD for two layers, POST and PUT for three blobs, the manifest.
    assert_eq!(pushed.requests, 2 + 2 + 3 * 2 + 1);
    let sizes: u64 = image
        .blobs
        .iter()
        .map(|(descriptor, _)| descriptor.size)
        .sum();
    assert_eq!(pushed.bytes, sizes + image.manifest.to_vec().len() as u64);
}

/// Blobs come from a neighbouring repository without an upload.
pub(crate) fn blobs_are_mounted(address: &str) {
    let client = client(address, Some(ALICE));
    let image = TestImage::new(3, &[50_000, 60_000]);
    image.push(&client, "alice/source", "v1");
    let from = [repository("alice/nothing"), repository("alice/source")];
    let pushed = image
        .try_push(&client, "alice/target", "v1", &from)
        .unwrap();
    assert_eq!((pushed.mounted, pushed.uploaded), (3, 0));
    assert!(
        client
            .mount(
                &repository("alice/third"),
                &image.blobs[0].0.digest,
                &from[1]
            )
            .unwrap()
    );
    let unknown = Digest::of(b"nobody has this");
    assert!(
        !client
            .mount(&repository("alice/third"), &unknown, &from[1])
            .unwrap()
    );
}

/// Tags are listed; a repository nobody knows has none.
pub(crate) fn tags_are_listed(address: &str) {
    let client = client(address, Some(ALICE));
    let image = TestImage::new(4, &[10]);
    for name in ["v1.2", "v1.10", "deploy-9-a", "deploy-10-b"] {
        image.push(&client, "alice/tagged", name);
    }
    let name = repository("alice/tagged");
    let tags = client.list_tags(&name).unwrap();
    assert_eq!(tags.len(), 4);
    let latest = client
        .latest_tags(&name, 1, |tag, _| tag.starts_with("deploy-"))
        .unwrap();
    assert_eq!(latest, [tag("deploy-10-b")]);
    assert!(
        client
            .list_tags(&repository("alice/unknown"))
            .unwrap()
            .is_empty()
    );
}

/// What is not there is told from what failed.
pub(crate) fn what_is_missing_is_named(address: &str) {
    let client = client(address, Some(ALICE));
    TestImage::new(5, &[10]).push(&client, "alice/there", "v1");
    let name = repository("alice/there");
    assert_eq!(client.manifest_exists(&name, &tag("v9")).unwrap(), None);
    assert!(!client.blob_exists(&name, &Digest::of(b"x")).unwrap());
    let error = client.get_manifest(&name, &tag("v9")).unwrap_err();
    assert!(matches!(error, ClientError::NotFound { .. }), "{error}");
    assert_eq!(
        error.answer().unwrap().code.as_deref(),
        Some("MANIFEST_UNKNOWN")
    );
    let lost = Descriptor::new(media_type::OCI_LAYER, Digest::of(b"x"), 1);
    let error = client.get_blob(&name, &lost, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, ClientError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("alice/there/blobs"), "{error}");
}

/// Wrong or no credentials: one clear error, at once, without the password in it.
pub(crate) fn wrong_credentials_are_told(address: &str) {
    for credentials in [Some(("alice", "hunter2-hunter2")), None] {
        let client = client(address, credentials);
        let error = TestImage::new(6, &[10])
            .try_push(&client, "alice/app", "v1", &[])
            .unwrap_err();
        assert!(matches!(error, ClientError::Unauthorized { .. }), "{error}");
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
        assert_eq!(client.counters().requests, 1);
    }
}

/// An image whose blob nobody has is not pushed by half.
pub(crate) fn an_incomplete_image_is_refused(address: &str) {
    let client = client(address, Some(ALICE));
    let image = TestImage::new(7, &[10, 20]);
    let name = repository("alice/incomplete");
    let error = client
        .put_manifest(
            &name,
            &tag("v1"),
            &image.manifest.to_vec(),
            media_type::OCI_MANIFEST,
        )
        .unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(client.manifest_exists(&name, &tag("v1")).unwrap(), None);

    let (descriptor, _) = &image.blobs[0];
    let error = client
        .push_blob(&name, descriptor, &b"0123456789".to_vec())
        .unwrap_err();
    assert_eq!(
        error.answer().unwrap().code.as_deref(),
        Some("DIGEST_INVALID"),
        "{error}"
    );
    assert!(!client.blob_exists(&name, &descriptor.digest).unwrap());
}

/// A blob that ends before its announced length is the caller's fault and is told so, at once.
pub(crate) fn a_short_source_is_told(address: &str) {
    let client = client(address, Some(ALICE));
    let bytes = noise(8, 200_000);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let short = bytes[..150_000].to_vec();
    let error = client
        .push_blob(&repository("alice/short"), &descriptor, &short)
        .unwrap_err();
    assert!(matches!(error, ClientError::Source { .. }), "{error}");
}

/// Layers of no bytes and of one byte, which positions in uploads cannot tell apart.
pub(crate) fn tiny_blobs_pass(address: &str) {
    let client = client(address, Some(ALICE));
    let name = repository("alice/tiny");
    for bytes in [Vec::new(), vec![7]] {
        let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
        client.push_blob(&name, &descriptor, &bytes).unwrap();
        assert!(client.blob_exists(&name, &descriptor.digest).unwrap());
        let mut copy = Vec::new();
        client.get_blob(&name, &descriptor, &mut copy).unwrap();
        assert_eq!(copy, bytes);
    }
}

/// A removed manifest is gone; removing it again says so.
pub(crate) fn manifests_are_deleted(address: &str) {
    let client = client(address, Some(ALICE));
    let image = TestImage::new(9, &[10]);
    let digest = image.push(&client, "alice/deleted", "v1").digest;
    let name = repository("alice/deleted");
    assert!(client.delete_manifest(&name, &digest).unwrap());
    assert!(!client.delete_manifest(&name, &digest).unwrap());
    assert_eq!(client.manifest_exists(&name, &digest).unwrap(), None);
}

/// Uploads report what they have sent, up to the last byte.
pub(crate) fn progress_is_reported(address: &str) {
    use std::sync::{Arc, Mutex};
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let options = oci::ClientOptions {
        progress: Some(Arc::new(move |progress| {
            sink.lock().unwrap().push(progress);
        })),
        ..options(Some(ALICE))
    };
    let client = oci::Client::new(address, options).unwrap();
    let bytes = noise(10, 1_000_000);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    client
        .push_blob(&repository("alice/progress"), &descriptor, &bytes)
        .unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.sent));
    assert_eq!(seen.last().unwrap().sent, 1_000_000);
    assert!(
        seen.iter()
            .all(|progress| progress.digest == descriptor.digest)
    );
}

/// Manifests about a manifest are on its list, whoever keeps it, and once however often they are
/// put.
pub(crate) fn referrers_are_listed(address: &str) {
    let client = client(address, Some(ALICE));
    let name = repository("alice/about");
    let image = TestImage::new(31, &[10]);
    let subject = image.push(&client, "alice/about", "v1").digest;
    assert_eq!(client.referrers(&name, &subject).unwrap(), []);
    let empty = Descriptor::of(media_type::OCI_EMPTY, b"{}");
    client.push_blob(&name, &empty, &b"{}".to_vec()).unwrap();
    let put = |kind: &str| {
        let mut about = ImageManifest::new(empty.clone(), vec![empty.clone()]);
        about.artifact_type = Some(kind.to_owned());
        let bytes = image.manifest.to_vec();
        about.subject = Some(Descriptor::of(media_type::OCI_MANIFEST, &bytes));
        client.put_referrer(&name, &about).unwrap()
    };
    let mut expected = [put("application/x.one"), put("application/x.two")];
    put("application/x.one");
    let mut listed = client.referrers(&name, &subject).unwrap();
    listed.sort_by_key(|entry| entry.artifact_type.clone());
    let kinds: Vec<_> = listed
        .iter()
        .filter_map(|e| e.artifact_type.as_deref())
        .collect();
    assert_eq!(kinds, ["application/x.one", "application/x.two"]);
    let mut found: Vec<_> = listed.iter().map(|entry| entry.digest).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for digest in &expected {
        assert!(client.manifest_exists(&name, digest).unwrap().is_some());
    }
}
