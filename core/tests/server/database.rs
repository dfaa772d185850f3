//! Where the servers and the commands of a test keep their state: in their folders, if nothing else is said.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::Cluster;

/// What a thread's servers are told.
#[derive(Debug, Clone, Default)]
struct Told {
    url: Option<String>,
    shared: Option<PathBuf>,
}

thread_local! {
    static TOLD: RefCell<Told> = RefCell::default();
}

/// Runs a test whose servers have a database of PostgreSQL.
pub(crate) fn with(test: fn()) {
    let cluster = Cluster::start();
    use_database(Some(cluster.url()));
    test();
}

/// Tells the servers and commands that are started from now on.
pub(crate) fn use_database(url: Option<String>) {
    TOLD.with_borrow_mut(|told| told.url = url);
}

/// The same for the folder that servers share.
pub(crate) fn use_shared(shared: Option<&Path>) {
    TOLD.with_borrow_mut(|told| told.shared = shared.map(Path::to_owned));
}

/// The folder of what servers share.
pub(crate) fn shared(data: &Path) -> PathBuf {
    TOLD.with_borrow(|told| told.shared.clone())
        .unwrap_or_else(|| data.to_owned())
}

/// Whatever the environment of the tests says, a program is told this.
pub(crate) fn tell(command: &mut Command) {
    let told = TOLD.with_borrow(Clone::clone);
    for (name, value) in [
        ("DATABASE_URL", told.url.map(Into::into)),
        (
            "SYSTEMPROMPT_SHARED",
            told.shared.map(PathBuf::into_os_string),
        ),
        ("SYSTEMPROMPT_DATABASE_URL_FILE", None),
    ] {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}
