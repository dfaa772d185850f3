//! A real PostgreSQL as a service of a release, in a volume: what it was told is there after releases, deaths and rollbacks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use management_api::types::{DeployRequest, Protocol, RollbackRequest, Service};
use serde_json::json;

use crate::cluster::program;
use crate::harness::{Server, get, key, until};
use crate::image::{layer_with, push, registry};
use crate::services::{deploy, env, names, services, succeeds};
use crate::volumes::kill_instance;

const DATA: &str = "/var/lib/postgresql/data";

/// As images of databases have it: made where there is nothing yet.
const START: &str = r#"set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb --no-sync --username=postgres --auth=scram-sha-256 --pwfile=/tmp/password --locale=C --pgdata="$PGDATA"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec postgres -D "$PGDATA" -p "$PORT" -c listen_addresses="$HOST" -c unix_socket_directories= -c shared_buffers=16MB
"#;

/// What `ldd` names.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let words = listed.split_whitespace().filter(|w| w.starts_with('/'));
    words.map(PathBuf::from).collect()
}

/// An image of this machine's PostgreSQL.
fn push_database(server: &Server) {
    let postgres = program("postgres");
    let bin = Path::new(postgres.get_program()).parent().unwrap();
    let home = bin.parent().unwrap();
    let shared = Path::new("/usr/share/postgresql").join(home.file_name().unwrap());
    let layer = layer_with(|archive| {
        let mut needed: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::from("/bin/sh")]);
        needed.extend(["postgres", "initdb"].map(|name| bin.join(name)));
        let modules = fs::read_dir(home.join("lib")).unwrap();
        let modules = modules.map(|module| module.unwrap().path());
        // Nothing here is compiled at run time.
        let is_needed =
            |path: &PathBuf| path.is_file() && !path.to_string_lossy().contains("llvmjit");
        needed.extend(modules.filter(is_needed));
        let programs = ["postgres", "initdb"].map(|name| bin.join(name));
        let linked = programs.iter().map(PathBuf::as_path);
        let linked = linked.chain([Path::new("/bin/sh")]).flat_map(libraries);
        needed.extend(linked.collect::<Vec<_>>());
        for path in needed {
            let name = path.strip_prefix("/").unwrap();
            archive
                .append_file(name, &mut File::open(&path).unwrap())
                .unwrap();
        }
        let name = shared.strip_prefix("/").unwrap();
        archive.append_dir_all(name, &shared).unwrap();
        let mut add = |path: &str, kind: tar::EntryType, mode: u32, text: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(text.len() as u64);
            header.set_uid(1001);
            header.set_gid(1001);
            archive
                .append_data(&mut header, path, text.as_bytes())
                .unwrap();
        };
        let accounts = "root:x:0:0::/:/bin/sh\npostgres:x:1001:1001::/:/bin/sh\n";
        add("etc/passwd", tar::EntryType::Regular, 0o644, accounts);
        add("tmp/", tar::EntryType::Directory, 0o1777, "");
        add("start", tar::EntryType::Regular, 0o644, START);
        add(
            "var/lib/postgresql/data/",
            tar::EntryType::Directory,
            0o700,
            "",
        );
    });
    let about = json!({
        "Entrypoint": ["/bin/sh", "/start"],
        "User": "postgres",
        // Connections are ended, and what is written is whole.
        "StopSignal": "SIGINT",
    });
    let path = format!("{}:/bin", bin.display());
    let data = format!("{DATA}/pg");
    let env = [("PATH", path.as_str()), ("PGDATA", data.as_str())];
    registry(server, "local").push_made("database", &layer, &env, &about);
}

fn shop(server: &Server, version: &str) -> DeployRequest {
    let mut request = server.request("it");
    request.depends_on = names(&["db"]);
    let url = "postgres://postgres:${secrets.DB_PASSWORD}@${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}/postgres";
    request.env = env(&[("VERSION", version), ("URL", url)]);
    let db = Service {
        image: server.image("local", "database"),
        protocol: Some(Protocol::Tcp),
        env: env(&[("VERSION", version)]),
        secrets: env(&[("POSTGRES_PASSWORD", "DB_PASSWORD")]),
        volumes: env(&[("data", DATA)]),
        ..Service::default()
    };
    request.services.insert("db".to_owned(), db);
    request
}

/// Asks the database at the address, and with the password, that the application has; `None` while it does not answer.
fn ask(server: &Server, statement: &str) -> Option<String> {
    let url = get(&format!("{}/env/URL", server.app_url()))?;
    let mut psql = program("psql");
    psql.args([
        "--no-psqlrc",
        "-tA",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        statement,
        &url,
    ]);
    psql.env("PGCONNECT_TIMEOUT", "5");
    let asked = psql.output().unwrap();
    let said = String::from_utf8(asked.stdout).unwrap();
    asked.status.success().then(|| said.trim().to_owned())
}

fn rows(server: &Server) -> String {
    until("the database answers", || {
        ask(
            server,
            "SELECT string_agg(name, ' ' ORDER BY id) FROM orders",
        )
    })
}

fn order(server: &Server, name: &str) {
    let insert = format!("INSERT INTO orders (name) VALUES ('{name}')");
    assert!(ask(server, &insert).is_some());
}

#[test]
pub(crate) fn it_keeps_what_it_was_told() {
    let server = Server::start();
    let secrets = json!({ "secrets": { "DB_PASSWORD": "let-the-shop-in" } });
    let secrets = serde_json::from_value(secrets).unwrap();
    server.client().change_secrets("local", &secrets).unwrap();
    push(&server, "local", "it", &[]);
    push_database(&server);
    let first = succeeds(&server, &shop(&server, "one"));
    let made = ask(
        &server,
        "CREATE TABLE orders (id serial PRIMARY KEY, name text)",
    );
    assert!(made.is_some());
    order(&server, "first");
    // Another release of the database.
    succeeds(&server, &shop(&server, "two"));
    order(&server, "second");
    // The end of its instance, as a power cut would have it.
    kill_instance(&server, "db");
    assert_eq!(rows(&server), "first second");
    order(&server, "third");
    // The end of the server.
    let server = server.kill_and_restart();
    assert_eq!(rows(&server), "first second third");
    // A release whose application does not work: the database is back.
    let mut bad = shop(&server, "three");
    bad.env.insert("MODE".to_owned(), "exit".to_owned());
    assert_eq!(deploy(&server, &bad).state, "rolled_back");
    assert_eq!(services(&server)["db"].state, "serving");
    assert_eq!(rows(&server), "first second third");
    // A rollback.
    let back = RollbackRequest {
        to: Some(first.to_string()),
        ..RollbackRequest::default()
    };
    let answer = server.client().rollback("local", &back, &key()).unwrap();
    assert_eq!(server.wait(answer.deployment.unwrap()).state, "succeeded");
    order(&server, "fourth");
    assert_eq!(rows(&server), "first second third fourth");
}
