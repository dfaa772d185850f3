use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::*;
use crate::process::{Finished, Running, eventually, run};

const LIMIT: Duration = Duration::from_secs(30);
/// Nothing that looks like a secret to those who look for secrets in sources.
const TOKEN: &str = "a-token-of-the-test";

const SHOP: &str = r#"# a shop
[[services]]
uniqueIdentifier = 102
name = "api"
type = "backend"
[services.configuration.settings]
image = 'my-app/api-build:abc123'
commandPort = 8080
publicNet = true

[[services]]
uniqueIdentifier = 101
name = "api-build"
type = "build"

[[services]]
uniqueIdentifier = 100
name = "db"
type = "postgres"
[services.configuration.settings]
image = "postgres:16"
"#;

/// A double and a folder with a file to deploy.
struct Shop {
    double: Double,
    folder: TempDir,
}

impl Shop {
    fn new(generation: Generation) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("aramb.toml"), SHOP).unwrap();
        Self {
            double: Double::new(generation),
            folder,
        }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(self.double.bin().join("aramb"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .env("ARAMB_API_TOKEN", TOKEN)
            .env("BUILDKIT_HOST", "tcp://localhost:1234");
        command
    }

    fn aramb(&self, arguments: &str) -> Finished {
        run(&mut self.command(arguments), LIMIT)
    }

    fn deploy(&self) -> Finished {
        let flag = self.double.generation().from_toml();
        self.aramb(&format!("deploy {flag} --yes"))
    }

    fn file(&self) -> String {
        fs::read_to_string(self.folder.path().join("aramb.toml")).unwrap()
    }
}

#[test]
fn the_generations_differ_in_what_is_published_of_them() {
    for (generation, other, end, inner) in [
        (Generation::Old, "--from-toml", "healthy", "INTERNAL_URL"),
        (
            Generation::New,
            "--deploy-from-toml",
            "completed",
            "PRIVATE_URL",
        ),
    ] {
        let shop = Shop::new(generation);
        let help = shop.aramb("deploy --help");
        assert!(
            help.expect_success()
                .stdout
                .contains(generation.from_toml())
        );
        shop.aramb(&format!("deploy {other} --yes"))
            .expect_code(2)
            .expect_stderr(&format!("Error: unknown flag: {other}\nUsage:\n"));
        shop.deploy().expect_success();
        let states: Vec<_> = (0..5)
            .map(|_| {
                shop.aramb("deploy status --service api --output json")
                    .json()
            })
            .map(|answer| answer["status"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(states, ["pending", "building", "deploying", end, end]);
        let answer = shop
            .aramb("deploy status --service=api --output=json")
            .json();
        assert_eq!(answer["outputs"]["PUBLIC_URL"], "https://api.aramb.dev");
        assert_eq!(answer["outputs"][inner], "http://api:8080");
    }
}

#[test]
fn a_build_is_told_in_words_or_as_json() {
    let old = Shop::new(Generation::Old);
    let build = "build --name my-app/api-build --tag abc123";
    let built = old.aramb(build);
    assert!(
        built
            .expect_success()
            .stdout
            .ends_with("Successfully built my-app/api-build:abc123\n")
    );
    let without = run(old.command(build).env_remove("BUILDKIT_HOST"), LIMIT);
    without.expect_code(1).expect_stderr("BUILDKIT_HOST");

    let new = Shop::new(Generation::New);
    let built = run(new.command(build).env_remove("BUILDKIT_HOST"), LIMIT);
    let image = &built.expect_success().json()["IMAGE_URL"];
    assert_eq!(image, "registry.aramb.dev/my-app/api-build:abc123");
    let site = "build --name my-app/web --tag a --static-outdir dist";
    old.aramb(site)
        .expect_code(2)
        .expect_stderr("--static-outdir cannot");
    old.aramb("build --static-outdir dist").expect_success();
    new.aramb(site).expect_success();
    for wrong in ["My-App/x --tag a", "my-app/ --tag a", "my-app/x --tag -a"] {
        new.aramb(&format!("build --name {wrong}")).expect_code(1);
    }
}

#[test]
fn what_is_not_in_the_help_is_refused_with_its_usage() {
    let shop = Shop::new(Generation::Old);
    for (arguments, words) in [
        ("", "no command"),
        ("undeploy", "unknown command"),
        ("applications", "unknown command"),
        ("deploy api", "unexpected argument"),
        ("build one two", "unexpected argument"),
        ("deploy status --service", "needs an argument"),
        ("deploy history --limit few", "invalid argument"),
        ("applications get -o json", "--id not set"),
        ("services list", "--application not set"),
        ("build --name a/b", "not set"),
        ("deploy --yes", "pass --deploy-from-toml"),
        ("deploy status --output xml", "invalid argument"),
        ("deploy --yes --yes", "given twice"),
    ] {
        shop.aramb(arguments).expect_code(2).expect_stderr(words);
    }
    shop.aramb("deploy --deploy-from-toml")
        .expect_code(1)
        .expect_stderr("--yes");
    for group in [
        "",
        "deploy",
        "applications",
        "services",
        "build",
        "deploy status",
    ] {
        shop.aramb(&format!("{group} --help")).expect_success();
    }
}

#[test]
fn the_application_and_what_was_deployed_are_told() {
    let shop = Shop::new(Generation::Old);
    let told = shop.aramb("applications get -i app-xyz789 -o json").json();
    assert_eq!(
        (&told["id"], &told["slug"]),
        (&APPLICATION.into(), &SLUG.into())
    );
    shop.aramb("applications get -i other -o json")
        .expect_code(1)
        .expect_stderr("not found");
    shop.aramb("deploy status --service api --output json")
        .expect_code(1)
        .expect_stderr("not found");
    shop.deploy().expect_success();
    let listed = shop.aramb("services list --application app-xyz789 --output json");
    let names: Vec<_> = listed
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].clone())
        .collect();
    assert_eq!(names, ["api", "db"], "a build is not deployed");
    shop.aramb("deploy --deploy-from-toml --yes --services db")
        .expect_success();
    let history = shop.aramb("deploy history --limit 1 --output json").json();
    assert_eq!(history[0]["services"], serde_json::json!(["db"]));
    let in_words = shop.aramb("deploy status --service api");
    assert_eq!(in_words.stdout, "Service: api\nStatus: Pending\n");
    let slug = listed.json()[0]["slug"].as_str().unwrap().to_owned();
    shop.aramb(&format!("deploy status -s {slug}"))
        .expect_success();
    shop.double.knows_slugs_alone();
    shop.aramb("deploy status -s api").expect_code(1);
    shop.aramb(&format!("deploy status -s {slug}"))
        .expect_success();
}

#[test]
fn a_file_that_cannot_be_deployed_is_refused() {
    let shop = Shop::new(Generation::Old);
    for (from, to, words) in [
        ("# a shop", "a shop", "line 1"),
        ("\"db\"", "\"db", "line 18: a text has no end"),
        ("= 100", "= 101", "taken"),
        ("\"api\"", "\"db\"", "taken"),
        ("type = \"postgres\"", "", "has no type"),
        (
            "my-app/api-build:abc123",
            "${101.outputs.IMAGE_URL}",
            "no image",
        ),
        ("services", "others", "no [[services]]"),
    ] {
        fs::write(
            shop.folder.path().join("aramb.toml"),
            SHOP.replace(from, to),
        )
        .unwrap();
        shop.deploy().expect_code(1).expect_stderr(words);
    }
    shop.double.resolves_images();
    let text = SHOP.replace("my-app/api-build:abc123", "${101.outputs.IMAGE_URL}");
    fs::write(shop.folder.path().join("aramb.toml"), text).unwrap();
    shop.deploy().expect_success();
    for names in ["api,other", "api-build"] {
        shop.aramb(&format!(
            "deploy --deploy-from-toml --yes --services {names}"
        ))
        .expect_code(1);
    }
    fs::remove_file(shop.folder.path().join("aramb.toml")).unwrap();
    shop.deploy().expect_code(1).expect_stderr("aramb.toml");
}

#[test]
fn ids_are_written_back_where_that_is_wanted() {
    for text in [SHOP.to_owned(), SHOP.replace('\n', "\r\n")] {
        let shop = Shop::new(Generation::Old);
        shop.double.writes_ids_back();
        fs::write(shop.folder.path().join("aramb.toml"), &text).unwrap();
        shop.deploy().expect_success();
        let written = shop.file();
        let added: Vec<_> = written
            .lines()
            .filter(|line| !text.contains(line))
            .collect();
        let [a, b, c, d] = added[..] else {
            panic!("{written}");
        };
        assert!(a.starts_with("id = \"svc-") && b.starts_with("slug = \"s-"));
        assert!(c.starts_with("id = \"svc-") && d.starts_with("slug = \"s-"));
        assert_eq!(written.contains("\r\n"), text.contains("\r\n"));
        shop.deploy().expect_success();
        assert_eq!(shop.file(), written, "once");
        assert_eq!(
            shop.double.given(),
            [text.into_bytes(), written.into_bytes()]
        );
    }
}

#[test]
fn a_call_is_written_down_with_what_it_was_given() {
    let shop = Shop::new(Generation::Old);
    let mut build = shop.command("build . --name=my-app/api-build --tag abc123");
    run(build.env("DOCKER_REPOSITORY", "my-app/api-build"), LIMIT).expect_success();
    shop.aramb("undeploy").expect_code(2);
    let calls = shop.double.calls();
    let [build, refused] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert_eq!(build.command, "build");
    assert_eq!(build.folder, shop.folder.path().canonicalize().unwrap());
    assert_eq!(build.docker_repository.as_deref(), Some("my-app/api-build"));
    assert_eq!(build.flag("--name"), Some("my-app/api-build"));
    assert_eq!(build.flag("--tag"), Some("abc123"));
    assert!(build.was_given("ARAMB_API_TOKEN") && !build.was_given("OTHER_TOKEN"));
    assert_eq!((build.code, refused.code), (Some(0), Some(2)));
    assert!(build.has(".") && !build.overlaps(refused));
    let record = fs::read_to_string(shop.double.everything().join("record")).unwrap();
    assert!(!record.contains(TOKEN));
    shop.double.forget();
    assert_eq!(shop.double.calls(), []);
}

#[test]
#[should_panic(expected = "the token is among the arguments")]
fn a_token_among_the_arguments_fails_the_test() {
    let shop = Shop::new(Generation::New);
    let finished = shop.aramb(&format!("deploy --from-toml --yes --token={TOKEN}"));
    finished.expect_code(97);
    let _ = shop.double.calls();
}

#[test]
fn calls_side_by_side_are_seen_to_overlap() {
    let shop = Shop::new(Generation::New);
    let gate = shop.double.gate("builds");
    shop.double
        .inject(&Mishap::at("build").always().waits_at(&gate));
    let start = |name: &str| {
        Running::start(&mut shop.command(&format!("build --name my-app/{name} --tag a")))
    };
    let running = [start("a"), start("b")];
    let both = || shop.double.calls_of("build").len() == 2;
    assert!(eventually(LIMIT, both));
    shop.double.open(&gate);
    for build in running {
        build.wait(LIMIT).expect_success();
    }
    let calls = shop.double.calls();
    assert!(calls[0].overlaps(&calls[1]));
}

#[test]
fn a_mishap_meets_the_calls_that_it_is_for() {
    let shop = Shop::new(Generation::New);
    let build = |name: &str| shop.aramb(&format!("build --name my-app/{name} --tag a"));
    let second = Mishap::at("build").with("my-app/b").nth(2);
    shop.double
        .inject(&second.complains("no space left\n").exits(3));
    assert_eq!(
        [build("b"), build("a"), build("a")].map(|f| f.code()),
        [0, 0, 0]
    );
    build("b").expect_code(3).expect_stderr("no space left\n");
    build("b").expect_success();
    shop.double.inject(&Mishap::at("*").always().exits(4));
    build("b").expect_code(4);
    shop.double.heal();
    build("b").expect_success();
}

#[test]
fn answers_are_replaced_cut_and_flooded() {
    let shop = Shop::new(Generation::New);
    let get = || shop.aramb("applications get -i app-xyz789 -o json");
    shop.double
        .inject(&Mishap::at("applications get").answers("{\"slug\": null}"));
    assert_eq!(get().expect_success().stdout, "{\"slug\": null}");
    let cut = Mishap::at("applications get").nth(1).cuts_its_answer();
    shop.double.inject(&cut);
    let answer = get().expect_success().stdout.clone();
    assert!(
        answer.starts_with("{\n  \"id\"") && !answer.contains('}'),
        "{answer}"
    );
    let much = Mishap::at("deploy").floods(1 << 20).tells_its_token();
    shop.double.inject(&much);
    let deployed = shop.deploy();
    assert!(deployed.expect_success().stdout.len() > 500_000);
    assert!(deployed.stdout.contains(TOKEN) && deployed.stderr.contains(TOKEN));
}

#[test]
fn it_dies_and_hangs_before_or_behind_its_effect() {
    let shop = Shop::new(Generation::New);
    shop.double
        .inject(&Mishap::at("deploy").dies_by(Signal::SIGKILL));
    shop.deploy().expect_code(137);
    assert_eq!(shop.double.calls()[0].code, None);
    shop.aramb("deploy status --service api").expect_code(1);
    let late = Mishap::at("deploy").behind_the_effect().exits(1);
    shop.double.heal();
    shop.double.inject(&late);
    shop.deploy().expect_code(1);
    shop.aramb("deploy status --service api").expect_success();
    for (mishap, code) in [
        (Mishap::at("--version").hangs(), 143),
        (Mishap::at("--version").hangs_stubbornly(), 137),
    ] {
        shop.double.heal();
        shop.double.forget();
        shop.double.inject(&mishap);
        let running = Running::start(&mut shop.command("--version"));
        assert!(eventually(LIMIT, || shop.double.calls().len() == 1));
        let status = format!("/proc/{}/status", running.pid());
        let ignores_term = || {
            let text = fs::read_to_string(&status).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
            let mask = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
            mask & (1 << (Signal::SIGTERM as u32 - 1)) != 0
        };
        assert!(code == 143 || eventually(LIMIT, ignores_term));
        running.signal(Signal::SIGTERM);
        if code == 137 {
            running.signal(Signal::SIGKILL);
        }
        running.wait(LIMIT).expect_code(code);
    }
}

#[test]
fn what_it_leaves_ends_with_the_test() {
    let shop = Shop::new(Generation::New);
    let mishap = Mishap::at("deploy").leaves_a_child();
    shop.double
        .inject(&mishap.writes_to_the_file("# and more\n"));
    shop.deploy().expect_success();
    assert_eq!(shop.file(), format!("{SHOP}# and more\n"));
    let [child] = shop.double.calls()[0].children[..] else {
        panic!("one child");
    };
    // Its parent is gone, so that nobody may have reaped it: a process without memory has ended.
    let runs = || fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| !line.is_empty());
    // One that has just been started has no arguments for a moment.
    assert!(eventually(LIMIT, runs));
    drop(shop);
    assert!(eventually(LIMIT, || !runs()));
}

#[test]
fn services_fail_and_never_end_as_they_are_told() {
    let shop = Shop::new(Generation::Old);
    shop.double.fails("api", "no capacity");
    shop.double.fails_in_words("db", "disk full");
    shop.deploy().expect_success();
    let status = |service: &str| {
        let flags = "--loop --interval 5 --output json";
        shop.aramb(&format!("deploy status --service {service} {flags}"))
    };
    let told = status("api");
    assert_eq!(told.expect_code(1).json()["error"], "no capacity");
    assert_eq!(
        status("db").expect_code(1).stdout,
        "Service: db\nStatus: Failed\nReason: disk full\n"
    );
    shop.double.goes_through("api", &["deploying", "resting"]);
    shop.double
        .tells("db", &[("PUBLIC_URL", "https://example.com/?a=b")]);
    shop.double.goes_through("db", &["healthy"]);
    shop.deploy().expect_success();
    for expected in ["deploying", "resting", "resting"] {
        let told = shop.aramb("deploy status --service api -o json").json();
        assert_eq!(told["status"], expected);
        assert_eq!(told["outputs"], serde_json::json!({}));
    }
    assert_eq!(
        status("db").json()["outputs"]["PUBLIC_URL"],
        "https://example.com/?a=b"
    );
}

#[test]
fn every_form_of_toml_is_read() {
    let forms = [
        "services = [ { uniqueIdentifier = 1, name = \"a\", type = 'redis' }, # one\n { uniqueIdentifier = '2', name = \"\"\"\nb\"\"\", type = '''redis''' }, ]\n",
        "[[services]]\r\n\"uniqueIdentifier\" = 1_0\r\nname = \"\\u0061\" # type = \"build\"\r\ntype = \"redis\"\r\n[[services]]\r\nuniqueIdentifier = 11\r\nname = \"\"\"\\\r\n   b\"\"\"\r\ntype = \"redis\"\r\nconfiguration.settings.note = \"\"\"a \"\"quoted\"\" ''' text\"\"\"\"\r\n",
    ];
    for form in forms {
        let shop = Shop::new(Generation::Old);
        fs::write(shop.folder.path().join("aramb.toml"), form).unwrap();
        let deployed = shop.deploy();
        let expected = "  a                   redis queued\n  b                   redis queued\n";
        assert!(
            deployed.expect_success().stdout.contains(expected),
            "{deployed}"
        );
    }
}
