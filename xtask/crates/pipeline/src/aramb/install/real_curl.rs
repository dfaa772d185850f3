use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::http::Response;
use testkit::process::eventually;
use testkit::server::Server;
use testkit::{Fault, Gate, Rule};

use super::*;

const PROGRAM: &str = "#!/bin/sh\necho aramb version 1.1.0\n";
const ASSET: &str = "aramb-linux-amd64";

/// Keeps what it is told.
#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Reporter for Told {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// A release on a server, and a folder to install it to.
struct World {
    server: Server,
    files: Arc<Mutex<BTreeMap<String, Response>>>,
    home: tempfile::TempDir,
    told: Told,
}

impl World {
    /// A release that names the SHA-256 of its program.
    fn new() -> Self {
        let world = Self::without_checksum();
        let line = format!("{}  {ASSET}\n", Digest::of(PROGRAM.as_bytes()).hex());
        world.serves(&format!("{ASSET}.sha256"), 200, line);
        world
    }

    fn without_checksum() -> Self {
        let files: Arc<Mutex<BTreeMap<String, Response>>> = Arc::default();
        let server = Server::start(Box::new({
            let files = Arc::clone(&files);
            move |request| {
                let files = files.lock().unwrap();
                let file = files.get(request.path());
                file.cloned().unwrap_or_else(|| Response::empty(404))
            }
        }));
        let world = Self {
            server,
            files,
            home: tempfile::tempdir().unwrap(),
            told: Told::default(),
        };
        world.serves(ASSET, 200, PROGRAM);
        world
    }

    fn serves(&self, name: &str, status: u16, body: impl Into<Vec<u8>>) {
        let response = Response::new(status, "application/octet-stream", body);
        self.puts(name, response);
    }

    fn puts(&self, name: &str, response: Response) {
        let mut files = self.files.lock().unwrap();
        files.insert(format!("/latest/{name}"), response);
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join(".local/bin")
    }

    fn request(&self) -> Install {
        Install {
            releases: format!("{}/latest/", self.server.url()),
            folders: vec![self.home.path().join("not/there"), self.folder()],
            sha256: None,
            system: ("linux", "x86_64"),
            limits: Limits::default(),
        }
    }

    fn installs(&self, request: &Install) -> Result<Installed, FlowError> {
        install(request, &self.told, &Interrupts::default())
    }

    /// It fails with this code and these words in a line, and nothing has changed.
    #[track_caller]
    fn refuses(&self, request: &Install, code: &str, words: &str) -> FlowError {
        let before = self.there();
        let error = self.installs(request).unwrap_err();
        assert_eq!(
            (error.code, error.step),
            (code, FlowStep::Install),
            "{error:?}"
        );
        let said = format!("{}\n{}", error.message, error.details.join("\n"));
        assert!(said.contains(words), "{words}: {said}");
        assert!(!error.details.is_empty(), "it says what to do: {error:?}");
        assert_eq!(self.there(), before);
        error
    }

    /// All files of the folder.
    fn there(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let files = entries.map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap())
        });
        files.collect()
    }
}

#[test]
fn it_is_installed_when_its_release_names_its_digest() {
    let world = World::new();
    let installed = world.installs(&world.request()).unwrap();
    assert_eq!(installed.path, world.folder().join("aramb"));
    assert_eq!(installed.sha256, Digest::of(PROGRAM.as_bytes()).hex());
    let mode = fs::metadata(&installed.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    let output = Command::new(&installed.path).output().unwrap();
    assert_eq!(output.stdout, b"aramb version 1.1.0\n");
    assert_eq!(world.there().len(), 1, "nothing else is left");
    let told = world.told.0.lock().unwrap();
    let [
        Event::Output(download),
        Event::Output(done),
        Event::Warning(path),
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert!(download.ends_with(ASSET) && done.contains(&installed.sha256));
    assert!(path.contains("is not in PATH"), "{path}");
}

#[test]
fn a_second_one_replaces_the_first() {
    let world = World::new();
    fs::create_dir_all(world.folder()).unwrap();
    fs::write(world.folder().join("aramb"), "of an earlier release").unwrap();
    // As a killed run leaves it, and one that still runs.
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let abandoned = format!(".aramb-{}.part", ended.id());
    fs::write(world.folder().join(&abandoned), "half").unwrap();
    fs::write(world.folder().join(".aramb-1.part"), "half").unwrap();
    let open = fs::File::open(world.folder().join("aramb")).unwrap();
    world.installs(&world.request()).unwrap();
    let names: Vec<_> = world.there().into_keys().collect();
    assert_eq!(names, [".aramb-1.part", "aramb"]);
    assert_eq!(world.there()["aramb"], PROGRAM.as_bytes());
    let before = std::io::read_to_string(open).unwrap();
    assert_eq!(before, "of an earlier release", "whoever runs it keeps it");
}

#[test]
fn a_digest_that_is_given_is_the_one_that_counts() {
    let world = World::without_checksum();
    let hex = Digest::of(PROGRAM.as_bytes()).hex();
    for given in [hex.clone(), hex.to_uppercase(), format!("sha256:{hex}")] {
        let request = Install {
            sha256: Some(given),
            ..world.request()
        };
        world.installs(&request).unwrap();
    }
    let checksum = format!("/latest/{ASSET}.sha256");
    assert_eq!(world.server.count("GET", &checksum), 0);

    let other = Digest::of(b"other").hex();
    let request = Install {
        sha256: Some(other.clone()),
        ..world.request()
    };
    let error = world.refuses(&request, "cli_digest_mismatch", &other);
    assert!(error.details.iter().any(|line| line.ends_with(&hex)));
    let request = Install {
        sha256: Some(hex[1..].to_owned()),
        ..world.request()
    };
    let error = world.refuses(&request, "cli_digest_invalid", "64 hex digits");
    assert_eq!(error.exit, Exit::Usage);
}

#[test]
fn another_program_than_the_release_names_is_not_installed() {
    let world = World::new();
    world.installs(&world.request()).unwrap();
    world.serves(ASSET, 200, "#!/bin/sh\nrm -rf ~\n");
    world.refuses(&world.request(), "cli_digest_mismatch", "its release");
    for (text, code) in [
        ("", "cli_checksum_malformed"),
        ("no digest at all", "cli_checksum_malformed"),
    ] {
        world.serves(&format!("{ASSET}.sha256"), 200, text);
        world.refuses(&world.request(), code, ASSET);
    }
}

#[test]
fn without_anything_to_check_it_against_the_way_on_is_told() {
    let world = World::without_checksum();
    let hex = Digest::of(PROGRAM.as_bytes()).hex();
    let way = format!("cargo xtask deploy --install-cli --cli-sha256 {hex}");
    world.refuses(&world.request(), "cli_unverified", &way);
}

#[test]
fn what_the_server_refuses_or_breaks_off_leaves_nothing() {
    let world = World::new();
    let path = format!("/latest/{ASSET}");
    for (fault, words) in [
        (Fault::Status(404), "answered 404"),
        (Fault::Status(503), "answered 503"),
        (Fault::ResetBeforeAnswer, "curl: "),
        (Fault::ResetDuringAnswer, "curl: "),
        (Fault::HtmlPage(200), "is a page"),
    ] {
        world.server.inject(Rule::on("GET", &path, fault));
        world.refuses(&world.request(), "cli_download_failed", words);
    }
    // A server that stumbles is not one that has no checksum.
    let path = format!("{path}.sha256");
    world
        .server
        .inject(Rule::on("GET", &path, Fault::Status(500)));
    world.refuses(&world.request(), "cli_download_failed", "answered 500");
    let mut request = world.request();
    request.limits.bytes = PROGRAM.len() - 1;
    world.refuses(&request, "cli_download_failed", "longer than 34 bytes");
    world.installs(&world.request()).unwrap();
}

#[test]
fn a_server_that_says_nothing_is_left_by_the_clock_or_the_user() {
    let world = World::new();
    let path = format!("/latest/{ASSET}");
    let gate = Gate::closed(Duration::from_mins(5));
    let slow = Rule::on("GET", &path, Fault::Slow(gate)).always();
    world.server.inject(slow);
    let begun = Instant::now();
    let mut hasty = world.request();
    hasty.limits.stall = Duration::from_secs(1);
    world.refuses(&hasty, "cli_download_failed", "curl: (28)");
    assert!(begun.elapsed() < Duration::from_secs(20));

    let request = world.request();
    let interrupts = Interrupts::default();
    let interrupted = std::thread::scope(|scope| {
        let installing = scope.spawn(|| install(&request, &world.told, &interrupts));
        let asked = || world.server.count("GET", &path) == 2;
        let half_done = || world.there().len() == 1;
        // The record is written when the gate opens: the file is what can be seen.
        assert!(eventually(Duration::from_secs(20), || half_done() || asked()));
        interrupts.raise();
        installing.join().unwrap()
    });
    let error = interrupted.unwrap_err();
    assert_eq!((error.code, error.exit), ("interrupted", Exit::Interrupted));
    assert_eq!(world.there().len(), 0);
    world.server.heal();
}

#[test]
fn redirects_are_followed_and_counted() {
    let world = World::new();
    let to = |name: &str| Response::empty(302).with("Location", format!("/latest/{name}"));
    world.serves("stored", 200, PROGRAM);
    world.puts(ASSET, to("stored"));
    world.installs(&world.request()).unwrap();
    world.puts(ASSET, to(ASSET));
    world.refuses(&world.request(), "cli_download_failed", "curl: (47)");
}

#[test]
fn systems_without_one_are_named() {
    for (system, expected) in [
        (("linux", "x86_64"), Some("aramb-linux-amd64")),
        (("linux", "aarch64"), Some("aramb-linux-arm64")),
        (("macos", "x86_64"), Some("aramb-darwin-amd64")),
        (("macos", "aarch64"), Some("aramb-darwin-arm64")),
        (("windows", "x86_64"), None),
        (("linux", "riscv64"), None),
        (("freebsd", "aarch64"), None),
    ] {
        assert_eq!(asset(system).ok(), expected, "{system:?}");
    }
    let world = World::new();
    let request = Install {
        system: ("linux", "riscv64"),
        ..world.request()
    };
    world.refuses(&request, "cli_unsupported_system", "linux on riscv64");
    assert!(world.server.exchanges().is_empty());
}

#[test]
fn releases_come_over_https_or_from_this_machine() {
    let world = World::new();
    for (address, words) in [
        ("http://example.com/releases", "not https"),
        ("ftp://example.com", "https://"),
        ("file:///etc", "https://"),
        ("https://user:word@example.com", "user or password"),
        ("example.com", "https://"),
    ] {
        let request = Install {
            releases: address.to_owned(),
            ..world.request()
        };
        world.refuses(&request, "cli_releases_url", words);
    }
    for address in [
        RELEASES,
        "https://example.com/",
        "http://127.0.0.1:1",
        "http://[::1]:1",
    ] {
        assert!(releases(address).is_ok(), "{address}");
    }
}

#[test]
fn the_first_folder_that_can_be_written_to_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let [file, there, made] = ["file", "there", "a/b"].map(|name| home.path().join(name));
    fs::write(&file, "").unwrap();
    fs::create_dir(&there).unwrap();
    let found = |folders: &[&PathBuf]| {
        let folders: Vec<_> = folders.iter().copied().cloned().collect();
        place::folder(&folders)
    };
    assert_eq!(found(&[&file, &there, &made]).unwrap(), there);
    assert!(!made.exists());
    assert_eq!(found(&[&file, &made]).unwrap(), made);
    assert!(made.is_dir());
    assert!(found(&[&there, &file]).is_ok() && found(&[&file]).is_err() && found(&[]).is_err());
    let world = World::new();
    for folders in [vec![file], Vec::new()] {
        let request = Install {
            folders,
            ..world.request()
        };
        world.refuses(&request, "cli_install_failed", FOLDER_VARIABLE);
    }
    fs::create_dir_all(world.folder().join("aramb/taken")).unwrap();
    let error = world.installs(&world.request()).unwrap_err();
    assert_eq!(error.code, "cli_install_failed");
    assert_eq!(fs::read_dir(world.folder()).unwrap().count(), 1);
}
