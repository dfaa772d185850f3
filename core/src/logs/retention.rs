//! Which logs are kept: those of the newest deployments, each up to a size.

use std::fs;
use std::io;
use std::path::Path;

use super::{aside, deployments, file};

/// Removes the logs of all but the newest `deployments_kept` deployments, and of those the files
/// put aside that go beyond `bytes_kept`, oldest first. The file being written is never touched.
/// It blocks.
pub(crate) fn prune(folder: &Path, deployments_kept: usize, bytes_kept: u64) -> io::Result<()> {
    let numbers = deployments(folder)?;
    let (old, kept) = numbers.split_at(numbers.len().saturating_sub(deployments_kept));
    for number in old {
        let newest = file(folder, *number);
        for path in aside(&newest).iter().chain([&newest]) {
            remove(path)?;
        }
    }
    for number in kept {
        let newest = file(folder, *number);
        let mut size = length(&newest);
        for path in aside(&newest) {
            size += length(&path);
            if size > bytes_kept {
                remove(&path)?;
            }
        }
    }
    Ok(())
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_deployments_and_old_files_go_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["1.log", "2.log", "2.log.1", "2.log.2", "3.log"] {
            fs::write(folder.path().join(name), [b'x'; 10]).unwrap();
        }
        prune(folder.path(), 2, 25).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["2.log", "2.log.1", "3.log"]);
    }
}
