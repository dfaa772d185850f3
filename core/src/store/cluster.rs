//! A real PostgreSQL for one test: a cluster of its own, with a socket and a port, gone with the value.
//!
//! What `initdb` makes is kept in the target folder and copied. The database refuses to run as root: there it runs as the
//! user that Debian's package makes for it.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PASSWORD: &str = "let-the-tests-in";
/// For its start.
const BOUND: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(20);
const INSTALL: &str = "PostgreSQL is missing: cargo xtask test --setup";

/// A running cluster, of which the test has the only one.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    encrypted: bool,
    child: Option<Child>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let mut cluster = Self::made();
        cluster.run();
        cluster
    }

    /// The same with a certificate, and its key.
    pub(crate) fn start_encrypted(certificate: &Path, key: &Path) -> Self {
        let mut cluster = Self::made();
        for (from, name) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = cluster.data().join(name);
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
            own(&to);
        }
        cluster.encrypted = true;
        cluster.run();
        cluster
    }

    fn made() -> Self {
        // Below a folder that only root may enter, its user would find nothing.
        let folder = tempfile::Builder::new()
            .prefix("pg")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        own(folder.path());
        copy(&template(), &folder.path().join("data"));
        Self {
            folder,
            port: 0,
            encrypted: false,
            child: None,
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it, on another port where the one that was free a moment ago is taken.
    pub(crate) fn run(&mut self) {
        for _ in 0..5 {
            if self.port == 0 {
                let free = TcpListener::bind("127.0.0.1:0").unwrap();
                self.port = free.local_addr().unwrap().port();
            }
            // A child, so that whoever ends the test with all it has started ends this too.
            let mut child = self.command().spawn().expect(INSTALL);
            if self.is_ready(&mut child) {
                self.child = Some(child);
                return;
            }
            self.port = 0;
        }
        let log = fs::read_to_string(self.folder.path().join("log"));
        panic!("PostgreSQL does not start: {}", log.unwrap_or_default());
    }

    fn command(&self) -> Command {
        let log = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = program("postgres");
        command.arg("-D").arg(self.data());
        command.arg("-k").arg(self.folder.path());
        command.args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1,127.0.0.2",
            if self.encrypted { "ssl=on" } else { "ssl=off" },
            "fsync=off",
            "shared_buffers=16MB",
            "max_connections=40",
        ] {
            command.args(["-c", setting]);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// Waits until it takes connections; false where it has ended instead.
    fn is_ready(&self, child: &mut Child) -> bool {
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            let mut ask = program("pg_isready");
            ask.arg("-h").arg(self.folder.path());
            ask.args(["-p", &self.port.to_string()]);
            if ask.output().expect(INSTALL).status.success() {
                return true;
            }
            assert!(begun.elapsed() < BOUND, "PostgreSQL does not begin");
            std::thread::sleep(LOOK);
        }
        false
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // The signal for an end without further ado, which leaves nothing of it in the system.
        let mut kill = Command::new("kill");
        kill.args(["-s", "QUIT", &child.id().to_string()]);
        done(&kill.output().unwrap());
        child.wait().unwrap();
    }

    /// Where it is, through its socket.
    pub(crate) fn url(&self) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!(
            "postgresql://postgres:{PASSWORD}@{socket}:{}/postgres",
            self.port
        )
    }

    /// Where it is, through the network.
    pub(crate) fn tcp_url(&self, host: &str) -> String {
        format!(
            "postgresql://postgres:{PASSWORD}@{host}:{}/postgres",
            self.port
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What `initdb` made once.
fn template() -> PathBuf {
    let target = std::env::current_exe().unwrap();
    let target = target.ancestors().find(|folder| folder.ends_with("deps"));
    let target = target.and_then(Path::parent);
    let target = target.expect("tests are built into a folder of cargo");
    let mut initdb = program("initdb");
    let version = Path::new(initdb.get_program()).ancestors().nth(2);
    let version = version.and_then(Path::file_name).unwrap();
    let (uid, _) = user();
    let template = target.join(format!("test-postgres-{}-{uid}", version.display()));
    let lock = File::create(target.join("test-postgres.lock")).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let folder = tempfile::Builder::new()
            .prefix("pg")
            .tempdir_in("/tmp")
            .unwrap();
        own(folder.path());
        let mut password = tempfile::NamedTempFile::new_in("/tmp").unwrap();
        password.write_all(PASSWORD.as_bytes()).unwrap();
        own(password.path());
        let made = folder.path().join("data");
        initdb.args([
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--username=postgres",
        ]);
        initdb
            .args(["--auth=scram-sha-256", "--pwfile"])
            .arg(password.path());
        initdb.arg("--pgdata").arg(&made);
        done(&initdb.output().expect(INSTALL));
        let part = template.with_extension("part");
        // One that was cut short.
        let _ = fs::remove_dir_all(&part);
        copy(&made, &part);
        fs::rename(&part, &template).unwrap();
    }
    template
}

fn copy(from: &Path, to: &Path) {
    let mut copying = Command::new("cp");
    copying.arg("-a").arg(from).arg(to);
    done(&copying.output().unwrap());
}

fn done(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// A program of the newest version that is installed, as the user who may run it.
pub(crate) fn program(name: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").expect(INSTALL);
    let paths = versions.map(|version| version.unwrap().path().join("bin").join(name));
    let newest = paths.filter(|path| path.exists()).max();
    let mut command = Command::new(newest.expect(INSTALL));
    let (uid, gid) = user();
    command.uid(uid).gid(gid).current_dir("/tmp");
    command
}

/// Whoever runs the tests, but not root.
fn user() -> (u32, u32) {
    let own = fs::metadata("/proc/self").unwrap();
    if own.uid() != 0 {
        return (own.uid(), own.gid());
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<_> = line.expect(INSTALL).split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

fn own(path: &Path) {
    let (uid, gid) = user();
    chown(path, Some(uid), Some(gid)).unwrap();
}
