//! Starting, asking, killing and reaping the server.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use management_api::client::{Client, Options};
use management_api::types::{
    DeployAnswer, DeployRequest, Deployment, HealthCheck, IssuedToken, NewTenant, NewToken, Probe,
    Role, is_final,
};
use secrecy::SecretString;
use serde_json::Value;

use crate::database;
use crate::engine::Engine;

/// For everything that is waited for; generous, because machines that test are busy.
pub(crate) const BOUND: Duration = Duration::from_mins(1);
/// Between two looks at what is waited for: a part of the time that it takes already, so that neither the looks nor the pauses
/// are much of it.
const PART: u32 = 16;
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A running server, ended with its tests.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    token: String,
    /// `None` when the folder belongs to somebody else.
    folder: Option<tempfile::TempDir>,
    data: PathBuf,
    engine: Engine,
}

impl Server {
    /// A server with a new data folder.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with more in the section `[rollout]` of its settings, or behind it; `[engine]` comes last.
    pub(crate) fn start_with(settings: &str) -> Self {
        Self::start_as(&[], settings)
    }

    /// The same, with more arguments too.
    pub(crate) fn start_as(arguments: &[&str], settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        write_settings(&data, settings);
        let mut command = command(&data);
        command.args(arguments);
        let mut server = Self::spawn(command, &data);
        server.folder = Some(folder);
        server
    }

    /// A server with a new data folder, whose log the disk does not take.
    pub(crate) fn start_on_a_full_disk() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut command = command(&data);
        command.stderr(full_disk());
        let mut server = Self::spawn(command, &data);
        server.folder = Some(folder);
        server
    }

    /// A server with a new data folder at an address of its own, as on another machine.
    pub(crate) fn start_at(host: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        write_settings(&data, settings);
        let mut command = command(&data);
        command.env("HOST", host);
        let mut server = Self::spawn(command, &data);
        server.folder = Some(folder);
        server
    }

    /// The same server once more, after its end.
    pub(crate) fn start_again(&mut self, host: &str) {
        self.start_again_with(host, &[]);
    }

    /// The same, with more in its environment.
    pub(crate) fn start_again_with(&mut self, host: &str, env: &[(&str, &str)]) {
        self.kill();
        let mut command = command(&self.data);
        command.env("HOST", host).envs(env.iter().copied());
        let again = Self::spawn(command, &self.data);
        let ended = std::mem::replace(self, again);
        // What is left of it is this one's.
        self.folder = ended.into_folder();
    }

    fn into_folder(mut self) -> Option<tempfile::TempDir> {
        self.folder.take()
    }

    /// A server with a new data folder, whose instances are not kept apart from the machine.
    pub(crate) fn start_without_isolation() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut command = command(&data);
        command.args(["--isolation", "off"]);
        let mut server = Self::spawn(command, &data);
        server.folder = Some(folder);
        server
    }

    /// A server on a folder that may have been another's.
    pub(crate) fn start_in(data: &Path) -> Self {
        Self::spawn(command(data), data)
    }

    fn spawn(mut command: Command, data: &Path) -> Self {
        let child = command.spawn().unwrap();
        let pid = u64::from(child.id());
        Self::announced(child, data, |announced| announced["pid"] == pid)
    }

    /// One that a service manager starts, which ends with it.
    pub(crate) fn managed(manager: Child, data: &Path) -> Self {
        Self::announced(manager, data, |_| true)
    }

    fn announced(child: Child, data: &Path, is_it: impl Fn(&Value) -> bool) -> Self {
        let mut server = Self {
            child,
            url: String::new(),
            token: String::new(),
            folder: None,
            data: data.to_owned(),
            engine: Engine::current(),
        };
        let announced = until("the server announces itself", || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {}", server.log());
            let text = fs::read_to_string(data.join("server.json")).ok()?;
            let announced: Value = serde_json::from_str(&text).unwrap();
            is_it(&announced).then_some(announced)
        });
        announced["url"]
            .as_str()
            .unwrap()
            .clone_into(&mut server.url);
        server.token = fs::read_to_string(database::shared(data).join("token")).unwrap();
        server
    }

    /// Kills the server as a power cut would, and starts another on its folder.
    pub(crate) fn kill_and_restart(mut self) -> Self {
        self.kill();
        let folder = self.folder.take();
        let mut server = Self::start_in(&self.data);
        server.folder = folder;
        server
    }

    /// Starts another server on the folder of one that has ended.
    pub(crate) fn restart_with(mut self, env: &[(&str, &str)]) -> Self {
        self.kill();
        let folder = self.folder.take();
        let mut command = command(&self.data);
        command.envs(env.iter().copied());
        let mut server = Self::spawn(command, &self.data);
        server.folder = folder;
        server
    }

    /// Waits until the server has ended by itself, and not well.
    pub(crate) fn wait_for_death(&mut self) {
        let status = until("the server dies", || self.child.try_wait().unwrap());
        assert!(!status.success(), "{status}");
    }

    /// Whether all of it stands still.
    pub(crate) fn is_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid()));
        let mut tasks = tasks.into_iter().flatten().flatten();
        tasks.all(|task| {
            let stat = fs::read_to_string(task.path().join("stat"));
            // A name may hold anything; the state stands behind the last parenthesis.
            let is = |stat: String| {
                stat.rsplit(')')
                    .next()
                    .is_some_and(|rest| rest.starts_with(" T"))
            };
            stat.is_ok_and(is)
        })
    }

    /// Whether it has ended.
    pub(crate) fn has_died(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended already; then there is nothing to kill and still something to reap.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the end: instances run on.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM")
    }

    /// Sends SIGINT and waits for the end, of the instances too.
    pub(crate) fn interrupt(&mut self) -> ExitStatus {
        self.signal("INT")
    }

    fn signal(&mut self, name: &str) -> ExitStatus {
        self.send(name);
        until("the server ends", || self.child.try_wait().unwrap())
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn send(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// `host:port` of the API and the registry.
    pub(crate) fn host(&self) -> &str {
        let (_, host) = self.url.split_once("://").unwrap();
        host
    }

    /// Makes a token.
    pub(crate) fn issue(&self, role: Role, tenant: Option<&str>) -> IssuedToken {
        let wanted = NewToken {
            name: format!("{role:?}"),
            role,
            tenant: tenant.map(Into::into),
            expires_in: Some(600),
        };
        self.client().create_token(&wanted).unwrap()
    }

    /// Makes tenants.
    pub(crate) fn create_tenants(&self, ids: &[&str]) {
        for id in ids {
            let new = NewTenant {
                id: (*id).to_owned(),
                name: None,
            };
            self.client().create_tenant(&new).unwrap();
        }
    }

    /// What there is of instances, by their ids, each with what tells its program from others.
    pub(crate) fn instances(&self) -> BTreeMap<String, Value> {
        self.engine.instances(&self.data)
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn token(&self) -> &str {
        self.token.trim()
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_file(&self.data)).unwrap_or_default()
    }

    /// A client with the operator's token.
    pub(crate) fn client(&self) -> Client {
        self.client_with(self.token())
    }

    pub(crate) fn client_with(&self, token: &str) -> Client {
        Client::new(Options::new(&self.url, SecretString::from(token))).unwrap()
    }

    /// A client for a server that may be gone.
    fn client_that_tries_once(&self) -> Client {
        let options = Options::new(&self.url, SecretString::from(self.token()));
        Client::new(Options {
            retry_for: Duration::ZERO,
            ..options
        })
        .unwrap()
    }

    /// `registry/tenant:tag`.
    pub(crate) fn image(&self, tenant: &str, tag: &str) -> String {
        format!("{}/{tenant}:{tag}", self.host())
    }

    /// A request for an image of tenant `local`, with health checks that fail soon.
    pub(crate) fn request(&self, tag: &str) -> DeployRequest {
        DeployRequest {
            image: self.image("local", tag),
            health: Some(health()),
            ..DeployRequest::default()
        }
    }

    /// The same for an image that may take as long as it likes until it is healthy.
    pub(crate) fn patient_request(&self, tag: &str) -> DeployRequest {
        DeployRequest {
            health: Some(HealthCheck {
                start_period_ms: 600_000,
                ..health()
            }),
            ..self.request(tag)
        }
    }

    /// Asks for a deployment of tenant `local`.
    pub(crate) fn deploy(&self, request: &DeployRequest) -> DeployAnswer {
        self.client()
            .deploy("local", request, &key(), false)
            .unwrap()
    }

    /// Asks for a deployment of tenant `local`; whether the server has died before that was over.
    pub(crate) fn dies_deploying(&mut self, request: &DeployRequest) -> bool {
        // One that has died is not asked again, for seconds, whether it is back.
        let client = self.client_that_tries_once();
        // It may die before it has answered.
        let asked = client.deploy("local", request, &key(), false);
        let number = asked.ok().and_then(|answer| answer.deployment);
        until("it has died, or is done", || {
            if self.has_died() {
                return Some(true);
            }
            let done = client.deployment("local", number?).ok()?;
            done.finished_at.is_some().then_some(false)
        })
    }

    /// The latest deployment of tenant `local`.
    pub(crate) fn last_deployment(&self) -> Deployment {
        let history = self.client().deployments("local").unwrap();
        history.unwrap().remove(0)
    }

    /// Deploys an image that was pushed and waits for the end.
    pub(crate) fn deploy_and_wait(&self, tag: &str) -> Deployment {
        let answer = self.deploy(&self.request(tag));
        self.wait(answer.deployment.unwrap())
    }

    /// The same with an image that is not healthy in time.
    pub(crate) fn deploy_sick_and_wait(&self, tag: &str) -> Deployment {
        let answer = self.deploy(&DeployRequest {
            health: Some(strict_health()),
            ..self.request(tag)
        });
        self.wait(answer.deployment.unwrap())
    }

    /// Waits for the end of a deployment of tenant `local`.
    pub(crate) fn wait(&self, number: u64) -> Deployment {
        self.wait_for(number, |deployment| is_final(&deployment.state))
    }

    /// Waits until a deployment of tenant `local` is as wanted.
    pub(crate) fn wait_for(
        &self,
        number: u64,
        mut wanted: impl FnMut(&Deployment) -> bool,
    ) -> Deployment {
        let client = self.client();
        until("the deployment is as wanted", || {
            let deployment = client.deployment("local", number).unwrap();
            wanted(&deployment).then_some(deployment)
        })
    }

    /// URL of tenant `local`.
    pub(crate) fn app_url(&self) -> String {
        let status = self.client().status("local").unwrap();
        status.app_url.unwrap()
    }

    /// The version that tenant `local` serves, if it serves.
    pub(crate) fn version(&self) -> Option<String> {
        get(&format!("{}/version", self.app_url()))
    }
}

impl Server {
    /// They would wait for another server. With its guard each goes.
    fn end_instances(&self) {
        if self.folder.is_none() {
            // Another server has taken them over.
            return;
        }
        self.engine.remove_containers(&self.data);
        let mut ending = Vec::new();
        for (id, record) in self.instances() {
            let directory = self.data.join("engine/instances").join(&id);
            let guard = Path::new("/proc").join(record["guard"]["pid"].to_string());
            // The order of a server, after which nothing of it is left, control groups included.
            if let Ok(mut socket) = UnixStream::connect(directory.join("guard.sock")) {
                let _ = socket.write_all(b"{\"order\":\"kill\"}\n");
                ending.push((id, guard, socket));
            }
        }
        for (id, guard, _socket) in ending {
            until(&format!("{id} ends"), || (!guard.exists()).then_some(()));
        }
    }

    /// The overlay of an instance that was killed has a directory that not even its owner may read;
    /// the folder could not be removed with it.
    fn open_closed_directories(&self) {
        if let Some(folder) = &self.folder {
            let mut chmod = Command::new("chmod");
            // Files that go meanwhile are no failure: the removal itself shows what is left.
            let _ = chmod.args(["-R", "u+rwX"]).arg(folder.path()).output();
        }
    }
}

impl Drop for Server {
    #[expect(
        clippy::print_stderr,
        reason = "a test that fails shows what the server had to say"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the server:\n{}", self.log());
        }
        self.kill();
        self.end_instances();
        self.open_closed_directories();
    }
}

/// The command of a server, for tests that expect it to fail as well.
pub(crate) fn command(data: &Path) -> Command {
    let services = data.with_extension("services");
    if !services.exists() {
        write_settings(data, "");
    }
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(log_file(data))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_systemprompt"));
    database::tell(&mut command);
    command
        // The argument of a test comes before these.
        .env("HOST", own_host())
        .env("PORT", "0")
        .args(["serve", "--data"])
        .arg(data)
        .arg("--services")
        .arg(services)
        .env_remove("SYSTEMPROMPT_WEB")
        .env_remove("SYSTEMPROMPT_INSECURE")
        .env_remove("SYSTEMPROMPT_TLS_CERTIFICATE")
        .env_remove("SYSTEMPROMPT_TLS_KEY")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}

/// The address of this test's servers: while one is dead, no other test takes the ports of its tenants.
pub(crate) fn own_host() -> String {
    let pid = std::process::id();
    format!("127.{}.{}.1", 1 + pid / 256 % 254, pid % 256)
}

fn write_settings(data: &Path, rollout: &str) {
    let services = data.with_extension("services");
    fs::create_dir_all(&services).unwrap();
    let (rollout, engine) = rollout.split_once("[engine]").unwrap_or((rollout, ""));
    let engine = Engine::current().settings(engine);
    let settings =
        format!("[rollout]\ndrain_seconds = 5\nstop_grace_seconds = 2\n{rollout}{engine}");
    fs::write(services.join("platform.toml"), settings).unwrap();
}

/// What takes nothing.
pub(crate) fn full_disk() -> fs::File {
    fs::File::options().write(true).open("/dev/full").unwrap()
}

/// The server's log lies beside its folder, so that it survives the folder's next owner.
pub(crate) fn log_file(data: &Path) -> PathBuf {
    data.with_extension("log")
}

/// Checks that pass on a machine that is busy for a while, too.
pub(crate) fn health() -> HealthCheck {
    HealthCheck {
        timeout_ms: 3000,
        start_period_ms: 20_000,
        ..strict_health()
    }
}

/// Checks that fail within two seconds.
pub(crate) fn strict_health() -> HealthCheck {
    HealthCheck {
        probe: Probe {
            path: "/health".to_owned(),
            ..Probe::default()
        },
        interval_ms: 200,
        timeout_ms: 1000,
        start_period_ms: 2000,
        retries: 2,
        liveness: None,
    }
}

/// Looks until there is something, within a bound.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_after(what, look, |waited| {
        (waited / PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    })
}

/// The same where each look lets go on what is waited for.
pub(crate) fn attend<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_after(what, look, |_| SHORTEST_PAUSE)
}

/// `pause` is how long a look waits for the next one, when so long was waited already.
fn until_after<T>(
    what: &str,
    mut look: impl FnMut() -> Option<T>,
    pause: impl Fn(Duration) -> Duration,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = started.elapsed();
        assert!(waited < BOUND, "waited in vain: {what}");
        std::thread::sleep(pause(waited));
    }
}

/// The body of a page that answers 200.
pub(crate) fn get(url: &str) -> Option<String> {
    let mut answer = agent().get(url).call().ok()?;
    let body = answer.body_mut().read_to_string().ok()?;
    (answer.status() == 200).then_some(body)
}

/// An HTTP client that reports statuses instead of failing on them, on a new connection a call.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(BOUND))
        .build()
        .new_agent()
}

/// A key that was not used before.
pub(crate) fn key() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}", std::process::id())
}
