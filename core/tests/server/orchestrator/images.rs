//! Images from the platform's registry, by its address and token as they were told.

use std::io;

use oci::{Digest, ImageManifest, Store};

use super::protocol::Image;
use crate::harness::agent;

/// Fetches an image unless it is there. `None` where the registry does not have all of it. It blocks.
pub(super) fn fetch(store: &Store, image: &Image) -> Option<Digest> {
    let (name, digest) = image.reference.split_once('@').unwrap();
    let (host, repository) = name.split_once('/').unwrap();
    let scheme = if image.tls { "https" } else { "http" };
    let base = format!("{scheme}://{host}/v2/{repository}");
    let digest: Digest = digest.parse().unwrap();
    let manifest = get(store, image, &format!("{base}/manifests/{digest}"), &digest)?;
    let manifest = ImageManifest::from_slice(&manifest).unwrap();
    for blob in manifest.blobs() {
        let url = format!("{base}/blobs/{}", blob.digest);
        get(store, image, &url, &blob.digest)?;
    }
    Some(digest)
}

fn get(store: &Store, image: &Image, url: &str, digest: &Digest) -> Option<Vec<u8>> {
    if store.contains(digest) {
        return Some(store.read_small(digest, 64 << 20).unwrap());
    }
    let accept = "application/vnd.oci.image.manifest.v1+json, application/octet-stream";
    let answer = agent()
        .get(url)
        .header("authorization", format!("Bearer {}", image.token))
        .header("accept", accept)
        .call()
        .unwrap();
    if answer.status() != 200 {
        return None;
    }
    let mut bytes = Vec::new();
    io::copy(&mut answer.into_body().into_reader(), &mut bytes).unwrap();
    assert_eq!(store.put_bytes(&bytes).unwrap(), *digest);
    Some(bytes)
}
