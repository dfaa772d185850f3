//! Finding a program by its name, as a shell would, and saying why one cannot be run.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::protocol::{Failure, FailureKind};
use crate::process::binary;

/// Where programs are looked for when the image does not say; Docker's own default.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file of the program `name`: itself when it has a slash, else the first one on `path`.
/// Relative names start at the current directory, which is the image's working directory.
pub(super) fn find(name: &str, path: &str) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        let file = PathBuf::from(name);
        return if file.exists() {
            Ok(file)
        } else {
            Err(not_found(name))
        };
    }
    let candidates = path.split(':').filter(|folder| !folder.is_empty());
    let mut candidates = candidates.map(|folder| Path::new(folder).join(name));
    candidates
        .find(|file| is_program(file))
        .ok_or_else(|| not_found(name))
}

/// What the system's refusal to execute `file` means.
pub(super) fn refused(name: &str, file: &Path, error: &io::Error) -> Failure {
    let kind = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOEXEC) => FailureKind::ExecFormat,
        _ => FailureKind::Other,
    };
    let reason = match error.kind() {
        // the file is there, so it is what the file names that is not
        io::ErrorKind::NotFound => match binary::interpreter(file) {
            Some(interpreter) => {
                format!(
                    "its interpreter `{}` is not in the image",
                    interpreter.display()
                )
            }
            None => error.to_string(),
        },
        _ => error.to_string(),
    };
    Failure {
        kind,
        step: format!("run `{name}`"),
        reason,
    }
}

pub(crate) fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn not_found(name: &str) -> Failure {
    Failure {
        kind: FailureKind::ProgramNotFound,
        step: "find the program".to_owned(),
        reason: name.to_owned(),
    }
}
