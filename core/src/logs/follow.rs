//! Lines as they come: what is there, then what is added, across deployments and rotations.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use management_api::types::LogLine;

use super::{Filter, Log, logs, parse, read_log};

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
pub(super) struct Place {
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
pub(super) fn begin(folder: &Path, filter: &Filter) -> io::Result<Looked> {
    let (mut lines, mut places) = (Vec::<LogLine>::new(), HashMap::new());
    for log in filter.of(logs(folder)?).into_iter().rev() {
        let files = engines::open_log(&log.file(folder))?;
        let end = files.first().map(whole).transpose()?.unwrap_or_default();
        // Two instances write at once during a rollout, so the number alone says nothing about
        // which line is younger; the time of the file's last line does.
        let oldest = lines.len().checked_sub(filter.tail);
        let oldest = oldest.and_then(|at| lines.get(at));
        let is_passed_over = oldest
            .zip(files.first().and_then(changed))
            .is_some_and(|(oldest, changed)| changed < oldest.at);
        if !is_passed_over {
            lines.extend(read_log(&files, &log, filter, end)?);
            lines.sort_by_key(|line| line.at);
        }
        let file = files.into_iter().next();
        places.insert(log, Place { file, offset: end });
    }
    lines.drain(..lines.len().saturating_sub(filter.tail));
    Ok((lines, places))
}

/// When a file was written to last.
fn changed(file: &File) -> Option<DateTime<Utc>> {
    let changed = file.metadata().and_then(|metadata| metadata.modified());
    changed.ok().map(DateTime::from)
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
    let known = place.file.as_ref().map(inode).transpose()?;
    let mut lines = Vec::new();
    if known.is_none() || open(path)?.as_ref().map(inode).transpose()? != known {
        // The file was put aside, others after it perhaps: each is finished before the one after it is begun.
        let mut younger = Vec::new();
        for file in engines::open_log(path)? {
            if Some(inode(&file)?) == known {
                break;
            }
            younger.push(file);
        }
        for next in younger.into_iter().rev() {
            if let Some(file) = &mut place.file {
                lines.extend(from(file, log, &mut place.offset, u64::MAX)?);
            }
            *place = Place {
                file: Some(next),
                offset: 0,
            };
        }
    }
    if let Some(file) = &mut place.file {
        lines.extend(from(file, log, &mut place.offset, CHUNK)?);
    }
    Ok(lines)
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
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

/// How many bytes of a file are whole lines: of one that is being written, the rest comes with the next look.
fn whole(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut part = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(part.len() as u64);
        let length = usize::try_from(end - start).unwrap_or(part.len());
        // Less than that where half a line was taken away again: the disk had no room for the rest.
        let read = file.read_at(&mut part[..length], start)?;
        if let Some(at) = part[..read].iter().rposition(|byte| *byte == b'\n') {
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

    use super::super::fixtures::{put_aside, write};
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
        write(&one, 1, "a");
        let filter = Filter {
            tail: MAX_LINES,
            ..Filter::default()
        };
        let mut follower = Follower::new(folder.path().into(), filter);
        assert_eq!(next(&mut follower).await, ["a"]);
        for (second, line) in [(2, "b"), (3, "c")] {
            write(&one, second, line);
            put_aside(&one);
        }
        write(&one, 4, "d");
        assert_eq!(next(&mut follower).await, ["b", "c", "d"]);
        // More than are kept: what is there comes whole and once, and so does what was being read.
        write(&one, 5, "also d");
        for (second, line) in [(6, "e"), (7, "f"), (8, "g")] {
            put_aside(&one);
            write(&one, second, line);
        }
        assert_eq!(next(&mut follower).await, ["also d", "e", "f", "g"]);
    }

    #[test]
    fn half_a_line_that_is_taken_away_again_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let one = file(folder.path(), 1, APP);
        write(&one, 1, "a");
        let log = File::options().append(true).read(true).open(&one).unwrap();
        let length = log.metadata().unwrap().len();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..20_000 {
                    log.set_len(length + 6000).unwrap();
                    log.set_len(length).unwrap();
                }
            });
            while !writer.is_finished() {
                assert_eq!(whole(&log).unwrap(), length);
            }
        });
    }

    #[tokio::test]
    async fn a_log_without_its_newest_file_is_followed_on() {
        let folder = tempfile::tempdir().unwrap();
        let one = file(folder.path(), 1, APP);
        let filter = Filter {
            tail: MAX_LINES,
            ..Filter::default()
        };
        let mut follower = Follower::new(folder.path().into(), filter.clone());
        write(&one, 1, "a");
        assert_eq!(next(&mut follower).await, ["a"]);
        // What came before it was put aside comes, also if nothing comes after it.
        write(&one, 2, "b");
        put_aside(&one);
        let mut late = Follower::new(folder.path().into(), filter);
        assert_eq!(next(&mut follower).await, ["b"]);
        assert_eq!(next(&mut late).await, ["a", "b"]);
        for follower in [&mut follower, &mut late] {
            assert!(follower.look().await.unwrap().is_empty());
        }
        write(&one, 3, "c");
        for follower in [&mut follower, &mut late] {
            assert_eq!(next(follower).await, ["c"]);
        }
    }

    #[tokio::test]
    async fn nothing_is_missed_while_the_log_is_put_aside_at_every_look() {
        let filter = Filter {
            tail: MAX_LINES,
            ..Filter::default()
        };
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let one = file(folder.path(), 1, APP);
            let add = move |numbers: std::ops::Range<i64>| {
                for number in numbers {
                    write(&one, number, &number.to_string());
                    put_aside(&one);
                }
            };
            add(0..10);
            // No more in all than are kept.
            let writer = std::thread::spawn(move || add(10..20));
            let mut follower = Follower::new(folder.path().into(), filter.clone());
            let mut lines = Vec::new();
            while !writer.is_finished() {
                lines.extend(follower.look().await.unwrap());
            }
            lines.extend(follower.look().await.unwrap());
            let lines: Vec<String> = lines.into_iter().map(|line| line.line).collect();
            let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
            assert_eq!(lines, numbers);
        }
    }
}
