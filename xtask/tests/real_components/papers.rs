//! What goes with an image: signature, list of parts, provenance; checked by programs that are not
//! ours. And what must not go into one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::management::Variant;
use testkit::process::{Finished, need_program, run};
use testkit::{Fault, Rule};

use crate::world::{World, assert_failed};

/// openssl, skopeo and Python end in a second.
const LIMIT: Duration = Duration::from_mins(1);
pub(crate) const KEY: &str = "SYSTEMPROMPT_SIGNING_KEY";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// A pair of keys, and files to check with, outside of the project.
pub(crate) struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let keys = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let curve = "ec_paramgen_curve:P-256";
        let generate = [
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            curve,
            "-out",
            "key.pem",
        ];
        keys.openssl(&generate).expect_success();
        let public = ["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"];
        keys.openssl(&public).expect_success();
        keys
    }

    fn openssl(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(need_program("openssl"));
        run(command.args(arguments).current_dir(self.path("")), LIMIT)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn private(&self) -> String {
        std::fs::read_to_string(self.path("key.pem")).unwrap()
    }

    /// Whether openssl takes `signature` for one over `message`.
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        std::fs::write(self.path("message"), message).unwrap();
        std::fs::write(self.path("signature"), signature).unwrap();
        let verify = [
            "dgst",
            "-sha256",
            "-verify",
            "public.pem",
            "-signature",
            "signature",
            "message",
        ];
        self.openssl(&verify).code() == 0
    }

    /// Whether an image is signed with this key: skopeo looks for its signatures where cosign
    /// keeps them, and openssl says which of them are good.
    ///
    /// skopeo could decide by itself (`sigstoreSigned` in its policy), but Debian's refuses to:
    /// "Debian-local change: sigstore disabled".
    pub(crate) fn have_signed(&self, world: &World, tag: &str) -> bool {
        let digest = world.registry.manifest(world.variant.repository(), tag).1;
        signatures(world, tag).iter().any(|signature| {
            let payload = STANDARD
                .decode(signature["payload"].as_str().unwrap())
                .unwrap();
            let text: Value = serde_json::from_slice(&payload).unwrap();
            let image = format!("{}/{}", world.proxy.host(), world.variant.repository());
            let critical = &text["critical"];
            assert_eq!(critical["image"]["docker-manifest-digest"], digest.as_str());
            assert_eq!(critical["identity"]["docker-reference"], image.as_str());
            let encoded = signature["annotations"][SIGNATURE].as_str().unwrap();
            self.verify(&payload, &STANDARD.decode(encoded).unwrap())
        })
    }
}

/// The signatures that skopeo brings along when it copies an image.
pub(crate) fn signatures(world: &World, tag: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let host = world.proxy.host();
    let access = world.registry.access_through(&host);
    let login = STANDARD.encode(format!("{}:{}", access.username, access.password));
    let auths = json!({"auths": {&host: {"auth": login}}}).to_string();
    std::fs::write(path("auth.json"), auths).unwrap();
    std::fs::create_dir(path("registries.d")).unwrap();
    let attachments = "default-docker:\n  use-sigstore-attachments: true\n";
    std::fs::write(path("registries.d/all.yaml"), attachments).unwrap();
    let mut command = Command::new(need_program("skopeo"));
    command
        .args(["--insecure-policy", "--registries.d"])
        .arg(path("registries.d"))
        .args(["copy", "--src-tls-verify=false", "--src-authfile"])
        .arg(path("auth.json"))
        .arg(format!(
            "docker://{host}/{}:{tag}",
            world.variant.repository()
        ))
        .arg(format!("dir:{}", path("copy").display()));
    run(&mut command, LIMIT).expect_success();
    let numbered = (1..).map(|number| path("copy").join(format!("signature-{number}")));
    let stored = numbered.map_while(|file| std::fs::read(file).ok());
    stored.map(|bytes| sigstore(&bytes)).collect()
}

/// A stored signature: a zero byte, the name of its format, then a document.
fn sigstore(bytes: &[u8]) -> Value {
    let document = bytes.strip_prefix(b"\0sigstore-json\n");
    serde_json::from_slice(document.expect("a signature of sigstore")).unwrap()
}

fn deploy_signed(world: &World, key: &str, arguments: &[&str]) -> Finished {
    let all = [
        &["deploy", "-e", "production", "--output", "json"],
        arguments,
    ]
    .concat();
    world.run_with(&all, &[(KEY, key)])
}

/// The words of a step.
fn summary(finished: &Finished, step: &str) -> String {
    let report = finished.json();
    let mut steps = report["steps"].as_array().unwrap().iter();
    let found = steps.find(|known| known["name"] == step);
    found.unwrap()["summary"].as_str().unwrap().to_owned()
}

fn tag_of(digest: &str) -> String {
    digest.replace(':', "-")
}

/// The documents about an image, by their type: from the list under the tag, for this registry
/// keeps none itself.
pub(crate) fn documents(world: &World, digest: &str) -> Vec<(String, Vec<u8>)> {
    let repository = world.variant.repository();
    let (list, _) = world.registry.manifest(repository, &tag_of(digest));
    let entries = list["manifests"].as_array().unwrap().iter();
    let documents = entries.map(|entry| {
        let about = entry["digest"].as_str().unwrap();
        let (manifest, _) = world.registry.manifest(repository, about);
        assert_eq!(manifest["subject"]["digest"], digest);
        assert_eq!(manifest["artifactType"], entry["artifactType"]);
        let blob = manifest["layers"][0]["digest"].as_str().unwrap();
        let kind = entry["artifactType"].as_str().unwrap().to_owned();
        (kind, world.registry.blob(repository, blob))
    });
    documents.collect()
}

#[track_caller]
pub(crate) fn document(world: &World, digest: &str, kind: &str) -> Vec<u8> {
    let documents = documents(world, digest);
    let kinds: Vec<_> = documents.iter().map(|(kind, _)| kind.clone()).collect();
    let found = documents.into_iter().find(|(known, _)| known == kind);
    found
        .unwrap_or_else(|| panic!("no {kind} among {kinds:?}"))
        .1
}

#[test]
fn a_signature_convinces_openssl_and_skopeo_and_no_other_key_does() {
    let world = World::new(Variant::Current);
    let (ours, others) = (Keys::new(), Keys::new());
    let signed = deploy_signed(&world, &ours.private(), &["--tag", "signed"]);
    signed.expect_success();
    let digest = signed.json()["digest"].as_str().unwrap().to_owned();
    assert!(ours.have_signed(&world, "signed"));
    assert!(!others.have_signed(&world, "signed"));
    // With a key the provenance is signed too: DSSE, its message as the specification puts it.
    let envelope = document(&world, &digest, "application/vnd.dsse.envelope.v1+json");
    let envelope: Value = serde_json::from_slice(&envelope).unwrap();
    let decoded = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let (kind, body) = (
        "application/vnd.in-toto+json",
        decoded(&envelope["payload"]),
    );
    assert_eq!(envelope["payloadType"], kind);
    let start = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len());
    let message = [start.as_bytes(), &body].concat();
    let signature = decoded(&envelope["signatures"][0]["sig"]);
    assert!(ours.verify(&message, &signature) && !others.verify(&message, &signature));

    world.change_a_file("unsigned");
    let unsigned = world.deploy(&["--skip-build", "--tag", "unsigned"]);
    unsigned.expect_success();
    assert!(signatures(&world, "unsigned").is_empty());

    // A second signer joins the first, and neither signs twice.
    let again = ["--skip-build", "--tag", "signed", "--force"];
    world.change_a_file("example");
    world
        .workspace
        .write("services/app.yaml", "name: example\n");
    for keys in [&ours, &others, &others] {
        deploy_signed(&world, &keys.private(), &again).expect_success();
    }
    assert_eq!(
        world
            .registry
            .manifest(world.variant.repository(), "signed")
            .1,
        digest
    );
    assert_eq!(signatures(&world, "signed").len(), 2);
    assert!(ours.have_signed(&world, "signed") && others.have_signed(&world, "signed"));
}

#[test]
fn what_cannot_be_signed_gets_no_tag_and_no_key_leaks() {
    let world = World::new(Variant::Current);
    let keys = Keys::new();
    let plain = [
        ("SYSTEMPROMPT_IMAGE_SBOM", "false"),
        ("SYSTEMPROMPT_IMAGE_PROVENANCE", "false"),
    ];
    let deploy = |key: &str| {
        let arguments = [
            "deploy",
            "-e",
            "production",
            "--output",
            "json",
            "--tag",
            "one",
        ];
        world.run_with(&arguments, &[&plain[..], &[(KEY, key)]].concat())
    };
    let failed = assert_failed(&deploy("nonsense"), 3, "preflight", "signing_key_invalid");
    assert!(failed.details.contains(KEY), "{}", failed.details);
    assert!(!world.workspace.exists("target/release"));

    // The first manifest is that of the image, the second that of its signature.
    let refused = Rule::on("PUT", "/v2/*/manifests/*", Fault::Status(403)).nth(2);
    world.proxy.inject(refused);
    let finished = deploy(&keys.private());
    world.proxy.heal();
    assert_failed(&finished, 6, "push", "signature_not_sent");
    assert!(world.api.deployed().is_empty());
    assert!(!world.has_tag("one"));
    let finished = deploy(&keys.private());
    finished.expect_success();
    assert!(keys.have_signed(&world, "one"));

    let secret: Vec<_> = keys.private().lines().map(str::to_owned).collect();
    let outputs = format!("{}{}", finished.stdout, finished.stderr);
    assert!(!outputs.contains(&secret[1]), "{outputs}");
    world.assert_nothing_leaked();
}

#[test]
fn the_papers_say_what_the_image_is_made_of_and_how() {
    let world = World::new(Variant::Current);
    let first = world.deploy(&["--tag", "one"]);
    first.expect_success();
    assert!(!first.stderr.contains("warning"), "{first}");
    let digest = first.json()["digest"].as_str().unwrap().to_owned();

    let sbom = document(&world, &digest, "application/vnd.cyclonedx+json");
    assert_valid_sbom(&world, &sbom);
    let sbom: Value = serde_json::from_slice(&sbom).unwrap();
    assert_eq!(sbom["metadata"]["component"]["version"], digest.as_str());
    let components = sbom["components"].as_array().unwrap();
    let applications = components.iter().filter(|c| c["type"] == "application");
    let names: Vec<_> = applications.filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "system-tools",
            "systemprompt",
            "systemprompt-admin",
            "systemprompt-infrastructure"
        ]
    );

    let statement = document(&world, &digest, "application/vnd.in-toto+json");
    let statement: Value = serde_json::from_slice(&statement).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let subject = &statement["subject"][0]["digest"]["sha256"];
    assert_eq!(subject, digest.strip_prefix("sha256:").unwrap());
    let build = &statement["predicate"]["buildDefinition"];
    let commit = world.workspace.git(&["rev-parse", "HEAD"]).stdout;
    let materials = build["resolvedDependencies"].as_array().unwrap();
    assert_eq!(materials[0]["digest"]["gitCommit"], commit.trim());
    assert_eq!(materials[1]["name"], "Cargo.lock");
    assert_eq!(build["internalParameters"]["treeState"], "clean");
    let rustc = build["internalParameters"]["rustc"].as_str().unwrap();
    assert!(rustc.starts_with("rustc 1."), "{rustc}");

    // The same content from another commit is the same image, and costs one question.
    let empty = ["commit", "-q", "--allow-empty", "-m", "nothing"];
    world.workspace.git(&empty).expect_success();
    let second = world.deploy(&["--tag", "one"]);
    second.expect_success();
    assert_eq!(second.json()["digest"], digest.as_str());
    let words = summary(&second, "push");
    assert!(words.ends_with("nothing sent (1 request)"), "{words}");
    assert_eq!(documents(&world, &digest).len(), 2);
    // Under another tag it is another push, with a statement of its own and the same list of parts.
    world.deploy(&["--tag", "two"]).expect_success();
    assert_eq!(documents(&world, &digest).len(), 3);
    world.assert_nothing_leaked();
}

/// Asks the library of the format's makers, which brings the official schema along.
#[track_caller]
fn assert_valid_sbom(world: &World, sbom: &[u8]) {
    const CHECK: &str = "import sys\n\
        from cyclonedx.schema import SchemaVersion\n\
        from cyclonedx.validation.json import JsonStrictValidator\n\
        text = open(sys.argv[1]).read()\n\
        error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)\n\
        sys.exit(0 if error is None else 'invalid: ' + str(error)[:2000])\n";
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-tools/pip");
    assert!(
        packages.join("cyclonedx").is_dir(),
        "the CycloneDX library is missing: run `cargo xtask test --setup`"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sbom.json");
    std::fs::write(&file, sbom).unwrap();
    let mut command = world.workspace.command(need_program("python3"));
    command.arg("-c").arg(CHECK).arg(&file);
    run(command.env("PYTHONPATH", packages), LIMIT).expect_success();
}

#[test]
fn papers_that_a_registry_refuses_are_a_warning() {
    let world = World::new(Variant::Current);
    // The first manifest is that of the image, the next two are those of its papers.
    for nth in [2, 3] {
        let refused = Rule::on("PUT", "/v2/*/manifests/*", Fault::Status(400)).nth(nth);
        world.proxy.inject(refused);
    }
    let finished = world.deploy(&["--tag", "one"]);
    finished.expect_success();
    for name in ["list of parts (SBOM)", "provenance"] {
        let text = format!("warning: the image's {name} is not attached");
        assert!(finished.stderr.contains(&text), "{finished}");
    }
    assert!(world.has_tag("one"));
}

#[test]
fn a_secret_in_the_image_stops_the_deployment_unless_it_is_allowed() {
    let world = World::new(Variant::Current);
    let keys = Keys::new();
    world
        .workspace
        .write("services/tls/server.pem", &keys.private());
    world
        .workspace
        .write("services/.env", "API_PASSWORD=correct-horse\n");
    let finished = world.deploy(&[]);
    let failed = assert_failed(&finished, 3, "image", "secret_in_image");
    for part in [
        "/app/services/.env: .env file with values, put there by line 13",
        "/app/services/tls/server.pem: private key in line 1, put there by line 13",
    ] {
        assert!(failed.details.contains(part), "{}", failed.details);
    }
    assert!(
        failed.resolution.contains("image.allow_secrets"),
        "{}",
        failed.resolution
    );
    let line = keys.private().lines().nth(1).unwrap().to_owned();
    for text in [&finished.stdout, &finished.stderr] {
        assert!(
            !text.contains("correct-horse") && !text.contains(&line),
            "{finished}"
        );
    }
    assert!(world.proxy.exchanges().is_empty(), "something was sent");
    assert!(world.api.deployed().is_empty());

    world.workspace.write(".dockerignore", "services/.env\n");
    let allowed = [("SYSTEMPROMPT_IMAGE_ALLOW_SECRETS", "/app/services/tls")];
    let arguments = [
        "deploy",
        "-e",
        "production",
        "--output",
        "json",
        "--skip-build",
    ];
    world.run_with(&arguments, &allowed).expect_success();
}
