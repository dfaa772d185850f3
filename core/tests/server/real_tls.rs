//! TLS with certificates that OpenSSL has made, and clients that are not ours: curl and openssl.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use management_api::client::{Client, Options};
use secrecy::SecretString;

use crate::harness::{BOUND, Server, key, own_host, until};
use crate::image::Registry;

/// An authority of the test's own, and what it has signed.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Self { folder };
        made.openssl(&[
            "-keyout",
            "authority.key",
            "-out",
            "authority.pem",
            "-subj",
            "/CN=authority",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]);
        made.issue("first");
        made
    }

    /// Puts a certificate for loopback in the place of the one before it.
    fn issue(&self, name: &str) {
        self.openssl(&[
            "-keyout",
            "server.key",
            "-out",
            "server.pem",
            "-CA",
            "authority.pem",
            "-CAkey",
            "authority.key",
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            &format!(
                "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:{}",
                own_host()
            ),
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
    }

    fn openssl(&self, words: &[&str]) {
        let mut command = Command::new("openssl");
        command
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-days", "2"])
            .args(words)
            .current_dir(self.folder.path());
        let output = run(&mut command, "openssl");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self) -> [String; 4] {
        let path = |name: &str| self.file(name).display().to_string();
        [
            "--tls-certificate".to_owned(),
            path("server.pem"),
            "--tls-key".to_owned(),
            path("server.key"),
        ]
    }

    fn server(&self) -> Server {
        let arguments = self.arguments();
        let arguments = arguments.each_ref().map(String::as_str);
        Server::start_as(&arguments, "")
    }

    /// Our own client, which believes the authority.
    fn client(&self, server: &Server) -> Client {
        let mut options = Options::new(&server.url, SecretString::from(server.token()));
        options.further_certificates = vec![self.file("authority.pem")];
        Client::new(options).unwrap()
    }

    fn curl(&self, words: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "60",
                "--noproxy",
                "*",
            ])
            .arg("--cacert")
            .arg(self.file("authority.pem"))
            .args(words);
        run(&mut command, "curl")
    }

    fn get(&self, words: &[&str]) -> String {
        let output = self.curl(words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

fn run(command: &mut Command, name: &str) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|_| panic!("{name} is missing: run `cargo xtask test --setup`"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whom the certificate that is shown at `host` names.
fn shown(host: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", host, "-showcerts"]);
    let output = run(&mut command, "openssl");
    let text = text(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("subject="));
    line.unwrap_or_else(|| panic!("no certificate: {text}"))
        .to_owned()
}

#[test]
fn the_api_the_registry_and_the_tenants_speak_tls_to_everybody() {
    let certificates = Certificates::new();
    let server = certificates.server();
    assert!(
        server.url.starts_with(&format!("https://{}:", own_host())),
        "{}",
        server.url
    );
    let client = certificates.client(&server);
    let registry = Registry {
        agent: client_agent(&certificates.file("authority.pem")),
        scheme: "https",
        token: client.registry_token("local").unwrap(),
    };
    registry.push("v1", &[("VERSION", "one")]);
    let answer = client
        .deploy("local", &server.request("v1"), &key(), false)
        .unwrap();
    let number = answer.deployment.unwrap();
    until("the deployment ends", || {
        let deployment = client.deployment("local", number).unwrap();
        let ended = management_api::types::is_final(&deployment.state);
        ended.then(|| assert_eq!(deployment.state, "succeeded", "{deployment:?}"))
    });
    let url = client.status("local").unwrap().app_url.unwrap();
    assert!(url.starts_with("https://"), "{url}");
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let format = "%{http_version} %{scheme}";
        for page in [format!("{}/healthz", server.url), format!("{url}/version")] {
            let said = certificates.get(&[protocol, "-o", "/dev/null", "-w", format, &page]);
            assert_eq!(said.to_lowercase(), format!("{version} https"), "{page}");
        }
        let proto = certificates.get(&[protocol, &format!("{url}/header/x-forwarded-proto")]);
        assert_eq!(proto, "https");
        // What leaves HTTP goes through as well.
        assert_eq!(echoed(url.trim_start_matches("https://")), "hello\n");
        // The realm is where the client comes from, also where the host is no header.
        let challenge = certificates.get(&[
            protocol,
            "-D",
            "-",
            "-o",
            "/dev/null",
            &format!("{}/v2/", server.url),
        ]);
        assert!(
            challenge.contains(&format!("realm=\"{}/token\"", server.url)),
            "{challenge}"
        );
    }
    // Whoever does not know the authority, or speaks no TLS, gets nothing.
    let mut stranger = Command::new("curl");
    stranger.args(["--silent", "--max-time", "60", &server.url]);
    assert_eq!(run(&mut stranger, "curl").status.code(), Some(60));
    let plain = certificates.curl(&[&server.url.replace("https:", "http:")]);
    assert!(!plain.status.success());
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(
            handshake(server.host(), &[version]).status.success(),
            "{version}"
        );
    }
    let old = handshake(server.host(), &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(!old.status.success());
    let healthy = Command::new(env!("CARGO_BIN_EXE_systemprompt"))
        .args(["healthcheck", "--url", &server.url, "--tls-certificate"])
        .arg(certificates.file("server.pem"))
        .output()
        .unwrap();
    assert!(healthy.status.success(), "{}", text(&healthy.stderr));
}

/// What comes back of a line on a connection that has changed its protocol.
fn echoed(host: &str) -> String {
    let mut child = Command::new("timeout")
        .args(["60", "openssl", "s_client", "-quiet", "-connect", host])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let request = "GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    input.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 && line != "\r\n" {
        line.clear();
    }
    input.write_all(b"hello\n").unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    // It hands the signal on to the other.
    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    child.wait().unwrap();
    line
}

fn handshake(host: &str, words: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", host]).args(words);
    run(&mut command, "openssl")
}

/// An HTTP client that believes this authority.
fn client_agent(authority: &Path) -> ureq::Agent {
    use ureq::tls::{Certificate, RootCerts, TlsConfig};
    let pem = fs::read(authority).unwrap();
    let root = Certificate::from_pem(&pem).unwrap();
    let roots = RootCerts::new_with_certs(&[root]);
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(BOUND))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build()
        .new_agent()
}

#[test]
fn a_certificate_is_read_again_when_it_changes_and_kept_when_the_new_one_is_broken() {
    let certificates = Certificates::new();
    let server = certificates.server();
    let app = certificates
        .client(&server)
        .status("local")
        .unwrap()
        .app_url
        .unwrap();
    let app = app.trim_start_matches("https://").to_owned();
    let hosts = [server.host(), app.as_str()];
    let both = |name: &str| hosts.iter().all(|host| shown(host).contains(name));
    assert!(both("first"));
    // Noticed by itself.
    certificates.issue("second");
    until("the second is shown", || both("second").then_some(()));
    // A key that is another certificate's, and no certificate at all: the one before is shown on.
    let key_file = certificates.file("server.key");
    fs::copy(certificates.file("authority.key"), &key_file).unwrap();
    let log = |count: usize| {
        let warnings = server.log().matches("cannot be used").count();
        (warnings >= count).then_some(())
    };
    server.send("HUP");
    until("the wrong key is refused", || log(1));
    assert!(both("second"));
    fs::write(certificates.file("server.pem"), "nothing").unwrap();
    server.send("HUP");
    until("the broken certificate is refused", || log(2));
    assert!(both("second"));
    assert!(!server.log().contains("PRIVATE KEY"));
    certificates.issue("third");
    server.send("HUP");
    until("the third is shown", || both("third").then_some(()));
}

#[test]
fn a_client_that_does_not_agree_on_tls_is_let_go() {
    let certificates = Certificates::new();
    let server = certificates.server();
    let app = certificates
        .client(&server)
        .status("local")
        .unwrap()
        .app_url
        .unwrap();
    for host in [server.host(), app.trim_start_matches("https://")] {
        let started = Instant::now();
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(started.elapsed() > Duration::from_secs(5));
    }
}

#[test]
fn the_settings_name_a_certificate_and_the_command_line_another() {
    let set = Certificates::new();
    let path = |name: &str| set.file(name).display().to_string();
    let settings = format!(
        "[tls]\ncertificate = {:?}\nkey = {:?}\n",
        path("server.pem"),
        path("server.key")
    );
    let server = Server::start_as(&["--listen", "0.0.0.0:0"], &settings);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("platform.toml"), &settings).unwrap();
    let healthy = Command::new(env!("CARGO_BIN_EXE_systemprompt"))
        .args(["healthcheck", "--url"])
        .arg(format!("https://127.0.0.1:{}", port(&server)))
        .arg("--services")
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(healthy.status.success(), "{}", text(&healthy.stderr));
    assert!(shown(&format!("127.0.0.1:{}", port(&server))).contains("first"));
    assert!(!server.log().contains("may read this key"));
    let named = Certificates::new();
    named.issue("named");
    let everybody = fs::Permissions::from_mode(0o644);
    fs::set_permissions(named.file("server.key"), everybody).unwrap();
    let arguments = named.arguments();
    let server = Server::start_as(&arguments.each_ref().map(String::as_str), &settings);
    assert!(shown(server.host()).contains("named"));
    assert!(
        server
            .log()
            .contains("every user of this machine may read this key")
    );
}

fn port(server: &Server) -> &str {
    server.host().rsplit(':').next().unwrap()
}
