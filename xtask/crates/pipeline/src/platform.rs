//! The embedded platform's life: found, started, stopped, reset.
//!
//! Its state is under `.systemprompt/local/`. The server itself writes `server.json` (where it
//! listens) and `token` there; this module writes the address it was first given, so that URLs
//! stay the same over restarts, and keeps a copy of the binary that runs, so that the next build
//! does not pull it away from under it.

mod folder;
mod holder;
mod orphans;
mod process;
mod reset;
mod turn;

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deploy_config::{Settings, project};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use management_api::client::{Client, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci::Store;
use secrecy::SecretString;
use serde::Deserialize;

use folder::FolderId;
use process::Process;
pub use reset::{Kept, Volume, Volumes};

/// The first port that is tried when none was given.
const FIRST_PORT: u16 = 7480;
const LAST_PORT: u16 = 7579;
/// How often another port is tried when one is taken under our hands.
const TRIES: u32 = 5;
/// How long the server may take to answer after its start.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to drain and end after SIGINT: its own limit is a minute.
const STOP_LIMIT: Duration = Duration::from_secs(75);
/// How long the kernel may take to end a process that was killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The embedded platform of a project.
#[derive(Debug, Clone)]
pub struct Platform {
    folder: PathBuf,
}

/// A server that runs.
#[derive(Debug, Clone)]
pub struct Running {
    process: Process,
    /// Where it listens. Servers of before they said it have none.
    address: Option<SocketAddr>,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// Its version.
    pub version: String,
    /// The operator's token.
    pub token: SecretString,
}

impl Running {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid
    }
}

#[derive(Deserialize)]
struct ServerFile {
    pid: i32,
    address: Option<SocketAddr>,
    url: String,
    #[serde(default)]
    version: String,
    start_time_ticks: Option<u64>,
    /// The folder that it was written in. Servers of before they said it have none.
    folder: Option<FolderId>,
    /// Servers of before they said it have none.
    registry_store: Option<StorePlace>,
}

#[derive(Deserialize)]
struct StorePlace {
    path: PathBuf,
    layout: u32,
}

/// What starting takes.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The server's binary.
    pub binary: &'a Path,
    /// Where to listen; the address of last time, else the first free port, when not given.
    pub listen: Option<SocketAddr>,
    /// Whether it may be reached from other machines without TLS.
    pub insecure: bool,
    /// The dashboard's folder, if the project has one.
    pub web: Option<PathBuf>,
    /// The server's configuration, if the project has one.
    pub services: Option<PathBuf>,
}

impl<'a> Start<'a> {
    /// With the project's own dashboard and server configuration, where it has them.
    #[must_use]
    pub fn of_project(settings: &Settings, binary: &'a Path) -> Self {
        let folder = |path: &str| Some(settings.root.join(path)).filter(|folder| folder.is_dir());
        Self {
            binary,
            listen: settings.config.local.listen,
            insecure: settings.config.local.insecure,
            web: folder("core/web/dist"),
            services: folder("services"),
        }
    }
}

impl Platform {
    /// The platform under a `.systemprompt` folder.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self {
            folder: state.join("local"),
        }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the server prints.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// The server that runs and answers, if one does.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        let running = self.announced()?;
        let mut options = Options::new(running.url.clone(), running.token.clone());
        options.connect_timeout = Duration::from_secs(2);
        options.total_timeout = Duration::from_secs(5);
        Client::new(options).ok()?.health().ok()?;
        Some(running)
    }

    /// The failure that a server is which lives and does not answer, for whoever has found none [`running`](Self::running).
    #[must_use]
    pub fn silent(&self, step: Step) -> Option<Failure> {
        let announced = self.announced()?;
        Some(silent(step, announced.process))
    }

    /// What isolates instances on this machine and what does not, in words.
    #[must_use]
    pub fn notes(&self, running: &Running) -> Vec<String> {
        let options = Options::new(running.url.clone(), running.token.clone());
        Client::new(options)
            .and_then(|client| client.capabilities())
            .ok()
            .flatten()
            .map(|capabilities| capabilities.engine.notes)
            .unwrap_or_default()
    }

    /// The store of the server's registry, if it has the layout that this program knows and is ours to write
    /// to. Everything works without it, by way of the registry.
    #[must_use]
    pub fn registry_store(&self) -> Option<Store> {
        let place = self.server_file()?.registry_store?;
        (place.layout == oci::STORE_LAYOUT).then_some(())?;
        let store = Store::existing(place.path)?;
        store.begin().ok()?;
        Some(store)
    }

    fn server_file(&self) -> Option<ServerFile> {
        let text = fs::read_to_string(self.folder.join("server.json")).ok()?;
        let file: ServerFile = serde_json::from_str(&text).ok()?;
        // A copy of the folder tells of the original's server.
        let ours = file.folder.is_none_or(|folder| folder.is(&self.folder));
        ours.then_some(file)
    }

    /// What the server wrote down, whether it still runs or not.
    fn recorded(&self) -> Option<Running> {
        let file = self.server_file()?;
        let token = fs::read_to_string(self.folder.join("token")).ok()?;
        let process = Process {
            pid: file.pid,
            started: file.start_time_ticks,
        };
        Some(Running {
            process,
            address: file.address,
            url: file.url,
            version: file.version,
            token: SecretString::from(token.trim().to_owned()),
        })
    }

    /// What a server says that runs.
    fn announced(&self) -> Option<Running> {
        self.recorded().filter(|running| running.process.is_alive())
    }

    /// The server that works on the folder. Whether it has said where it listens, is about to, or has taken that back and ends, is
    /// told by [`announced`](Self::announced). Within a turn.
    fn server(&self) -> io::Result<Option<Process>> {
        match self.announced() {
            Some(running) => Ok(Some(running.process)),
            None => holder::of(&self.folder),
        }
    }

    /// Starts the server in the background and waits until it answers. One that somebody else has started
    /// meanwhile is as good.
    pub fn start(&self, start: &Start<'_>) -> Result<Running, Failure> {
        let _turn = self
            .turn()
            .map_err(|e| unwritable(format!("cannot lock {}: {e}", self.folder.display())))?;
        self.settle()
            .map_err(|e| unwritable(format!("cannot put volumes back: {e}")))?;
        let mut tries = 0;
        let running = loop {
            if let Some(running) = self.found()? {
                break running;
            }
            let binary = self.keep_binary(start.binary).map_err(|e| {
                let (from, to) = (start.binary.display(), self.folder.display());
                unwritable(format!("cannot copy {from} to {to}: {e}"))
            })?;
            tries += 1;
            let listen = self.address(start.listen)?;
            let child = self.spawn(&binary, listen, start)?;
            match self.await_answer(child) {
                // Between our look at the port and the server's, somebody else may take it.
                Err(_) if start.listen.is_none() && tries < TRIES && is_taken(listen) => {}
                // So may a server take the folder that a run has started which was killed.
                Err(_) if tries < TRIES && matches!(self.server(), Ok(Some(_))) => {}
                other => break other?,
            }
        };
        self.keep_address(&running)?;
        Ok(running)
    }

    /// The server that somebody else has started, once it answers. One that ends is waited for, and then there is none.
    fn found(&self) -> Result<Option<Running>, Failure> {
        let limit = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(running) = self.running() {
                return Ok(Some(running));
            }
            if let Some(failure) = self.silent(Step::Platform) {
                return Err(failure);
            }
            let server = self
                .server()
                .map_err(|e| start_failure(self.unknown_holder(&e)))?;
            match server {
                None => return Ok(None),
                Some(process) if Instant::now() > limit => {
                    return Err(silent(Step::Platform, process));
                }
                Some(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn unknown_holder(&self, error: &io::Error) -> String {
        let lock = self.folder.join(holder::FILE);
        format!("cannot tell whose {} is: {error}", lock.display())
    }

    /// Waits for the turn in a folder that is made where it is missing: whoever had the turn may have removed it.
    fn turn(&self) -> io::Result<File> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.make_folder().and_then(|()| turn::take(&self.folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
                other => return other,
            }
        }
    }

    /// For its owner only: the operator's token is in it.
    fn make_folder(&self) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        project::ignore_all(&self.folder)
    }

    fn spawn(
        &self,
        binary: &Path,
        listen: SocketAddr,
        start: &Start<'_>,
    ) -> Result<Child, Failure> {
        let unlogged =
            |e: io::Error| unwritable(format!("cannot write {}: {e}", self.log().display()));
        let log = self.fresh_log().map_err(unlogged)?;
        let mut command = Command::new(binary);
        command
            .args(["serve", "--data"])
            .arg(&self.folder)
            .args(["--listen", &listen.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(unlogged)?)
            .stderr(log)
            // Its own group: the Ctrl-C that ends us must not end it.
            .process_group(0);
        if start.insecure {
            command.arg("--insecure");
        }
        if let Some(web) = &start.web {
            command.arg("--web").arg(web);
        }
        if let Some(services) = &start.services {
            command.arg("--services").arg(services);
        }
        forget_own_settings(&mut command);
        command.spawn().map_err(|e| {
            failure(
                format!("cannot run {}: {e}", binary.display()),
                "build it again, or name another one: local.server in .systemprompt/deploy.toml",
            )
        })
    }

    fn await_answer(&self, mut child: Child) -> Result<Running, Failure> {
        let pid = i32::try_from(child.id()).unwrap_or(-1);
        let limit = Instant::now() + START_LIMIT;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                let words = self.last_words();
                return Err(start_failure(format!(
                    "the server ended with {status}: {words}"
                )));
            }
            if self
                .recorded()
                .is_some_and(|recorded| recorded.process.pid == pid)
                && let Some(running) = self.running()
            {
                return Ok(running);
            }
            if Instant::now() > limit {
                let _ = child.kill();
                let _ = child.wait();
                return Err(start_failure(format!(
                    "the server did not answer within {} s: {}",
                    START_LIMIT.as_secs(),
                    self.last_words()
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the server and its instances, those too that wait for another server after the end of theirs. Returns
    /// whether anything ran. A start that is under way is waited for, and nobody starts another one meanwhile.
    pub fn stop(&self) -> Result<bool, Failure> {
        if !self.folder.exists() {
            return Ok(false);
        }
        match turn::take(&self.folder) {
            Ok(_turn) => self.end_all(),
            // By a reset, which has ended everything.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(stop_failure(format!(
                "cannot lock {}: {error}",
                self.folder.display()
            ))),
        }
    }

    /// Within a turn.
    fn end_all(&self) -> Result<bool, Failure> {
        let served = self.stop_server()?;
        Ok(orphans::end(&self.folder.join("engine/instances"))? || served)
    }

    fn stop_server(&self) -> Result<bool, Failure> {
        let server = self
            .server()
            .map_err(|e| stop_failure(self.unknown_holder(&e)))?;
        let Some(server) = server else {
            return Ok(false);
        };
        let pid = Pid::from_raw(server.pid);
        // SIGTERM would leave the instances to the next server.
        kill(pid, Signal::SIGINT)
            .map_err(|e| stop_failure(format!("cannot signal process {pid}: {e}")))?;
        if server.ends_within(STOP_LIMIT) {
            return Ok(true);
        }
        // It hangs. Its state outlives a death at any moment, and its instances are ended as orphans.
        let _ = kill(pid, Signal::SIGKILL);
        if server.ends_within(KILL_LIMIT) {
            return Ok(true);
        }
        Err(stop_failure(format!(
            "the server (process {pid}) does not end, not even by SIGKILL"
        )))
    }

    /// Within a turn: nobody else is at it.
    fn keep_binary(&self, binary: &Path) -> io::Result<PathBuf> {
        let folder = self.folder.join("bin");
        fs::create_dir_all(&folder)?;
        let kept = folder.join("systemprompt");
        let coming = folder.join("systemprompt.new");
        fs::copy(binary, &coming)?;
        fs::rename(&coming, &kept)?;
        // An absolute path: the server starts its instances through its own executable.
        kept.canonicalize()
    }

    fn fresh_log(&self) -> io::Result<File> {
        // Adding to it, as all do: nobody leaves a hole where it was emptied.
        let log = File::options().create(true).append(true).open(self.log())?;
        log.set_len(0)?;
        Ok(log)
    }

    fn last_words(&self) -> String {
        let mut text = String::new();
        let read = File::open(self.log()).and_then(|log| log.take(65536).read_to_string(&mut text));
        if read.is_err() {
            return format!("see {}", self.log().display());
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }

    /// The address asked for, else that of last time, else — or when somebody else has taken it —
    /// the first free port.
    fn address(&self, wanted: Option<SocketAddr>) -> Result<SocketAddr, Failure> {
        let kept = self.folder.join("listen");
        let last = fs::read_to_string(&kept).ok();
        let last = last
            .and_then(|text| text.trim().parse::<SocketAddr>().ok())
            .filter(|address| !is_taken(*address));
        wanted.or(last).or_else(first_free_port).ok_or_else(|| {
            failure(
                format!("no port from {FIRST_PORT} to {LAST_PORT} is free"),
                "name a free one: local.listen in .systemprompt/deploy.toml",
            )
        })
    }

    /// Once a server serves there, whoever has started it: so URLs stay the same. What others may reach is asked for by name
    /// each time.
    fn keep_address(&self, running: &Running) -> Result<(), Failure> {
        let Some(address) = running.address.filter(|address| address.ip().is_loopback()) else {
            return Ok(());
        };
        let (kept, text) = (self.folder.join("listen"), address.to_string());
        if fs::read_to_string(&kept).is_ok_and(|noted| noted == text) {
            return Ok(());
        }
        // Not emptied where the disk is full: the next start would take another port.
        deploy_config::replace_file(&kept, text.as_bytes(), 0o644)
            .map_err(|e| unwritable(format!("cannot write {}: {e}", kept.display())))
    }
}

fn is_taken(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err()
}

fn first_free_port() -> Option<SocketAddr> {
    (FIRST_PORT..=LAST_PORT)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| !is_taken(*address))
}

/// The server must not take our settings for its own, nor our token into its environment.
fn forget_own_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("SYSTEMPROMPT_")
            || name_text.starts_with("CARGO")
            || matches!(
                name_text.as_ref(),
                "HOST" | "PORT" | "LD_LIBRARY_PATH" | "DATABASE_URL"
            )
            || name_text == crate::docker_config::VARIABLE
        {
            command.env_remove(&name);
        }
    }
}

fn silent(step: Step, server: Process) -> Failure {
    Failure::new(
        step,
        "platform_silent",
        Exit::Other,
        format!(
            "the platform on this machine (process {}) runs and does not answer",
            server.pid
        ),
        "see .systemprompt/local/server.log; stop it, whatever it does: cargo xtask local down; then run the same command again",
    )
}

fn failure(details: String, resolution: &str) -> Failure {
    Failure::new(
        Step::Platform,
        "platform_start_failed",
        Exit::Other,
        details,
        resolution,
    )
}

/// Something of its folder; what is in there is whole.
fn unwritable(details: String) -> Failure {
    failure(
        details,
        "make room on that disk, or the folder writable, and run the same command again",
    )
}

/// The server has said why it does not start.
fn start_failure(details: String) -> Failure {
    failure(
        details,
        "see to what it says, all of it in .systemprompt/local/server.log; the last resort is `cargo xtask local reset`, which forgets releases and secrets",
    )
}

fn stop_failure(details: String) -> Failure {
    Failure::new(
        Step::Platform,
        "platform_stop_failed",
        Exit::Other,
        details,
        "see .systemprompt/local/server.log",
    )
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn nothing_recorded_is_nothing_running() {
        let state = tempfile::tempdir().unwrap();
        let platform = Platform::of(state.path());
        assert!(platform.running().is_none());
        assert!(!platform.stop().unwrap());
        platform.reset(Volumes::Remove).unwrap();
    }

    #[test]
    fn a_copy_of_the_folder_has_no_server() {
        let state = tempfile::tempdir().unwrap();
        let mut server = Command::new("sleep").arg("600").spawn().unwrap();
        let [ours, copy] = ["ours", "copy"].map(|name| Platform::of(&state.path().join(name)));
        ours.make_folder().unwrap();
        let found = fs::metadata(ours.folder()).unwrap();
        for platform in [&ours, &copy] {
            platform.make_folder().unwrap();
            let announced = serde_json::json!({
                "pid": server.id(),
                "url": "http://127.0.0.1:1",
                "folder": { "device": found.dev(), "inode": found.ino() },
            });
            fs::write(platform.folder().join("server.json"), announced.to_string()).unwrap();
            fs::write(platform.folder().join("token"), "token").unwrap();
        }
        assert!(ours.recorded().is_some() && copy.recorded().is_none());
        copy.reset(Volumes::Remove).unwrap();
        assert!(!copy.folder().exists());
        assert!(server.try_wait().unwrap().is_none(), "it is the original's");
        assert!(ours.stop().unwrap());
        server.wait().unwrap();
    }

    #[test]
    fn a_reset_removes_what_is_closed_to_its_owner() {
        if nix::unistd::geteuid().is_root() {
            // Nothing is closed to root.
            return as_nobody("platform::tests::a_reset_removes_what_is_closed_to_its_owner");
        }
        let state = tempfile::tempdir().unwrap();
        let platform = Platform::of(state.path());
        let work = platform.folder().join("engine/instances/one/work/work");
        let image = platform.folder().join("engine/images/one/rootfs/data");
        for (path, mode) in [(&work, 0o000), (&image, 0o555)] {
            fs::create_dir_all(path).unwrap();
            fs::write(path.join("file"), "").unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        platform.reset(Volumes::Remove).unwrap();
        // And what a reset has left that was killed on its way.
        fs::create_dir_all(state.path().join("local.removed/half")).unwrap();
        platform.reset(Volumes::Remove).unwrap();
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn volumes_that_cannot_be_listed_stay() {
        if nix::unistd::geteuid().is_root() {
            return as_nobody("platform::tests::volumes_that_cannot_be_listed_stay");
        }
        let state = tempfile::tempdir().unwrap();
        let platform = Platform::of(state.path());
        let volumes = platform.folder().join("volumes");
        let rows = volumes.join("shop/data/rows");
        fs::create_dir_all(rows.parent().unwrap()).unwrap();
        fs::write(&rows, "rows").unwrap();
        let mode = |mode| fs::set_permissions(&volumes, Permissions::from_mode(mode)).unwrap();
        mode(0o000);
        let failure = platform.reset(Volumes::Keep).unwrap_err();
        assert!(failure.details.contains("local/volumes"), "{failure}");
        mode(0o700);
        assert_eq!(fs::read_to_string(&rows).unwrap(), "rows");
        platform.reset(Volumes::Keep).unwrap();
        assert_eq!(fs::read_to_string(&rows).unwrap(), "rows");
    }

    /// Runs one of these tests once more, as a user who is not root.
    fn as_nobody(test: &str) {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let program = folder.path().join("tests");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let done = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(program)
            .args(["--exact", test])
            .env("TMPDIR", folder.path())
            .output()
            .unwrap_or_else(|error| panic!("setpriv, of package util-linux: {error}"));
        let printed = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{printed}");
        assert!(printed.contains("1 passed"), "{printed}");
    }

    #[test]
    fn a_server_that_hangs_is_told_from_none() {
        let state = tempfile::tempdir().unwrap();
        let platform = Platform::of(state.path());
        assert!(platform.silent(Step::Inspect).is_none());
        platform.make_folder().unwrap();
        fs::write(platform.folder().join("token"), "t").unwrap();
        // Nobody listens there.
        let record = |pid: u32| {
            let text =
                serde_json::json!({ "pid": pid, "url": "http://127.0.0.1:9", "version": "0" });
            fs::write(platform.folder().join("server.json"), text.to_string()).unwrap();
        };
        record(std::process::id());
        assert!(platform.running().is_none());
        let silent = platform.silent(Step::Inspect).unwrap();
        assert!(
            silent.resolution.contains("cargo xtask local down"),
            "{silent:?}"
        );
        record(u32::MAX >> 1);
        assert!(platform.silent(Step::Inspect).is_none());
    }

    #[test]
    fn the_address_kept_is_replaced_as_a_whole_and_only_by_another() {
        let state = tempfile::tempdir().unwrap();
        let platform = Platform::of(state.path());
        platform.make_folder().unwrap();
        let keep = |port: u16| {
            platform.keep_address(&Running {
                process: Process {
                    pid: 1,
                    started: None,
                },
                address: Some(([127, 0, 0, 1], port).into()),
                url: String::new(),
                version: String::new(),
                token: SecretString::default(),
            })
        };
        let [kept, first] = ["listen", "first"].map(|name| platform.folder().join(name));
        keep(1).unwrap();
        // By its second name the file is seen on when it is replaced.
        fs::hard_link(&kept, &first).unwrap();
        keep(1).unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&kept), inode(&first));
        keep(2).unwrap();
        assert_eq!(fs::read_to_string(&first).unwrap(), "127.0.0.1:1");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "127.0.0.1:2");
    }

    #[test]
    fn a_server_that_ends_at_once_is_told_with_its_words() {
        let state = tempfile::tempdir().unwrap();
        let script = state.path().join("server");
        fs::write(&script, "#!/bin/sh\necho 'no such flag' >&2\nexit 2\n").unwrap();
        let mut mode = fs::metadata(&script).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        fs::set_permissions(&script, mode).unwrap();
        let failure = Platform::of(state.path())
            .start(&Start {
                binary: &script,
                listen: Some(([127, 0, 0, 1], 0).into()),
                insecure: false,
                web: None,
                services: None,
            })
            .unwrap_err();
        assert!(failure.details.contains("no such flag"), "{failure}");
    }
}
