//! The end of instances by their directories: of all of them, whatever one of them does.

use std::fs;
use std::path::{Path, PathBuf};

use super::record::InstanceRecord;
use super::tree;
use crate::error::EngineError;

/// Ends what runs for these directories and removes them.
///
/// All are told before any is waited for, and none is left out because another does not end: whoever calls this may have
/// to be sure that nothing runs beside what another server starts.
pub(crate) fn end_all(directories: &[PathBuf]) -> Result<(), EngineError> {
    let recorded = |directory: &PathBuf| (directory.clone(), InstanceRecord::read(directory));
    let instances: Vec<_> = directories.iter().map(recorded).collect();
    for record in instances.iter().filter_map(|(_, record)| record.as_ref()) {
        record.tell();
    }
    each(&instances, |(directory, record)| {
        if let Some(record) = record
            && !record.kill()
        {
            let reason = format!("process {} does not end", record.guard.pid);
            return Err(EngineError::launch(
                &name(directory),
                "end what runs",
                reason,
            ));
        }
        tree::remove(directory).map_err(EngineError::files("remove", directory))
    })
}

/// The name of an instance, by its directory.
pub(crate) fn name(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The paths in a directory.
pub(crate) fn children(directory: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let failed = || EngineError::files("list", directory);
    let entries = fs::read_dir(directory).map_err(failed())?;
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed()))
        .collect()
}

/// Ends each, and then tells of those that are left.
fn each<T>(
    instances: &[(PathBuf, T)],
    end: impl Fn(&(PathBuf, T)) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let mut left = Vec::new();
    let mut first = None;
    for instance in instances {
        if let Err(error) = end(instance) {
            left.push(name(&instance.0));
            first.get_or_insert(error);
        }
    }
    match first {
        None => Ok(()),
        Some(first) => Err(EngineError::NotEnded {
            left,
            first: Box::new(first),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn instances(names: &[&str]) -> Vec<(PathBuf, ())> {
        let directory = |name: &&str| (Path::new("/instances").join(name), ());
        names.iter().map(directory).collect()
    }

    #[test]
    fn one_that_does_not_end_keeps_no_other_running() {
        let asked = RefCell::new(Vec::new());
        let ended = each(&instances(&["a", "b", "c", "d"]), |(directory, ())| {
            let name = name(directory);
            asked.borrow_mut().push(name.clone());
            match name.as_str() {
                "a" | "c" => Err(EngineError::launch(&name, "end what runs", "it stays")),
                _ => Ok(()),
            }
        });
        assert_eq!(asked.into_inner(), ["a", "b", "c", "d"]);
        let error = ended.unwrap_err();
        assert_eq!(
            error.to_string(),
            "instances are left that were to end: `a`, `c`"
        );
        let first = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(first, "launch instance `a`: end what runs: it stays");
    }

    #[test]
    fn where_all_end_there_is_nothing_to_tell() {
        each(&instances(&["a", "b"]), |_| Ok(())).unwrap();
    }
}
