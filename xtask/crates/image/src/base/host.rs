//! The base `host`: what programs need to run, taken from the machine they were linked on.
//!
//! A program then runs against exactly the C library it was linked with, and nothing is fetched.
//! Only what is needed is taken: the loader, the libraries of the programs, certificates, and the
//! few files that name lookup reads.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::closure::{self, ClosureError, Program};
use crate::cache::Cache;
use crate::files::{Content, FileStat, Kind, Node, Owner};
use crate::owners::Accounts;

/// Opened by glibc when it looks up users and hosts; newer versions have them built in.
const NAME_LOOKUP: [&str; 3] = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"];

/// Where distributions keep the certificates of public authorities, most common first.
const CERTIFICATES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Directories of every system and the mode they have there.
const DIRECTORIES: [(&str, u32); 20] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("lib", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/local", 0o755),
    ("usr/sbin", 0o755),
    ("usr/share", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/tmp", 0o1777),
];

/// Why the base cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Libraries are missing or of the wrong kind.
    #[error(transparent)]
    Closure(#[from] ClosureError),
    /// A file of this machine cannot be looked at.
    #[error("cannot look at {path}")]
    Look {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// The files of the base, by their path in the image.
pub(crate) type Nodes = BTreeMap<PathBuf, Node>;

/// Gathers the base for `programs`. `accounts` become its users.
pub(crate) fn gather(
    programs: &[Program],
    accounts: &Accounts,
    cache: &mut Cache,
) -> Result<Nodes, HostError> {
    let mut nodes = Nodes::new();
    for (path, mode) in DIRECTORIES {
        directory(&mut nodes, Path::new(path), mode)?;
    }
    let closure = closure::find(programs, &NAME_LOOKUP, cache)?;
    for loader in &closure.loaders {
        take(&mut nodes, loader)?;
    }
    for (in_image, here) in &closure.libraries {
        library(&mut nodes, in_image, here, closure.system_folder.as_deref())?;
    }
    settings(&mut nodes, accounts);
    for optional in ["/etc/os-release", "/usr/lib/os-release"] {
        if Path::new(optional).is_file() {
            take(&mut nodes, Path::new(optional))?;
        }
    }
    certificates(&mut nodes)?;
    Ok(nodes)
}

/// Users of the base: `root`, `nobody`, and the user that the image runs as.
pub(crate) fn accounts(user: Option<&str>) -> Accounts {
    let mut accounts = Accounts {
        passwd: "root:x:0:0:root:/root:/sbin/nologin\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
            .into(),
        group: "root:x:0:\nnogroup:x:65534:\n".into(),
    };
    let user = user.unwrap_or_default();
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    if let Ok(number) = user.parse::<u32>() {
        let group = group.parse().unwrap_or(number);
        add_numbered(&mut accounts, number, group);
    } else if !user.is_empty() {
        // A named user of the image that the Dockerfile starts from: many exist on every system.
        add_named(&mut accounts, user, group);
    }
    accounts
}

fn add_numbered(accounts: &mut Accounts, user: u32, group: u32) {
    if !matches!(user, 0 | 65534) {
        let entry = format!("app:x:{user}:{group}:app:/nonexistent:/sbin/nologin\n");
        accounts.passwd.push_str(&entry);
    }
    if !matches!(group, 0 | 65534) {
        let entry = format!("app:x:{group}:\n");
        accounts.group.push_str(&entry);
    }
}

fn add_named(accounts: &mut Accounts, user: &str, group: &str) {
    let line = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text
            .lines()
            .find(|line| line.split(':').next() == Some(name));
        found.map(|line| format!("{line}\n")).unwrap_or_default()
    };
    if accounts.owner(user).is_err() {
        accounts.passwd += &line("/etc/passwd", user);
    }
    for name in [user, group] {
        if !name.is_empty() && !accounts.group.contains(&format!("{name}:x:")) {
            accounts.group += &line("/etc/group", name);
        }
    }
}

fn settings(nodes: &mut Nodes, accounts: &Accounts) {
    text(nodes, "etc/passwd", &accounts.passwd);
    text(nodes, "etc/group", &accounts.group);
    text(
        nodes,
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    );
}

fn text(nodes: &mut Nodes, path: &str, text: &str) {
    let kind = Kind::File {
        content: Content::Inline(text.as_bytes().into()),
        artifact: None,
    };
    nodes.insert(
        path.into(),
        Node {
            kind,
            mode: 0o644,
            owner: Owner::default(),
        },
    );
}

/// A directory of the standard set; a link where this machine has a link, `/bin` for instance.
fn directory(nodes: &mut Nodes, path: &Path, mode: u32) -> Result<(), HostError> {
    let here = Path::new("/").join(path);
    if here.is_symlink() && here.is_dir() {
        return take(nodes, &here);
    }
    let node = Node {
        mode,
        ..Node::directory(Owner::default())
    };
    nodes.insert(path.to_owned(), node);
    Ok(())
}

/// Takes a library to where the programs of the image look for it.
fn library(
    nodes: &mut Nodes,
    in_image: &Path,
    here: &Path,
    system: Option<&Path>,
) -> Result<(), HostError> {
    if in_image != here {
        return place(nodes, in_image, here);
    }
    take(nodes, here)?;
    // The image has no loader cache: a library from a configured folder such as /usr/local/lib is
    // found through a link in a folder that the loader knows by itself.
    let (Some(system), Some(name)) = (system, here.file_name()) else {
        return Ok(());
    };
    let known = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];
    let folder = here.parent().unwrap_or(system);
    let same = fs::canonicalize(folder).ok() == fs::canonicalize(system).ok();
    if same || known.iter().any(|known| folder == Path::new(known)) {
        return Ok(());
    }
    let resolved = fs::canonicalize(system).unwrap_or_else(|_| system.to_owned());
    let link = crate::paths::below_root(&resolved.join(name));
    let node = Node {
        kind: Kind::Symlink(here.to_owned()),
        mode: 0o777,
        owner: Owner::default(),
    };
    nodes.entry(link).or_insert(node);
    Ok(())
}

/// Takes the file at an absolute path of this machine to the same path, with every link that leads
/// there and every directory on the way.
fn take(nodes: &mut Nodes, path: &Path) -> Result<(), HostError> {
    let host = super::HostFiles;
    for (path, node) in super::trace(&host, path)? {
        nodes.entry(path).or_insert(node);
    }
    Ok(())
}

/// Takes the content of `here` to another path.
fn place(nodes: &mut Nodes, in_image: &Path, here: &Path) -> Result<(), HostError> {
    let look = |source| HostError::Look {
        path: here.to_owned(),
        source,
    };
    let real = fs::canonicalize(here).map_err(look)?;
    let stat = FileStat::from(&fs::metadata(&real).map_err(look)?);
    let kind = Kind::File {
        content: Content::Disk { path: real, stat },
        artifact: None,
    };
    let target = crate::paths::below_root(in_image);
    add_parents(nodes, &target);
    nodes.insert(
        target,
        Node {
            kind,
            mode: 0o644,
            owner: Owner::default(),
        },
    );
    Ok(())
}

/// The authorities' certificates, at the path that most programs look at.
fn certificates(nodes: &mut Nodes) -> Result<(), HostError> {
    let own = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = own
        .into_iter()
        .chain(CERTIFICATES.iter().map(PathBuf::from));
    let Some(file) = known.into_iter().find(|path| path.is_file()) else {
        return Ok(());
    };
    place(nodes, Path::new(CERTIFICATES[0]), &file)?;
    let link = |target: &str| Node {
        kind: Kind::Symlink(target.into()),
        mode: 0o777,
        owner: Owner::default(),
    };
    nodes
        .entry("etc/ssl/cert.pem".into())
        .or_insert(link("certs/ca-certificates.crt"));
    Ok(())
}

/// Makes the directories on the way to `path` that nothing has made.
pub(crate) fn add_parents(nodes: &mut Nodes, path: &Path) {
    for parent in path
        .ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        nodes
            .entry(parent.to_owned())
            .or_insert_with(|| Node::directory(Owner::default()));
    }
}
