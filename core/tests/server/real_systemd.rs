//! The server as a service of the real systemd, with the unit of the guide: nobody who connects is refused between two of them.
//!
//! It is the user's systemd, started for the test alone, which sees a `/run/systemd` of its own: that is how it knows that it
//! is wanted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{BOUND, Server, command, log_file, until};
use crate::image::push;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/self-host.md");
const UNIT: &str = "systemprompt.service";
const MANAGER: &str = "mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system && \
     exec /lib/systemd/systemd --user";
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// A server that systemd keeps running.
struct Service {
    /// Behind the service manager's end, which it knows as its process.
    server: Server,
    folder: tempfile::TempDir,
}

impl Service {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let units = folder.path().join("config/systemd/user");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join(UNIT), unit(&data)).unwrap();
        let runtime = folder.path().join("run");
        fs::create_dir(&runtime).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
        let log = fs::File::create(folder.path().join("manager.log")).unwrap();
        let installed = Path::new("/lib/systemd/systemd").exists();
        assert!(installed, "systemd is missing: cargo xtask test --setup");
        let manager = Command::new("unshare")
            .args(["--mount", "sh", "-c", MANAGER])
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("XDG_CONFIG_HOME", folder.path().join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        until("systemd answers", || {
            runtime.join("systemd/private").exists().then_some(())
        });
        // Until the server says that it is ready.
        systemctl(folder.path(), &["start", UNIT]);
        let server = Server::managed(manager, &data);
        Self { server, folder }
    }

    fn systemctl(&self, words: &[&str]) -> String {
        systemctl(self.folder.path(), words)
    }

    fn show(&self, property: &str) -> String {
        let shown = self.systemctl(&["show", "--value", "--property", property, UNIT]);
        shown.trim().to_owned()
    }

    fn pid(&self) -> u32 {
        self.show("MainPID").parse().unwrap()
    }

    /// How many sockets are kept.
    fn kept(&self, count: &str) {
        // It is told of them, and does not answer.
        until("so many sockets are kept", || {
            (self.show("NFileDescriptorStore") == count).then_some(())
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // With its instances.
        self.systemctl(&["kill", "--kill-whom=main", "--signal=SIGINT", UNIT]);
        until("the server has ended", || {
            (self.show("MainPID") == "0").then_some(())
        });
    }
}

/// What `systemctl --user` says.
fn systemctl(folder: &Path, words: &[&str]) -> String {
    let asked = Command::new("systemctl")
        .arg("--user")
        .args(words)
        .env("XDG_RUNTIME_DIR", folder.join("run"))
        .output()
        .unwrap();
    let log = fs::read_to_string(folder.join("manager.log"));
    assert!(asked.status.success(), "{words:?}: {asked:?}\n{log:?}");
    String::from_utf8(asked.stdout).unwrap()
}

/// The unit of the guide, for the server of a test.
fn unit(data: &Path) -> String {
    let guide = fs::read_to_string(GUIDE).unwrap();
    let (_, rest) = guide.split_once("```ini\n[Unit]").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let text = text.replace("\\\n", "");
    let mut unit = String::from("[Unit]");
    for line in text.lines() {
        if line.starts_with("StateDirectory") {
            // It is below the user's own folder there.
            continue;
        }
        if line.starts_with("ExecStart=") {
            unit.push_str(&started_as(&command(data), data));
        } else {
            unit.push_str(line);
        }
        unit.push('\n');
    }
    unit
}

fn started_as(command: &Command, data: &Path) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words = words.map(|word| format!("\"{}\"", word.to_str().unwrap()));
    let words: Vec<_> = words.collect();
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    let set = set.map(|(name, value)| {
        let (name, value) = (name.to_str().unwrap(), value.to_str().unwrap());
        format!("Environment=\"{name}={value}\"\n")
    });
    let log = log_file(data);
    format!(
        "{}StandardError=append:{}\nExecStart={}",
        set.collect::<String>(),
        log.to_str().unwrap(),
        words.join(" ")
    )
}

/// Asks on a new connection.
fn ask(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let head = format!("GET /version HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("one"), "{answer}");
}

#[test]
fn a_restart_loses_no_request_and_a_crash_refuses_none() {
    let service = Service::start();
    let server = &service.server;
    push(server, "local", "v1", &[("VERSION", "one")]);
    assert_eq!(server.deploy_and_wait("v1").state, "succeeded");
    let address = server.app_url().trim_start_matches("http://").to_owned();
    service.kept("2");
    let (asking, done, count) = (RwLock::new(()), AtomicBool::new(false), AtomicU64::new(0));
    let more = |what: &str| {
        let enough = count.load(Ordering::Relaxed) + 50;
        until(what, || {
            (count.load(Ordering::Relaxed) >= enough).then_some(())
        });
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let asks = asking.read().unwrap();
                    ask(&address);
                    drop(asks);
                    count.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            });
        }
        for _ in 0..3 {
            more("they ask");
            let before = service.pid();
            service.systemctl(&["restart", UNIT]);
            assert_ne!(service.pid(), before);
        }
        more("they ask");
        // What is on its way when a server crashes is lost. What comes then is not.
        let nobody_asks = asking.write().unwrap();
        let before = service.pid();
        service.systemctl(&["kill", "--kill-whom=main", "--signal=SIGKILL", UNIT]);
        drop(nobody_asks);
        ask(&address);
        until("another one runs", || {
            (!["0", &before.to_string()].contains(&&*service.show("MainPID"))).then_some(())
        });
        more("they ask");
        done.store(true, Ordering::Relaxed);
    });
    assert!(service.show("StatusText").starts_with("listens on http://"));
}

#[test]
fn a_socket_goes_with_its_tenant() {
    let service = Service::start();
    let client = service.server.client();
    service.kept("2");
    service.server.create_tenants(&["shop"]);
    service.kept("3");
    let url = client.status("shop").unwrap().app_url.unwrap();
    let address = url.trim_start_matches("http://").to_owned();
    client.delete_tenant("shop").unwrap();
    service.kept("2");
    assert!(TcpStream::connect(&address).is_err());
    // Nor does the next server have what its store does not know any more.
    service.systemctl(&["restart", UNIT]);
    service.kept("2");
    assert!(TcpStream::connect(&address).is_err());
}
