//! What the conformance suite of the distribution specification asks, asked here: that suite is a program of its own
//! (`conformance/` of opencontainers/distribution-spec), which needs a Go toolchain and the network to be built. Its
//! cases, in the order of its `TestAll`, and where they are held:
//!
//! | case there | test here |
//! | --- | --- |
//! | `ping`, `empty` (list of tags, referrers) | [`an_empty_repository_answers`] |
//! | `sha256 blobs`, `sha512 blobs`: `get-missing`, `post only`, `post+put`, `chunked single`, `stream`, `chunked multi`, `… and put chunk`, `chunked out-of-order`, `… and put chunk` | [`blobs_are_pushed_in_every_way`] |
//! | `post cancel` | [`an_upload_is_cancelled`] |
//! | `mount`, `mount missing`, `mount anonymous` | [`blobs_are_mounted_or_uploaded`] |
//! | `range requests` | [`parts_of_blobs_are_got`] |
//! | `empty`, `emptyJSON` (the contents) | [`known_contents_are_blobs_too`] |
//! | `bad digest …` | [`bad_digests_are_refused_in_every_way`] |
//! | `image`, `image-uncompressed`, `large-manifest`, `no-layers`, `data-field`, `custom-fields`, `non-distributable-layers` | [`images_pass`] |
//! | `index`, `nested-index`, `empty-index` | [`indexes_pass`] |
//! | `artifact`, `artifact-index`, `artifact-without-layers` | [`artifacts_pass`] |
//! | `artifacts-with-subject`, `index-with-subject`, `missing-subject` | [`referrers_pass`] |
//! | `sha512` | [`manifests_are_addressed_by_sha512`] |
//! | `tag-param-sha256`, `tag-param-sha512` | [`tags_come_with_a_digest`] |
//! | `sparse` (off unless asked for) | [`what_is_not_whole_is_refused`]: an image that can be got can be run |
//! | `bad-digest-image`, `missing-manifest`, `invalid-digest-format` | [`wrong_addresses_of_manifests_are_refused`] |
//!
//! In each of the data sets the suite pushes all blobs, then manifests by digest and by tag, lists tags, asks for and gets
//! everything, lists referrers, and deletes tags, manifests and blobs, of which nothing may be there right after:
//! that is [`Data::passes`]. `mount anonymous` may be answered with an upload, and is: no repository tells of others.

use std::io::Cursor;

use oci::{Algorithm, Digest, media_type};
use registry::Limits;
use serde_json::{Value, json};
use ureq::Body;
use ureq::http::Response;

use crate::image::noise;
use crate::raw::{Raw, code, header};

const CHUNK: usize = 1024;
const EXAMPLE: &str = "application/vnd.example.oci.conformance";
const OTHER_EXAMPLE: &str = "application/vnd.example.oci.conformance.v2";

fn raw() -> Raw {
    Raw::start(Limits::default())
}

fn status(response: &Response<Body>) -> u16 {
    response.status().as_u16()
}

fn body(mut response: Response<Body>) -> Vec<u8> {
    let limit = 8 * 1024 * 1024;
    let reader = response.body_mut().with_config().limit(limit);
    reader.read_to_vec().unwrap()
}

/// Asks for a blob, gets it, deletes it, and asks for it again.
fn blob_is_there_and_goes(raw: &Raw, digest: &Digest, bytes: &[u8]) {
    let path = format!("alice/app/blobs/{digest}");
    let head = raw.send("HEAD", &path, &[], b"");
    assert_eq!(status(&head), 200);
    assert_eq!(header(&head, "content-length"), bytes.len().to_string());
    assert_eq!(header(&head, "docker-content-digest"), digest.to_string());
    let got = raw.send("GET", &path, &[], b"");
    assert_eq!(header(&got, "content-length"), bytes.len().to_string());
    assert_eq!((status(&got), body(got)), (200, bytes.to_vec()));
    assert_eq!(status(&raw.send("DELETE", &path, &[], b"")), 202);
    assert_eq!(status(&raw.send("HEAD", &path, &[], b"")), 404);
}

/// How a blob is pushed.
#[derive(Debug, Clone, Copy)]
enum Way {
    PostOnly,
    PostPut,
    Stream,
    /// In chunks; the last with the `PUT` or before it; each tried at a wrong place first or not.
    Chunked {
        put_last: bool,
        out_of_order: bool,
    },
}

const WAYS: [Way; 7] = [
    Way::PostOnly,
    Way::PostPut,
    Way::Stream,
    Way::Chunked {
        put_last: false,
        out_of_order: false,
    },
    Way::Chunked {
        put_last: true,
        out_of_order: false,
    },
    Way::Chunked {
        put_last: false,
        out_of_order: true,
    },
    Way::Chunked {
        put_last: true,
        out_of_order: true,
    },
];

/// Pushes; returns the last answer.
fn push(raw: &Raw, way: Way, digest: &Digest, bytes: &[u8]) -> Response<Body> {
    let octets = ("content-type", "application/octet-stream");
    match way {
        Way::PostOnly => {
            let path = format!("alice/app/blobs/uploads/?digest={digest}");
            raw.send("POST", &path, &[octets], bytes)
        }
        Way::PostPut => {
            let path = format!("{}?digest={digest}", raw.begin());
            raw.send("PUT", &path, &[octets], bytes)
        }
        Way::Stream => {
            // Without a length, as from a pipe.
            let request = ureq::http::Request::builder()
                .method("PATCH")
                .uri(format!("http://{}{}", raw.server.address, raw.begin()))
                .header("authorization", "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==")
                .body(ureq::SendBody::from_owned_reader(Cursor::new(
                    bytes.to_vec(),
                )))
                .unwrap();
            let sent = raw.agent.run(request).unwrap();
            assert_eq!(status(&sent), 202);
            let path = format!("{}?digest={digest}", header(&sent, "location"));
            raw.send("PUT", &path, &[octets], b"")
        }
        Way::Chunked {
            put_last,
            out_of_order,
        } => push_chunks(raw, digest, bytes, put_last, out_of_order),
    }
}

fn push_chunks(
    raw: &Raw,
    digest: &Digest,
    bytes: &[u8],
    put_last: bool,
    out_of_order: bool,
) -> Response<Body> {
    let mut location = raw.begin();
    let mut sent = 0;
    while sent < bytes.len() {
        if out_of_order {
            location = send_out_of_order(raw, &location, digest, bytes, sent, put_last);
        }
        let end = bytes.len().min(sent + CHUNK);
        let range = format!("{sent}-{}", end - 1);
        let chunk = &bytes[sent..end];
        if put_last && end == bytes.len() {
            let path = format!("{location}?digest={digest}");
            return raw.send("PUT", &path, &[("content-range", &range)], chunk);
        }
        let taken = raw.send("PATCH", &location, &[("content-range", &range)], chunk);
        assert_eq!(status(&taken), 202);
        assert_eq!(header(&taken, "range"), format!("0-{}", end - 1));
        location = header(&taken, "location").to_owned();
        sent = end;
    }
    raw.send("PUT", &format!("{location}?digest={digest}"), &[], b"")
}

/// A chunk at the wrong place is refused, and the upload says how much it has; returns where to go on.
fn send_out_of_order(
    raw: &Raw,
    location: &str,
    digest: &Digest,
    bytes: &[u8],
    sent: usize,
    put_last: bool,
) -> String {
    let start = Some(sent + CHUNK).filter(|start| *start < bytes.len());
    let start = start.unwrap_or(0);
    let end = bytes.len().min(start + CHUNK);
    let range = format!("{start}-{}", end - 1);
    if start == sent {
        return location.to_owned();
    }
    let refused = if put_last && end == bytes.len() {
        let path = format!("{location}?digest={digest}");
        raw.send(
            "PUT",
            &path,
            &[("content-range", &range)],
            &bytes[start..end],
        )
    } else {
        raw.send(
            "PATCH",
            location,
            &[("content-range", &range)],
            &bytes[start..end],
        )
    };
    assert_eq!(status(&refused), 416);
    let at = raw.send("GET", header(&refused, "location"), &[], b"");
    assert_eq!(status(&at), 204);
    let last = sent.saturating_sub(1);
    assert_eq!(header(&at, "range"), format!("0-{last}"));
    header(&at, "location").to_owned()
}

#[test]
fn an_empty_repository_answers() {
    let raw = raw();
    assert_eq!(status(&raw.send("GET", "", &[], b"")), 200);
    let tags = raw.send("GET", "alice/app/tags/list", &[], b"");
    assert_eq!(code(tags), (404, "NAME_UNKNOWN".to_owned()));
    for algorithm in Algorithm::ALL {
        let nothing = Digest::by(algorithm, b"nothing");
        let path = format!("alice/app/referrers/{nothing}");
        let referrers = raw.send("GET", &path, &[], b"");
        assert_eq!(header(&referrers, "content-type"), media_type::OCI_INDEX);
        let index: Value = serde_json::from_slice(&body(referrers)).unwrap();
        assert_eq!(index["mediaType"], media_type::OCI_INDEX);
        assert_eq!(index["manifests"], json!([]));
        let path = format!("alice/app/blobs/{nothing}");
        assert_eq!(
            code(raw.send("GET", &path, &[], b"")),
            (404, "BLOB_UNKNOWN".to_owned())
        );
    }
}

#[test]
fn blobs_are_pushed_in_every_way() {
    let raw = raw();
    for algorithm in Algorithm::ALL {
        for (seed, way) in (7000..).zip(WAYS) {
            for length in [512, 3 * CHUNK - 5] {
                let bytes = noise(seed, length);
                let digest = Digest::by(algorithm, &bytes);
                let pushed = push(&raw, way, &digest, &bytes);
                assert_eq!(status(&pushed), 201, "{way:?} {algorithm}");
                let named = header(&pushed, "docker-content-digest");
                assert_eq!(named, digest.to_string());
                let there = raw.send("GET", header(&pushed, "location"), &[], b"");
                assert_eq!(body(there), bytes);
                blob_is_there_and_goes(&raw, &digest, &bytes);
            }
        }
    }
}

#[test]
fn bad_digests_are_refused_in_every_way() {
    let raw = raw();
    for algorithm in Algorithm::ALL {
        for (seed, way) in (7100..).zip(WAYS) {
            let bytes = noise(seed, 3 * CHUNK - 5);
            let other = Digest::by(algorithm, b"oh no");
            let refused = push(&raw, way, &other, &bytes);
            assert_eq!(code(refused), (400, "DIGEST_INVALID".to_owned()), "{way:?}");
            let path = format!("alice/app/blobs/{other}");
            assert_eq!(status(&raw.send("HEAD", &path, &[], b"")), 404);
        }
    }
    let unknown = format!("alice/app/blobs/uploads/?digest=sha384:{}", "0".repeat(96));
    let refused = raw.send("POST", &unknown, &[], b"x");
    assert_eq!(code(refused), (400, "DIGEST_INVALID".to_owned()));
}

/// What is hashed as it comes needs no second look at the end; what turns out to be addressed otherwise is read again.
#[test]
fn an_upload_need_not_know_its_algorithm() {
    let raw = raw();
    let bytes = noise(7150, 3000);
    for query in ["", "?digest-algorithm=sha256", "?digest-algorithm=sha512"] {
        for algorithm in Algorithm::ALL {
            let path = format!("alice/app/blobs/uploads/{query}");
            let begun = raw.send("POST", &path, &[], b"");
            let location = header(&begun, "location").to_owned();
            assert_eq!(status(&raw.send("PATCH", &location, &[], &bytes)), 202);
            let digest = Digest::by(algorithm, &bytes);
            let path = format!("{location}?digest={digest}");
            assert_eq!(status(&raw.send("PUT", &path, &[], b"")), 201);
            blob_is_there_and_goes(&raw, &digest, &bytes);
        }
    }
    let path = "alice/app/blobs/uploads/?digest-algorithm=md5";
    let refused = raw.send("POST", path, &[], b"");
    assert_eq!(code(refused), (400, "DIGEST_INVALID".to_owned()));
}

#[test]
fn an_upload_is_cancelled() {
    let raw = raw();
    let location = raw.begin();
    assert_eq!(status(&raw.send("DELETE", &location, &[], b"")), 204);
    let gone = raw.send("GET", &location, &[], b"");
    assert_eq!(code(gone), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
}

#[test]
fn blobs_are_mounted_or_uploaded() {
    let raw = raw();
    for algorithm in Algorithm::ALL {
        let bytes = noise(7200, 512);
        let digest = Digest::by(algorithm, &bytes);
        let mount = |rest: &str| format!("alice/app/blobs/uploads/?mount={digest}{rest}");
        // Nobody has it, and then somebody has it whom nobody named.
        for (path, there) in [(mount("&from=alice/other"), false), (mount(""), true)] {
            if there {
                let path = format!("alice/other/blobs/uploads/?digest={digest}");
                assert_eq!(status(&raw.send("POST", &path, &[], &bytes)), 201);
            }
            let begun = raw.send("POST", &path, &[], b"");
            assert_eq!(status(&begun), 202);
            let path = format!("{}?digest={digest}", header(&begun, "location"));
            assert_eq!(status(&raw.send("PUT", &path, &[], &bytes)), 201);
            blob_is_there_and_goes(&raw, &digest, &bytes);
        }
        let mounted = raw.send("POST", &mount("&from=alice/other"), &[], b"");
        assert_eq!(status(&mounted), 201);
        let there = raw.send("GET", header(&mounted, "location"), &[], b"");
        assert_eq!(body(there), bytes);
        blob_is_there_and_goes(&raw, &digest, &bytes);
    }
}

#[test]
fn parts_of_blobs_are_got() {
    let raw = raw();
    for algorithm in Algorithm::ALL {
        let bytes = noise(7300, 2048);
        let digest = Digest::by(algorithm, &bytes);
        assert_eq!(status(&push(&raw, Way::PostPut, &digest, &bytes)), 201);
        let path = format!("alice/app/blobs/{digest}");
        let get = |range| raw.send("GET", &path, &[("range", range)], b"");
        for (range, first, last) in [
            ("bytes=500-1499", 500, 1499),
            ("bytes=500-", 500, 2047),
            ("bytes=-500", 1548, 2047),
            ("bytes=2000-5000", 2000, 2047),
        ] {
            let part = get(range);
            let expected = format!("bytes {first}-{last}/2048");
            assert_eq!(header(&part, "content-range"), expected);
            let length = (last - first + 1).to_string();
            assert_eq!(header(&part, "content-length"), length);
            assert_eq!(
                (status(&part), body(part)),
                (206, bytes[first..=last].to_vec())
            );
        }
        for range in ["bytes=500-0", "bytes=5000-10000"] {
            assert_eq!(status(&get(range)), 416, "{range}");
        }
    }
}

#[test]
fn known_contents_are_blobs_too() {
    let raw = raw();
    for algorithm in Algorithm::ALL {
        for bytes in [&b""[..], b"{}"] {
            for way in [Way::PostOnly, Way::PostPut, Way::Stream] {
                let digest = Digest::by(algorithm, bytes);
                assert_eq!(status(&push(&raw, way, &digest, bytes)), 201);
                blob_is_there_and_goes(&raw, &digest, bytes);
            }
        }
    }
}

/// A set of blobs and manifests that belong together.
#[derive(Default)]
struct Data {
    algorithm: Algorithm,
    blobs: Vec<(Digest, Vec<u8>)>,
    /// What names comes after what it names.
    manifests: Vec<(Digest, Vec<u8>)>,
    tags: Vec<(String, Digest)>,
    /// Subject, referrer, and the type it is found by.
    referrers: Vec<(Digest, Digest, String)>,
    /// Tags go with the manifests that are put by digest.
    tags_with_digests: bool,
}

impl Data {
    fn by(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            ..Self::default()
        }
    }

    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::by(self.algorithm, &bytes);
        let size = bytes.len();
        if !self.blobs.iter().any(|(known, _)| *known == digest) {
            self.blobs.push((digest, bytes));
        }
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }

    /// A manifest with these fields beside those that each has.
    fn manifest(&mut self, media_type: &str, fields: Value) -> Value {
        let mut document = json!({ "schemaVersion": 2, "mediaType": media_type });
        let Value::Object(fields) = fields else {
            panic!("fields are an object")
        };
        document.as_object_mut().unwrap().extend(fields);
        let bytes = serde_json::to_vec(&document).unwrap();
        let digest = Digest::by(self.algorithm, &bytes);
        let size = bytes.len();
        if let Some(subject) = document["subject"]["digest"].as_str() {
            let by_config = &document["config"]["mediaType"];
            let kind = document["artifactType"].as_str().or(by_config.as_str());
            let kind = kind.unwrap_or_default().to_owned();
            let subject = subject.parse().unwrap();
            self.referrers.push((subject, digest, kind));
        }
        self.manifests.push((digest, bytes));
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }

    fn tag(&mut self, tag: &str) {
        let (digest, _) = self.manifests.last().unwrap();
        self.tags.push((tag.to_owned(), *digest));
    }

    /// Configuration and layers.
    fn parts(&mut self, seed: u64, layers: usize, layer_type: &str) -> Value {
        let config = json!({ "architecture": "amd64", "os": "linux", "seed": seed,
            "rootfs": { "type": "layers", "diff_ids": [] } });
        let config = self.blob(media_type::OCI_CONFIG, config.to_string().into_bytes());
        let layers: Vec<Value> = (0..layers as u64)
            .map(|layer| self.blob(layer_type, noise(8000 + seed * 10 + layer, 300)))
            .collect();
        json!({ "config": config, "layers": layers })
    }

    fn image(&mut self, seed: u64) -> Value {
        let parts = self.parts(seed, 2, media_type::OCI_LAYER_GZIP);
        self.manifest(media_type::OCI_MANIFEST, parts)
    }

    fn index(&mut self, seed: u64) -> Value {
        let images = [self.image(seed), self.image(seed + 1)];
        self.manifest(media_type::OCI_INDEX, json!({ "manifests": images }))
    }

    fn artifact(&mut self, kind: &str, seed: u64, more: Value) -> Value {
        let config = self.blob(media_type::OCI_EMPTY, b"{}".to_vec());
        let layer = self.blob(kind, noise(8500 + seed, 200));
        let mut fields = json!({ "artifactType": kind, "config": config, "layers": [layer] });
        if let Value::Object(more) = more {
            fields.as_object_mut().unwrap().extend(more);
        }
        self.manifest(media_type::OCI_MANIFEST, fields)
    }

    /// Pushes, lists, gets and deletes all of it.
    fn passes(&self) {
        let raw = raw();
        for (digest, bytes) in &self.blobs {
            assert_eq!(status(&push(&raw, Way::PostPut, digest, bytes)), 201);
        }
        self.push_manifests(&raw);
        self.are_listed(&raw);
        self.are_got(&raw);
        self.refer(&raw);
        self.are_deleted(&raw);
    }

    fn push_manifests(&self, raw: &Raw) {
        for (digest, bytes) in &self.manifests {
            let tags = self.tags.iter().filter(|(_, meant)| meant == digest);
            let names: Vec<&str> = tags.map(|(tag, _)| tag.as_str()).collect();
            let target = if self.tags_with_digests {
                format!("{digest}?tag={}", names.join("&tag="))
            } else {
                digest.to_string()
            };
            let put = put(raw, &target, bytes);
            assert_eq!(status(&put), 201);
            let named = header(&put, "docker-content-digest");
            assert_eq!(named, digest.to_string());
            let subject = serde_json::from_slice::<Value>(bytes).unwrap()["subject"].clone();
            let subject = subject["digest"].as_str().unwrap_or_default().to_owned();
            assert_eq!(header(&put, "oci-subject"), subject);
            let there = raw.send("GET", header(&put, "location"), &[], b"");
            assert_eq!(&body(there), bytes);
            if self.tags_with_digests {
                let said = put.headers().get_all("oci-tag").iter();
                let said: Vec<&str> = said.map(|tag| tag.to_str().unwrap()).collect();
                assert_eq!(said, names);
            }
        }
        if !self.tags_with_digests {
            for (tag, digest) in &self.tags {
                assert_eq!(status(&put(raw, tag, self.bytes(digest))), 201);
            }
        }
    }

    fn bytes(&self, digest: &Digest) -> &[u8] {
        let found = self.manifests.iter().find(|(known, _)| known == digest);
        &found.unwrap().1
    }

    fn are_listed(&self, raw: &Raw) {
        let list = |query: &str| -> Vec<String> {
            let path = format!("alice/app/tags/list{query}");
            let page = body(raw.send("GET", &path, &[], b""));
            let page: Value = serde_json::from_slice(&page).unwrap();
            serde_json::from_value(page["tags"].clone()).unwrap()
        };
        let mut expected: Vec<String> = self.tags.iter().map(|(tag, _)| tag.clone()).collect();
        expected.sort_unstable();
        if expected.is_empty() {
            return;
        }
        assert_eq!(list(""), expected);
        let half = expected.len() / 2;
        if half > 0 {
            assert_eq!(list(&format!("?n={half}")), expected[..half]);
            let last = &expected[half - 1];
            assert_eq!(list(&format!("?last={last}")), expected[half..]);
        }
    }

    fn are_got(&self, raw: &Raw) {
        let digests = self.manifests.iter().map(|(d, _)| (d.to_string(), *d));
        for (target, digest) in digests.chain(self.tags.iter().cloned()) {
            let bytes = self.bytes(&digest);
            let written: Value = serde_json::from_slice(bytes).unwrap();
            for method in ["HEAD", "GET"] {
                let path = format!("alice/app/manifests/{target}");
                let there = raw.send(method, &path, &[], b"");
                assert_eq!(status(&there), 200, "{method} {target}");
                assert_eq!(header(&there, "content-type"), written["mediaType"]);
                assert_eq!(header(&there, "content-length"), bytes.len().to_string());
                let named = header(&there, "docker-content-digest");
                assert_eq!(named, digest.to_string());
                if method == "GET" {
                    assert_eq!(body(there), bytes);
                }
            }
        }
        for (digest, bytes) in &self.blobs {
            let path = format!("alice/app/blobs/{digest}");
            assert_eq!(&body(raw.send("GET", &path, &[], b"")), bytes);
        }
    }

    fn refer(&self, raw: &Raw) {
        for (subject, referrer, kind) in &self.referrers {
            let list = |query: &str| -> (bool, Vec<Value>) {
                let path = format!("alice/app/referrers/{subject}{query}");
                let answer = raw.send("GET", &path, &[], b"");
                assert_eq!(header(&answer, "content-type"), media_type::OCI_INDEX);
                let filtered = header(&answer, "oci-filters-applied") == "artifactType";
                let index: Value = serde_json::from_slice(&body(answer)).unwrap();
                (filtered, index["manifests"].as_array().unwrap().clone())
            };
            let written: Value = serde_json::from_slice(self.bytes(referrer)).unwrap();
            let is_it = |entry: &&Value| entry["digest"] == referrer.to_string();
            let (_, all) = list("");
            let entry = all.iter().find(is_it).unwrap();
            assert_eq!(entry["mediaType"], written["mediaType"]);
            assert_eq!(entry["size"], self.bytes(referrer).len());
            assert_eq!(entry["artifactType"].as_str().unwrap_or_default(), kind);
            assert_eq!(entry["annotations"], written["annotations"]);
            if !kind.is_empty() {
                let (filtered, some) = list(&format!("?artifactType={}", kind.replace('+', "%2B")));
                assert!(filtered && some.iter().any(|entry| is_it(&entry)));
                assert!(some.iter().all(|entry| entry["artifactType"] == *kind));
            }
        }
    }

    fn are_deleted(&self, raw: &Raw) {
        let tags = self.tags.iter().map(|(tag, _)| format!("manifests/{tag}"));
        let manifests = self.manifests.iter().rev();
        let manifests = manifests.map(|(digest, _)| format!("manifests/{digest}"));
        let blobs = self
            .blobs
            .iter()
            .map(|(digest, _)| format!("blobs/{digest}"));
        for thing in tags.chain(manifests).chain(blobs) {
            let path = format!("alice/app/{thing}");
            assert_eq!(status(&raw.send("DELETE", &path, &[], b"")), 202, "{thing}");
            assert_eq!(status(&raw.send("HEAD", &path, &[], b"")), 404, "{thing}");
        }
        for (subject, ..) in &self.referrers {
            let path = format!("alice/app/referrers/{subject}");
            let index: Value =
                serde_json::from_slice(&body(raw.send("GET", &path, &[], b""))).unwrap();
            assert_eq!(index["manifests"], json!([]));
        }
    }
}

fn push_blobs(raw: &Raw, data: &Data) {
    for (digest, bytes) in &data.blobs {
        assert_eq!(status(&push(raw, Way::PostPut, digest, bytes)), 201);
    }
}

fn put(raw: &Raw, target: &str, bytes: &[u8]) -> Response<Body> {
    let written: Value = serde_json::from_slice(bytes).unwrap();
    let media_type = written["mediaType"].as_str().unwrap();
    let path = format!("alice/app/manifests/{target}");
    raw.send("PUT", &path, &[("content-type", media_type)], bytes)
}

#[test]
fn images_pass() {
    let mut data = Data::default();
    for (tag, layers, layer_type) in [
        ("image", 2, media_type::OCI_LAYER_GZIP),
        ("image-uncompressed", 2, media_type::OCI_LAYER),
        ("no-layers", 0, media_type::OCI_LAYER),
    ] {
        let parts = data.parts(tag.len() as u64, layers, layer_type);
        data.manifest(media_type::OCI_MANIFEST, parts);
        data.tag(tag);
    }
    let mut custom = data.parts(30, 1, media_type::OCI_LAYER);
    custom["org.example.unknown"] = json!({ "anything": [1, 2.5, null] });
    data.manifest(media_type::OCI_MANIFEST, custom);
    data.tag("custom-fields");
    let mut with_data = data.parts(40, 1, media_type::OCI_LAYER);
    with_data["config"]["data"] = json!("e30=");
    data.manifest(media_type::OCI_MANIFEST, with_data);
    data.tag("data-field");
    let mut foreign = data.parts(50, 1, media_type::OCI_LAYER);
    for (seed, kind) in [(8900, "tar"), (8901, "tar+gzip")] {
        let elsewhere = Digest::of(&noise(seed, 100));
        foreign["layers"].as_array_mut().unwrap().push(json!({
            "mediaType": format!("application/vnd.oci.image.layer.nondistributable.v1.{kind}"),
            "digest": elsewhere, "size": 12345,
            "urls": [format!("https://store.example.com/{}", elsewhere.hex())],
        }));
    }
    data.manifest(media_type::OCI_MANIFEST, foreign);
    data.tag("non-distributable-image");
    data.passes();
}

/// Near to the four megabytes that registries are asked to take.
#[test]
fn a_large_manifest_passes() {
    let mut data = Data::default();
    let mut large = data.parts(60, 1, media_type::OCI_LAYER);
    let long = "A".repeat(10_000);
    for number in 0..390 {
        large["annotations"][format!("large-annotation-{number}")] = json!(long);
    }
    data.manifest(media_type::OCI_MANIFEST, large);
    data.tag("large-manifest");
    data.passes();
}

#[test]
fn indexes_pass() {
    let mut data = Data::default();
    let one = data.index(1);
    data.tag("index");
    let two = data.index(3);
    data.manifest(media_type::OCI_INDEX, json!({ "manifests": [one, two] }));
    data.tag("index-of-index");
    data.manifest(media_type::OCI_INDEX, json!({ "manifests": [] }));
    data.tag("empty-index");
    data.passes();
}

#[test]
fn artifacts_pass() {
    let mut data = Data::default();
    let one = data.artifact(EXAMPLE, 1, json!({}));
    data.tag("artifact");
    let two = data.artifact(EXAMPLE, 2, json!({}));
    let list = json!({ "artifactType": EXAMPLE, "manifests": [one, two] });
    data.manifest(media_type::OCI_INDEX, list);
    data.tag("artifact-index");
    let empty = data.blob(media_type::OCI_EMPTY, b"{}".to_vec());
    let bare = json!({ "artifactType": EXAMPLE, "config": empty, "layers": [empty] });
    data.manifest(media_type::OCI_MANIFEST, bare);
    data.tag("artifact-without-layers");
    data.passes();
}

#[test]
fn referrers_pass() {
    for algorithm in Algorithm::ALL {
        let mut data = Data::by(algorithm);
        let image = data.image(1);
        let mut plain = data.parts(5, 1, media_type::OCI_LAYER);
        plain["subject"] = image.clone();
        data.manifest(media_type::OCI_MANIFEST, plain);
        for (seed, kind) in [(3, EXAMPLE), (4, OTHER_EXAMPLE)] {
            let notes = json!({ "org.opencontainers.conformance": format!("hello {seed}") });
            let more = json!({ "subject": image, "annotations": notes });
            data.artifact(kind, seed, more);
        }
        let index = data.index(7);
        let about = json!({ "subject": index, "manifests": [] });
        data.manifest(media_type::OCI_INDEX, about);
        let missing = json!({ "mediaType": media_type::OCI_MANIFEST, "size": 123,
            "digest": Digest::by(algorithm, b"missing content") });
        data.artifact(EXAMPLE, 9, json!({ "subject": missing }));
        data.passes();
    }
}

#[test]
fn manifests_are_addressed_by_sha512() {
    let mut data = Data::by(Algorithm::Sha512);
    data.index(1);
    data.passes();
}

#[test]
fn tags_come_with_a_digest() {
    for algorithm in Algorithm::ALL {
        let mut data = Data::by(algorithm);
        data.tags_with_digests = true;
        data.image(1);
        data.tag("one");
        data.image(2);
        data.tag("two");
        data.tag("latest");
        data.passes();
    }
}

#[test]
fn what_is_not_whole_is_refused() {
    let raw = raw();
    for algorithm in Algorithm::ALL {
        let mut data = Data::by(algorithm);
        data.index(1);
        let (missing, present) = data.blobs.split_last().unwrap();
        for (digest, bytes) in present {
            assert_eq!(status(&push(&raw, Way::PostPut, digest, bytes)), 201);
        }
        for (_, bytes) in &data.manifests[1..] {
            let refused = put(&raw, "sparse", bytes);
            let expected = (400, "MANIFEST_BLOB_UNKNOWN".to_owned());
            assert_eq!(code(refused), expected);
        }
        assert_eq!(
            status(&push(&raw, Way::PostPut, &missing.0, &missing.1)),
            201
        );
        for (digest, bytes) in &data.manifests {
            assert_eq!(status(&put(&raw, &digest.to_string(), bytes)), 201);
        }
    }
}

#[test]
fn wrong_addresses_of_manifests_are_refused() {
    let raw = raw();
    let mut data = Data::default();
    data.image(1);
    push_blobs(&raw, &data);
    let (digest, bytes) = &data.manifests[0];
    for algorithm in Algorithm::ALL {
        let other = Digest::by(algorithm, b"other");
        let path = format!("alice/app/manifests/{other}");
        let missing = raw.send("GET", &path, &[], b"");
        assert_eq!(code(missing), (404, "MANIFEST_UNKNOWN".to_owned()));
        let refused = put(&raw, &other.to_string(), bytes);
        assert_eq!(code(refused), (400, "DIGEST_INVALID".to_owned()));
    }
    let padded = [bytes.as_slice(), b"  "].concat();
    let refused = put(&raw, &digest.to_string(), &padded);
    assert_eq!(code(refused), (400, "DIGEST_INVALID".to_owned()));
    let refused = put(&raw, "sha256:baddigeststring", bytes);
    assert_eq!(code(refused), (400, "DIGEST_INVALID".to_owned()));
    for (target, expected) in [("sha256:baddigeststring", 400), ("missing", 404)] {
        let path = format!("alice/app/manifests/{target}");
        assert_eq!(status(&raw.send("GET", &path, &[], b"")), expected);
    }
    for query in ["tag=-no", &vec!["tag=many"; 17].join("&")] {
        let refused = put(&raw, &format!("{digest}?{query}"), bytes);
        assert_eq!(code(refused), (400, "MANIFEST_INVALID".to_owned()));
    }
}

/// Nothing can be put where nothing can be found. Looking there is no mistake: conformance's own question for a manifest
/// that isn't there is `.INVALID_MANIFEST_NAME`, which MUST be 404; what is to be deleted is gone.
#[test]
fn names_that_are_neither_tag_nor_digest_take_no_manifest_and_have_none() {
    let raw = raw();
    let mut data = Data::default();
    data.image(1);
    push_blobs(&raw, &data);
    let (_, bytes) = &data.manifests[0];
    let long = "x".repeat(129);
    for name in [
        ".INVALID_MANIFEST_NAME",
        "-v1",
        "v%201",
        "v1%0a",
        "%C3%A4",
        &long,
    ] {
        let refused = put(&raw, name, bytes);
        assert_eq!(
            code(refused),
            (400, "MANIFEST_INVALID".to_owned()),
            "{name}"
        );
        let path = format!("alice/app/manifests/{name}");
        for method in ["GET", "DELETE"] {
            let missing = raw.send(method, &path, &[], b"");
            assert_eq!(
                code(missing),
                (404, "MANIFEST_UNKNOWN".to_owned()),
                "{name}"
            );
        }
        assert_eq!(status(&raw.send("HEAD", &path, &[], b"")), 404, "{name}");
        assert_eq!(status(&raw.send("POST", &path, &[], b"")), 405, "{name}");
    }
    let mut refused = put(&raw, "-v1", bytes);
    let text = refused.body_mut().read_to_string().unwrap();
    assert!(text.contains("neither a tag nor a digest"), "{text}");
    // Who may not push there is told that, and not how to do it right.
    let foreign = raw.send("PUT", "bob/app/manifests/-v1", &[], b"{}");
    assert_eq!(code(foreign), (403, "DENIED".to_owned()));
    assert_eq!(status(&put(&raw, &"x".repeat(128), bytes)), 201);
}

/// The bytes alone do not say whether it is Docker's or OCI's: whoever has the digest goes by what was said first.
#[test]
fn a_manifest_keeps_the_type_that_it_came_with() {
    let raw = raw();
    let mut data = Data::default();
    let parts = data.parts(1, 1, media_type::OCI_LAYER);
    push_blobs(&raw, &data);
    let mut untyped = json!({ "schemaVersion": 2 });
    untyped["config"] = parts["config"].clone();
    untyped["layers"] = parts["layers"].clone();
    let bytes = serde_json::to_vec(&untyped).unwrap();
    let put = |tag: &str, media_type: &str| {
        let path = format!("alice/app/manifests/{tag}");
        raw.send("PUT", &path, &[("content-type", media_type)], &bytes)
    };
    assert_eq!(status(&put("v1", media_type::OCI_MANIFEST)), 201);
    let refused = put("v2", media_type::DOCKER_MANIFEST);
    assert_eq!(code(refused), (400, "MANIFEST_INVALID".to_owned()));
    assert_eq!(status(&put("v2", media_type::OCI_MANIFEST)), 201);
    let path = format!("alice/app/manifests/{}", Digest::of(&bytes));
    let there = raw.send("HEAD", &path, &[], b"");
    assert_eq!(header(&there, "content-type"), media_type::OCI_MANIFEST);
}
