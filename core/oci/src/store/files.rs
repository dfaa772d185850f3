//! Small file operations that survive a crash: whole or absent, never half.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::StoreError;

/// Attempts to find a free name. Names hold the process, a counter and the time, so one suffices
/// unless a clock and a process id both come round again.
const NAME_ATTEMPTS: u32 = 16;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Creates a file in `folder` under a name nobody else has.
pub(super) fn create_unique(folder: &Path) -> Result<(PathBuf, File), StoreError> {
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..NAME_ATTEMPTS {
        let path = folder.join(unique_name());
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(StoreError::io("create", &path)(error)),
        }
    }
    Err(StoreError::io("create a file in", folder)(last))
}

/// Sets the disk to work on a part of a file that is going to be flushed anyway: the flush at the end then has
/// little left to wait for. 107 MB hashed, written and flushed by two processors take 75 ms so and 112 ms
/// without. Nothing depends on it.
pub(super) fn start_write_back(file: &File, from: u64, to: u64) {
    let Ok(offset) = from.try_into() else { return };
    let Ok(length) = (to - from).try_into() else {
        return;
    };
    // Linux begins to write what is dirty of the range. Pages that are being written are not
    // dropped, so what was just written stays in memory for its first reader.
    let _ = posix_fadvise(
        file,
        offset,
        length,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    );
}

/// Renames within one file system. The new name outlives a power cut once its folder is flushed.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("move a file to", to))
}

/// Writes a small file by way of `temporary`, replacing what was there in one step.
pub(super) fn write_atomically(
    temporary: &Path,
    path: &Path,
    content: &str,
) -> Result<(), StoreError> {
    write_in_order(temporary, None, &[(path, content)], || Ok(()))
}

/// The same for several: they appear in this order, and all are flushed when this returns. Before the first appears
/// what stands in the folder `after` is durable, if there is such a folder. What is flushed at the same time the file
/// system writes to its journal once. What `lock` returns is held while they appear, and not while anything is flushed.
pub(super) fn write_in_order<G>(
    temporary: &Path,
    after: Option<&Path>,
    files: &[(&Path, &str)],
    lock: impl FnOnce() -> Result<G, StoreError>,
) -> Result<(), StoreError> {
    let mut unfinished = Vec::new();
    let written = prepare(temporary, after, files, &mut unfinished).and_then(|()| {
        let locked = lock()?;
        for (from, (path, _)) in unfinished.iter().zip(files) {
            rename(from, path)?;
        }
        drop(locked);
        side_by_side(files, |(path, _)| sync_folder(path))
    });
    if written.is_err() {
        for path in unfinished {
            // The first error is the one to report; what stays is cleared at the next opening.
            let _ = fs::remove_file(path);
        }
    }
    written
}

fn prepare(
    temporary: &Path,
    after: Option<&Path>,
    files: &[(&Path, &str)],
    unfinished: &mut Vec<PathBuf>,
) -> Result<(), StoreError> {
    let mut opened = Vec::new();
    if let Some(folder) = after {
        match File::open(folder) {
            Ok(file) => opened.push((folder.to_owned(), file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("open", folder)(error)),
        }
    }
    for (path, content) in files {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        }
        let (new, mut file) = create_unique(temporary)?;
        unfinished.push(new.clone());
        file.write_all(content.as_bytes())
            .map_err(StoreError::io("write", &new))?;
        opened.push((new, file));
    }
    side_by_side(&opened, |(path, file)| {
        file.sync_all().map_err(StoreError::io("flush", path))
    })
}

/// Does something with each, all at the same time.
fn side_by_side<T: Sync>(
    all: &[T],
    work: impl Fn(&T) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let Some((first, others)) = all.split_first() else {
        return Ok(());
    };
    thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = others
            .iter()
            .map(|one| scope.spawn(move || work(one)))
            .collect();
        let mut outcome = work(first);
        for other in others {
            let ended = other.join();
            let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(ended);
        }
        outcome
    })
}

/// Makes a file that says everything by its name, and its folder; says whether it was not there yet. One that
/// is there looks new afterwards. The new name is not flushed.
pub(super) fn create_empty(path: &Path) -> Result<bool, StoreError> {
    if touch(path) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    }
    File::create(path).map_err(StoreError::io("create", path))?;
    Ok(true)
}

/// Reads at most `limit` bytes; a longer file is an error, not a surprise in memory.
pub(super) fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

/// Removes a file; says whether it was there.
pub(super) fn remove_if_present(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("remove", path)(error)),
    }
}

/// The names in a folder, sorted; none when it does not exist.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes files nobody has written to for `age`. Two processes may sweep at the same time.
pub(super) fn remove_older_than(folder: &Path, age: Duration) -> Result<(), StoreError> {
    for name in names(folder)? {
        let path = folder.join(name);
        if is_older_than(&path, age) {
            remove_if_present(&path)?;
        }
    }
    Ok(())
}

/// Whether nobody has written to or touched a file for `age`. One that is gone is not old.
pub(super) fn is_older_than(path: &Path, age: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|past| past > age)
    })
}

/// For how long nobody has written to or touched a file. One that is gone, or of the future, is new.
pub(super) fn age(path: &Path) -> Duration {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let past = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    past.unwrap_or_default()
}

/// Makes a file look new, so that no collection takes it; says whether it is still there.
pub(super) fn touch(path: &Path) -> bool {
    File::open(path)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .is_ok()
}

/// Flushes the folder that a file stands in.
pub(super) fn sync_folder(file: &Path) -> Result<(), StoreError> {
    file.parent().map_or(Ok(()), sync)
}

/// Flushes a folder.
pub(super) fn sync(folder: &Path) -> Result<(), StoreError> {
    let flushed = File::open(folder).and_then(|folder| folder.sync_all());
    flushed.map_err(StoreError::io("flush", folder))
}

fn unique_name() -> String {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    format!("{}-{count}-{time}", std::process::id())
}
