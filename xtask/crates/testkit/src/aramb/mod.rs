//! A double of the `aramb` command, the client of a control plane that has no public HTTP contract.
//!
//! The real command cannot be had where these tests run, and whatever it did there it would do to
//! somebody's account. So **none of this has been compared with the real one**: the double is
//! written from what is published of its commands, and from nothing of the program under test. What
//! is published leaves much open; there the double is as strict as the real one may be:
//!
//! - A flag, a command or an argument that is not in `--help` is refused with 2 and its usage.
//! - `deploy` without `--yes` is refused, since nobody is there to be asked. So are a file that is no
//!   TOML, services with one id or one name, `--services` that names what is not there or a build,
//!   and an image that still refers to a build.
//! - Every command but `--version` and `--help` wants `ARAMB_API_TOKEN`; `build` of the older
//!   generation wants `BUILDKIT_HOST` as well.
//! - An older one builds no static site (`--static-outdir`) with a tag or to a registry.
//! - A service, called by its name, its slug or its id, is unknown before it was deployed. Each look at it (`deploy status`) lets it go on by
//!   one state; what it tells of itself is told when it is well.
//! - A token among the arguments ends the call with 97, and the test when it reads the record.
//!
//! One liberty is taken: with `--loop` it looks every five milliseconds, whatever `--interval` says.
//!
//! Its source is in `apps/aramb`, uses nothing but the standard library and is compiled by `rustc`
//! when it is first needed.

mod compiled;
mod mishap;
mod record;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub use mishap::Mishap;
pub use record::Call;

/// What the double takes for the application's number when a test says nothing else.
pub const APPLICATION: &str = "app-xyz789";
/// What it calls that application.
pub const SLUG: &str = "my-app";

/// There are two kinds of the real command in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// `deploy --deploy-from-toml`, words of a build, `BUILDKIT_HOST`, `INTERNAL_URL`, `healthy`.
    Old,
    /// `deploy --from-toml`, JSON of a build with its `IMAGE_URL`, `PRIVATE_URL`, `completed`.
    New,
}

impl Generation {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Old, Self::New];

    /// The flag with which a deployment goes by `aramb.toml`.
    #[must_use]
    pub fn from_toml(self) -> &'static str {
        match self {
            Self::Old => "--deploy-from-toml",
            Self::New => "--from-toml",
        }
    }
}

/// The command in a folder of its own, with all that it has done and is to do. When this is dropped
/// whatever of it still runs ends by itself.
#[derive(Debug)]
pub struct Double {
    folder: TempDir,
    generation: Generation,
}

impl Double {
    /// A command that does as it should.
    #[must_use]
    pub fn new(generation: Generation) -> Self {
        let double = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            generation,
        };
        compiled::place(&double.bin().join("aramb"));
        double.set(
            "generation",
            match generation {
                Generation::Old => "old",
                Generation::New => "new",
            },
        );
        double.knows_application(APPLICATION, SLUG);
        double
    }

    /// Which of the two it is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The folder that holds the command and nothing else.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    /// All of it: the command, what it was told and its record.
    #[must_use]
    pub fn everything(&self) -> &Path {
        self.folder.path()
    }

    /// `PATH` with the command in front.
    #[must_use]
    pub fn path_variable(&self) -> OsString {
        let others = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.bin()).chain(std::env::split_paths(&others));
        std::env::join_paths(folders).expect("folders without colons")
    }

    /// There is this application, and no other.
    pub fn knows_application(&self, id: &str, slug: &str) {
        self.set("application/id", id);
        self.set("application/slug", slug);
    }

    /// After a deployment the file has an `id` and a `slug` for each service that had none.
    pub fn writes_ids_back(&self) {
        self.set("writes-back", "");
    }

    /// It takes images that refer to builds, as if it knew what was built.
    pub fn resolves_images(&self) {
        self.set("resolves-images", "");
    }

    /// Services are known by their slugs and ids, not by their names: what is published says either.
    pub fn knows_slugs_alone(&self) {
        self.set("knows-slugs-alone", "");
    }

    /// Services are well when they are first looked at.
    pub fn is_quick(&self) {
        self.set("at-once", "");
    }

    /// A service goes through these states, one a look, and stays in the last.
    pub fn goes_through(&self, service: &str, states: &[&str]) {
        self.set_of(service, "states", &states.join("\n"));
    }

    /// A service fails, for this reason.
    pub fn fails(&self, service: &str, reason: &str) {
        self.goes_through(service, &["pending", "deploying", "failed"]);
        self.set_of(service, "reason", reason);
    }

    /// The same, told in words, `Status: Failed`, also where JSON was asked for.
    pub fn fails_in_words(&self, service: &str, reason: &str) {
        self.fails(service, reason);
        self.set_of(service, "fails-in-words", "");
    }

    /// What a service tells of itself, in place of the URLs that are made from its name.
    pub fn tells(&self, service: &str, outputs: &[(&str, &str)]) {
        let lines = outputs
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let lines: Vec<_> = lines.collect();
        self.set_of(service, "outputs", &lines.join("\n"));
    }

    /// Has something go wrong. More than one may happen to a call, in the order in which they were
    /// asked for.
    pub fn inject(&self, mishap: &Mishap) {
        let folder = self.folder.path().join("mishaps");
        let there = fs::read_dir(&folder).map_or(0, Iterator::count);
        mishap.write(&folder.join(format!("{there:03}")));
    }

    /// From now on nothing goes wrong any more.
    pub fn heal(&self) {
        remove(&self.folder.path().join("mishaps"));
        remove(&self.folder.path().join("kept/mishaps"));
    }

    /// A gate for [`Mishap::waits_at`]: closed until [`Self::open`].
    #[must_use]
    pub fn gate(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("gate-{name}"))
    }

    /// Opens a gate.
    pub fn open(&self, gate: &Path) {
        fs::write(gate, "").expect("a gate can be opened");
    }

    /// All calls so far, in the order in which they began.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        record::read(self.folder.path())
    }

    /// The calls of one command: `build`, `deploy status`, `deploy --help`.
    #[must_use]
    pub fn calls_of(&self, command: &str) -> Vec<Call> {
        let calls = self.calls().into_iter();
        calls.filter(|call| call.command == command).collect()
    }

    /// The files that the control plane was given, one a deployment.
    #[must_use]
    pub fn given(&self) -> Vec<Vec<u8>> {
        let calls = self.calls_of("deploy").into_iter();
        calls.filter_map(|call| call.given).collect()
    }

    /// Forgets the calls so far; what was deployed stays so.
    pub fn forget(&self) {
        let record = self.folder.path().join("record");
        if record.exists() {
            fs::remove_file(record).expect("the record can be removed");
        }
    }

    fn set_of(&self, service: &str, name: &str, text: &str) {
        let service = hexadecimal(service.as_bytes());
        self.set(&format!("services/{service}/{name}"), text);
    }

    fn set(&self, name: &str, text: &str) {
        write(&self.folder.path().join("settings").join(name), text);
    }
}

/// Any text as part of a path.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn write(file: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("a folder is made");
    fs::write(file, text).expect("the double can be told");
}

fn remove(folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).expect("a folder can be removed");
    }
}
