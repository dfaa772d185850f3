//! `cargo xtask deploy --install-cli`, from a release on a server of the test. What is installed is the double.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::aramb::Generation;
use testkit::http::Response;
use testkit::process::{eventually, need_program};
use testkit::server::Server;
use testkit::{Fault, Gate, Rule};

use crate::shop::{FILE, LIMIT, Shop, assert_failed};

/// A shop whose command is not there, and a release that has it.
struct Release {
    shop: Shop,
    server: Server,
    checksum: Arc<Mutex<Option<String>>>,
    program: Vec<u8>,
}

impl Release {
    fn new() -> Self {
        let shop = Shop::new(Generation::Old).watched();
        let file = shop.double.bin().join("aramb");
        let program = fs::read(&file).unwrap();
        fs::remove_file(file).unwrap();
        let checksum: Arc<Mutex<Option<String>>> = Arc::default();
        let server = Server::start(Box::new({
            let (program, checksum) = (program.clone(), Arc::clone(&checksum));
            move |request| {
                let body = match request.path() {
                    path if path == format!("/{}", asset()) => Some(program.clone()),
                    path if path == format!("/{}.sha256", asset()) => {
                        checksum.lock().unwrap().clone().map(String::into_bytes)
                    }
                    _ => None,
                };
                body.map_or_else(
                    || Response::empty(404),
                    |body| Response::new(200, "application/octet-stream", body),
                )
            }
        }));
        Self {
            shop,
            server,
            checksum,
            program,
        }
    }

    fn names(&self, sha256: &str) {
        *self.checksum.lock().unwrap() = Some(format!("{sha256}  {}\n", asset()));
    }

    /// As `sha256sum` has it, which is not what is under test.
    fn sha256(&self) -> String {
        let file = self.shop.home().join("program");
        fs::write(&file, &self.program).unwrap();
        let mut command = std::process::Command::new("sha256sum");
        let sum = testkit::process::run(command.arg(&file), LIMIT);
        fs::remove_file(file).unwrap();
        sum.expect_success()
            .stdout
            .split(' ')
            .next()
            .unwrap()
            .to_owned()
    }

    fn variables(&self) -> [(String, String); 2] {
        let folder = self.folder().to_string_lossy().into_owned();
        [
            ("ARAMB_RELEASES_URL".to_owned(), self.server.url()),
            ("ARAMB_INSTALL_DIR".to_owned(), folder),
        ]
    }

    fn folder(&self) -> PathBuf {
        self.shop.double.bin()
    }

    fn deploy(&self, arguments: &[&str]) -> testkit::Finished {
        let variables = self.variables();
        let variables = variables
            .each_ref()
            .map(|(name, value)| (&**name, &**value));
        self.shop
            .deploy_with(&[&["--install-cli"], arguments].concat(), &variables)
    }

    /// The names of all files of the folder.
    fn there(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

/// The published mapping of what `uname` says.
fn asset() -> String {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("aramb-{system}-{processor}")
}

#[test]
fn what_is_not_there_is_installed_checked_and_deployed_with() {
    let release = Release::new();
    release.names(&release.sha256());
    let told = release.deploy(&[]);
    told.expect_success();
    assert_eq!(release.there(), ["aramb"]);
    let file = release.folder().join("aramb");
    assert_eq!(fs::read(&file).unwrap(), release.program);
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o777,
        0o755
    );
    assert_eq!(release.shop.double.calls_of("deploy").len(), 1);
    // What is there is not fetched again.
    let asked = release.server.exchanges().len();
    release.deploy(&[]).expect_success();
    assert_eq!(release.server.exchanges().len(), asked);
}

#[test]
fn nothing_is_run_before_its_digest_is_right() {
    let release = Release::new();
    let wrong = "0".repeat(64);
    let told = release.deploy(&[]);
    told.expect_code(1)
        .expect_stderr("Step: 0 - Install aramb-cli");
    let sha256 = release.sha256();
    let way = format!("cargo xtask deploy --install-cli --cli-sha256 {sha256}");
    told.expect_stderr(&way);
    release.names(&wrong);
    for arguments in [&[][..], &["--cli-sha256", &wrong]] {
        let told = release.deploy(arguments);
        told.expect_code(1)
            .expect_stderr(&sha256)
            .expect_stderr(&wrong);
    }
    assert_eq!(release.there(), Vec::<String>::new());
    assert_eq!(release.shop.double.calls(), []);
    release.deploy(&["--cli-sha256", &sha256]).expect_success();
}

#[test]
fn errors_are_the_published_ones() {
    let release = Release::new();
    release
        .server
        .inject(Rule::on("GET", "/**", Fault::Status(404)).always());
    let step = "0 - Install aramb-cli";
    let told = release.deploy(&[]);
    let details = assert_failed(&told, "Failed to download aramb-cli", step);
    assert!(
        details.contains(&asset()) && details.contains("404"),
        "{details}"
    );
    release.server.heal();
    release.names(&release.sha256());
    let aramb = release.folder().join("aramb");
    fs::create_dir_all(aramb.join("taken")).unwrap();
    let error = format!("Failed to install aramb-cli to {}", aramb.display());
    assert_failed(&release.deploy(&[]), &error, step);
    assert_eq!(release.there(), ["aramb"]);
}

/// A folder with these programs alone.
fn programs(folder: &Path, names: &[&str]) -> PathBuf {
    let folder = folder.join("programs");
    fs::create_dir(&folder).unwrap();
    for name in names {
        symlink(need_program(name), folder.join(name)).unwrap();
    }
    folder
}

#[test]
fn without_curl_it_is_told_what_to_install() {
    let release = Release::new();
    let programs = programs(&release.shop.home(), &["git"]);
    let folder = release.folder();
    release.shop.finds_programs_in(&[&folder, &programs]);
    let told = release.deploy(&[]);
    let details = assert_failed(
        &told,
        "Failed to download aramb-cli",
        "0 - Install aramb-cli",
    );
    assert!(details.contains("apt-get install curl"), "{details}");
}

#[test]
fn the_users_configuration_of_curl_is_not_heeded() {
    let release = Release::new();
    release.names(&release.sha256());
    let settings = "proxy = \"http://127.0.0.1:1\"\nfail = false\noutput = \"/dev/null\"\n";
    fs::write(release.shop.home().join(".curlrc"), settings).unwrap();
    release.deploy(&[]).expect_success();
}

#[test]
fn ctrl_c_and_kills_leave_nothing_that_stays() {
    let release = Release::new();
    release.names(&release.sha256());
    let path = format!("/{}", asset());
    for (signal, code, left) in [
        (Signal::SIGINT, 130, 0),
        (Signal::SIGTERM, 130, 0),
        (Signal::SIGKILL, 137, 1),
    ] {
        let gate = Gate::closed(Duration::from_mins(1));
        let slow = Rule::on("GET", &path, Fault::Slow(gate)).always();
        release.server.inject(slow);
        let variables = release.variables();
        let variables = variables
            .each_ref()
            .map(|(name, value)| (&**name, &**value));
        let running = release.shop.start(&["--install-cli"], &variables);
        // The file that it is written to.
        assert!(eventually(LIMIT, || release.there().len() == 1));
        running.signal(signal);
        let told = release.shop.keep(running.wait(LIMIT));
        told.expect_code(code);
        assert_eq!(release.there().len(), left, "{signal}: {told}");
        release.server.heal();
    }
    release.deploy(&[]).expect_success();
    assert_eq!(release.there(), ["aramb"]);
    assert_eq!(release.shop.file(), FILE);
}
