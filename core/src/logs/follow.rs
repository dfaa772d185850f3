//! Lines as they come: what is there, then what is added, across deployments and rotations.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use management_api::types::LogLine;

use super::{Filter, Log, aside, logs, parse, read_until};

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_millis(200);
/// The most bytes taken from one file at one look; more come with the next.
const CHUNK: u64 = 1024 * 1024;

/// Follows the logs of one tenant.
pub(crate) struct Follower {
    folder: PathBuf,
    filter: Filter,
    /// Where reading goes on, by deployment. Absent until the first look.
    places: Option<HashMap<Log, Place>>,
}

/// How far a log was read.
#[derive(Debug, Default)]
struct Place {
    /// Kept open: so what was written to it is found whatever becomes of its name, and no other file has its number.
    file: Option<File>,
    offset: u64,
}

impl Follower {
    pub(crate) fn new(folder: PathBuf, filter: Filter) -> Self {
        Self {
            folder,
            filter,
            places: None,
        }
    }

    /// The next lines, as soon as there are some; `None` when the files cannot be read.
    pub(crate) async fn next(&mut self) -> Option<Vec<LogLine>> {
        loop {
            let first = self.places.is_none();
            let lines = self.look().await.ok()?;
            if !lines.is_empty() {
                return Some(lines);
            }
            if !first {
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }

    /// What was added since the last look; at the first one, what is there.
    pub(crate) async fn look(&mut self) -> io::Result<Vec<LogLine>> {
        let (folder, filter) = (self.folder.clone(), self.filter.clone());
        let places = self.places.take();
        let looked = tokio::task::spawn_blocking(move || match places {
            None => begin(&folder, &filter),
            Some(places) => go_on(&folder, &filter, places),
        });
        let (lines, places) = looked.await.map_err(io::Error::other)??;
        self.places = Some(places);
        Ok(lines)
    }
}

type Looked = (Vec<LogLine>, HashMap<Log, Place>);

/// The lines that are there, up to the places where following goes on: none is missed, and none
/// comes twice.
fn begin(folder: &Path, filter: &Filter) -> io::Result<Looked> {
    let mut places = HashMap::new();
    for log in filter.of(logs(folder)?) {
        let place = end_of(&log.file(folder))?;
        places.insert(log, place);
    }
    let end = |log: &Log| places.get(log).map_or(0, |place| place.offset);
    let lines = read_until(folder, filter, end)?;
    Ok((lines, places))
}

fn go_on(folder: &Path, filter: &Filter, mut places: HashMap<Log, Place>) -> io::Result<Looked> {
    let mut lines = Vec::new();
    let there: BTreeSet<_> = filter.of(logs(folder)?).into_iter().collect();
    // What was removed gives its file back.
    places.retain(|log, _| there.contains(log));
    for log in there {
        let path = log.file(folder);
        let place = places.entry(log.clone()).or_default();
        lines.extend(added(&path, &log, place)?);
    }
    lines.retain(|line| filter.wants(line));
    lines.sort_by_key(|line| line.at);
    Ok((lines, places))
}

/// What was added to one log since `place`.
fn added(path: &Path, log: &Log, place: &mut Place) -> io::Result<Vec<LogLine>> {
    let Some(current) = open(path)? else {
        return Ok(Vec::new());
    };
    let newest = current.metadata()?.ino();
    let known = place.file.as_ref().map(File::metadata).transpose()?;
    let known = known.map(|metadata| metadata.ino());
    let mut lines = Vec::new();
    if known != Some(newest) {
        // The file was put aside, others after it perhaps: they are finished first, the oldest at the beginning.
        if let Some(file) = &mut place.file {
            lines.extend(from(file, log, &mut place.offset, u64::MAX)?);
        }
        for mut younger in put_aside_since(path, known, newest)? {
            lines.extend(from(&mut younger, log, &mut 0, u64::MAX)?);
        }
        *place = Place {
            file: Some(current),
            offset: 0,
        };
    }
    if let Some(file) = &mut place.file {
        lines.extend(from(file, log, &mut place.offset, CHUNK)?);
    }
    Ok(lines)
}

/// The files that were put aside since the one of number `known` was, the oldest first. `newest` is the one that has the
/// name of the log, which may be put aside right now.
fn put_aside_since(path: &Path, known: Option<u64>, newest: u64) -> io::Result<Vec<File>> {
    let mut seen = vec![newest];
    let mut found = Vec::new();
    for older in aside(path) {
        // While they are moved, one may be missing for a moment, or be met twice.
        let Some(older) = open(&older)? else { continue };
        let inode = older.metadata()?.ino();
        if Some(inode) == known {
            break;
        }
        if !seen.contains(&inode) {
            seen.push(inode);
            found.push(older);
        }
    }
    found.reverse();
    Ok(found)
}

/// Whole lines after `offset`, which moves past them.
fn from(file: &mut File, log: &Log, offset: &mut u64, limit: u64) -> io::Result<Vec<LogLine>> {
    file.seek(SeekFrom::Start(*offset))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    *offset += whole as u64;
    let lines = bytes[..whole].split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| parse(line, log)).collect())
}

/// Behind the last whole line of a file: of one that is being written, the rest comes with the next look.
fn end_of(path: &Path) -> io::Result<Place> {
    let file = open(path)?;
    let offset = file.as_ref().map(whole).transpose()?.unwrap_or_default();
    Ok(Place { file, offset })
}

/// How many bytes of a file are whole lines.
fn whole(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut part = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(part.len() as u64);
        let length = usize::try_from(end - start).unwrap_or(part.len());
        let part = &mut part[..length];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fixtures::write;
    use super::super::{MAX_LINES, file};
    use super::*;
    use crate::deployments::APP;

    async fn next(follower: &mut Follower) -> Vec<String> {
        let bound = Duration::from_secs(10);
        let lines = tokio::time::timeout(bound, follower.next()).await;
        let lines = lines.unwrap().unwrap();
        lines.into_iter().map(|line| line.line).collect()
    }

    #[tokio::test]
    async fn new_lines_new_deployments_and_rotations_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let one = file(folder.path(), 1, APP);
        write(&one, 1, "a");
        let filter = Filter {
            tail: MAX_LINES,
            ..Filter::default()
        };
        let mut follower = Follower::new(folder.path().into(), filter);
        assert_eq!(next(&mut follower).await, ["a"]);
        write(&one, 2, "b");
        assert_eq!(next(&mut follower).await, ["b"]);
        write(&one, 3, "c");
        fs::rename(&one, folder.path().join("1.log.1")).unwrap();
        write(&one, 4, "d");
        write(&file(folder.path(), 2, APP), 5, "e");
        assert_eq!(next(&mut follower).await, ["c", "d", "e"]);
    }

    #[tokio::test]
    async fn a_line_that_is_being_written_at_the_first_look_comes_whole() {
        let folder = tempfile::tempdir().unwrap();
        let one = file(folder.path(), 1, APP);
        // More than one part of the search for its beginning.
        let long = "b".repeat(10_000);
        write(&one, 1, "a");
        write(&one, 2, &long);
        write(&one, 3, "c");
        let all = fs::read(&one).unwrap();
        let filter = Filter {
            tail: MAX_LINES,
            ..Filter::default()
        };
        let wanted = ["a", &long, "c"];
        let ends: Vec<usize> = (0..all.len()).filter(|at| all[*at] == b'\n').collect();
        for cut in [
            1,
            ends[0],
            ends[0] + 1,
            ends[0] + 5,
            ends[1] - 1,
            ends[1],
            ends[2],
        ] {
            fs::write(&one, &all[..cut]).unwrap();
            let mut follower = Follower::new(folder.path().into(), filter.clone());
            let mut lines = follower.look().await.unwrap();
            fs::write(&one, &all).unwrap();
            lines.extend(follower.look().await.unwrap());
            let lines: Vec<String> = lines.into_iter().map(|line| line.line).collect();
            assert_eq!(lines, wanted, "cut after {cut} bytes");
        }
    }

    #[tokio::test]
    async fn nothing_is_missed_when_several_files_were_put_aside_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let one = file(folder.path(), 1, APP);
        let put_aside = || {
            let [younger, older] = ["1.log.1", "1.log.2"].map(|name| folder.path().join(name));
            if younger.exists() {
                fs::rename(&younger, &older).unwrap();
            }
            fs::rename(&one, &younger).unwrap();
        };
        write(&one, 1, "a");
        let filter = Filter {
            tail: MAX_LINES,
            ..Filter::default()
        };
        let mut follower = Follower::new(folder.path().into(), filter);
        assert_eq!(next(&mut follower).await, ["a"]);
        for (second, line) in [(2, "b"), (3, "c")] {
            write(&one, second, line);
            put_aside();
        }
        write(&one, 4, "d");
        assert_eq!(next(&mut follower).await, ["b", "c", "d"]);
        // More than are kept: what is there comes whole and once, and so does what was being read.
        write(&one, 5, "also d");
        for (second, line) in [(6, "e"), (7, "f"), (8, "g")] {
            put_aside();
            write(&one, second, line);
        }
        assert_eq!(next(&mut follower).await, ["also d", "e", "f", "g"]);
    }
}
