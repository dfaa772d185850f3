//! Secrets that would go into an image are found, and what only looks like them is not. The keys
//! are made by openssl and ssh-keygen, as those that people lose are.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod common;

use std::path::Path;
use std::process::Command;

use common::Project;
use deploy_image::{
    AssemblyPlan, Cache, Context, Dockerfile, FoundSecret, Ignore, NoImages, Options, find_secrets,
    plan,
};

const DOCKERFILE: &str = "FROM scratch\nCOPY app /app/\n";

fn planned(project: &Project, dockerfile: &str) -> AssemblyPlan {
    let dockerfile = Dockerfile::parse("Dockerfile", dockerfile).unwrap();
    let context = project.context();
    plan(&dockerfile, &context, &Options::default(), &NoImages).unwrap()
}

fn found(project: &Project, allowed: &[&str], cache: &mut Cache) -> Vec<String> {
    let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
    let found = find_secrets(&planned(project, DOCKERFILE), &allowed, cache).unwrap();
    found.iter().map(FoundSecret::to_string).collect()
}

/// Runs a tool that makes a key; it is part of every machine that can build Rust with TLS, and
/// named where it is not.
#[track_caller]
fn make(folder: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|_| panic!("{program} is missing: run `cargo xtask test --setup`"));
    assert!(output.status.success(), "{program}: {output:?}");
}

fn make_keys(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let curve = ["-pkeyopt", "ec_paramgen_curve:P-256"];
    let ec = [
        &["genpkey", "-algorithm", "EC", "-out", "ec.pem"],
        &curve[..],
    ]
    .concat();
    make(folder, "openssl", &ec);
    let ed = ["genpkey", "-algorithm", "ED25519", "-out", "ed25519.pem"];
    make(folder, "openssl", &ed);
    make(
        folder,
        "openssl",
        &["genrsa", "-traditional", "-out", "rsa.pem", "2048"],
    );
    let sec1 = ["ec", "-in", "ec.pem", "-out", "sec1.pem"];
    make(folder, "openssl", &sec1);
    let der = [
        "pkcs8", "-topk8", "-nocrypt", "-in", "ec.pem", "-outform", "DER", "-out", "ec.der",
    ];
    make(folder, "openssl", &der);
    let locked = [
        "pkcs8",
        "-topk8",
        "-in",
        "ec.pem",
        "-passout",
        "pass:word",
        "-out",
        "locked.pem",
    ];
    make(folder, "openssl", &locked);
    let ssh = ["-q", "-t", "ed25519", "-N", "", "-f", "id_ed25519"];
    make(folder, "ssh-keygen", &ssh);
    let public = ["pkey", "-in", "ec.pem", "-pubout", "-out", "public.pem"];
    make(folder, "openssl", &public);
    let certificate = [
        "req",
        "-x509",
        "-key",
        "ec.pem",
        "-subj",
        "/CN=test",
        "-out",
        "certificate.pem",
    ];
    make(folder, "openssl", &certificate);
}

#[test]
fn every_kind_of_private_key_is_found_and_nothing_public() {
    let project = Project::new();
    make_keys(&project.root().join("app"));
    let by_line_2 = ", put there by line 2 of the Dockerfile";
    let expected = [
        "/app/ec.der: private key in binary form",
        "/app/ec.pem: private key in line 1",
        "/app/ed25519.pem: private key in line 1",
        "/app/id_ed25519: OpenSSH private key in line 1",
        "/app/locked.pem: encrypted private key in line 1",
        "/app/rsa.pem: private key in line 1",
        "/app/sec1.pem: private key in line 1",
    ];
    assert_eq!(
        found(&project, &[], &mut Cache::none()),
        expected.map(|text| format!("{text}{by_line_2}"))
    );
    let rest = found(
        &project,
        &["/app/*.pem", "app/id_ed25519"],
        &mut Cache::none(),
    );
    assert_eq!(rest, [format!("{}{by_line_2}", expected[0])]);
    assert!(found(&project, &["/app"], &mut Cache::none()).is_empty());
}

#[test]
fn a_key_inside_another_document_is_found() {
    let project = Project::new();
    let keys = project.path("keys");
    make_keys(&keys);
    let key = std::fs::read_to_string(keys.join("ec.pem")).unwrap();
    let escaped = key.replace('\n', "\\n");
    project.write(
        "app/account.json",
        &format!("{{\n\"type\": \"service_account\",\n\"private_key\": \"{escaped}\"\n}}\n"),
    );
    project.write("app/settings.yaml", &format!("a: 1\nkey: \"{escaped}\"\n"));
    project.write("app/.env", "DATABASE_URL=postgres://app:word@db/app\n");
    project.write("app/.env.example", "DATABASE_URL=postgres://…\n");
    assert_eq!(
        found(&project, &[], &mut Cache::none()),
        [
            "/app/.env: .env file with values",
            "/app/account.json: service account key",
            "/app/settings.yaml: private key in line 2",
        ]
        .map(|text| format!("{text}, put there by line 2 of the Dockerfile"))
    );
}

/// This very program has the beginnings of all keys and tokens in it, and so has every program that
/// reads PEM.
#[test]
fn a_program_that_knows_keys_holds_none() {
    let project = Project::new();
    project.write("app/readme", "");
    let itself = std::env::current_exe().unwrap();
    std::fs::copy(itself, project.root().join("app/program")).unwrap();
    assert_eq!(found(&project, &[], &mut Cache::none()), [""; 0]);
}

#[test]
fn a_key_in_a_program_is_found() {
    let project = Project::new();
    let keys = project.path("keys");
    make_keys(&keys);
    let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let at = program.len() / 2;
    program.splice(at..at, std::fs::read(keys.join("rsa.pem")).unwrap());
    project.write("app/readme", "");
    std::fs::write(project.root().join("app/program"), program).unwrap();
    let expected =
        format!("/app/program: private key at byte {at}, put there by line 2 of the Dockerfile");
    assert_eq!(found(&project, &[], &mut Cache::none()), [expected]);
}

#[test]
fn variables_and_files_written_in_the_dockerfile_count() {
    let project = Project::new();
    // Not written out, so that no other scanner takes it for real.
    let token = format!("ghp_{}", "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xYz0cF2hJ");
    let dockerfile =
        format!("FROM scratch\nENV TOKEN={token}\nCOPY <<FILE /app/a\none\n{token}\nFILE\n");
    let found = find_secrets(&planned(&project, &dockerfile), &[], &mut Cache::none()).unwrap();
    let found: Vec<_> = found.iter().map(FoundSecret::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("the image's configuration"),
        "{found:?}"
    );
    assert_eq!(
        found[1],
        "/app/a: token of GitHub in line 2, put there by line 3 of the Dockerfile"
    );
    assert!(found.iter().all(|text| !text.contains(&token)));
}

/// Takes the permission to read away: whoever still answers has not read.
#[test]
fn what_has_not_changed_is_not_read_again() {
    let project = Project::new();
    project.write("app/.env", "A=1\n");
    project.write("app/large", &"text without secrets\n".repeat(100_000));
    project.age();
    let file = project.path("layers.json");
    let mut cache = Cache::open(&file);
    let first = found(&project, &[], &mut cache);
    assert_eq!(first.len(), 1);
    cache.save().unwrap();
    let plan = planned(&project, DOCKERFILE);
    std::fs::remove_dir_all(project.root().join("app")).unwrap();
    let again = find_secrets(&plan, &[], &mut Cache::open(&file)).unwrap();
    assert_eq!(again.len(), 1);
    assert!(find_secrets(&plan, &[], &mut Cache::none()).is_err());
    let allowed = ["/app/.env".to_owned()];
    assert!(
        find_secrets(&plan, &allowed, &mut Cache::open(&file))
            .unwrap()
            .is_empty()
    );
}

/// What the release image of this workspace holds beside its programs, and more of its kind.
#[test]
fn this_workspace_ships_no_secret() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(3)
        .unwrap();
    let dockerfile = "FROM scratch\nCOPY core/web/dist services docs xtask/src Cargo.lock /app/\n";
    let dockerfile = Dockerfile::parse("Dockerfile", dockerfile).unwrap();
    let context = Context::new(root.to_owned(), Ignore::default());
    let plan = plan(&dockerfile, &context, &Options::default(), &NoImages).unwrap();
    let found = find_secrets(&plan, &[], &mut Cache::none()).unwrap();
    assert_eq!(found, []);
}
