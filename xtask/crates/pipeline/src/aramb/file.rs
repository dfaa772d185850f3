//! The file with images in it, and back.
//!
//! What is replaced is kept in the state first. Whatever ends this process, the file is the old one or the new one; and if it
//! was not put back, the next run does that before anything else.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use deploy_config::aramb::{self, EditError};
use deploy_plan::aramb::{Named, Service};
use serde::{Deserialize, Serialize};

use super::state::{Replacement, State};

/// Under which name the state has it.
const KEPT: &str = "replaced.json";
/// Under which name the state has what could not be put back.
const ASIDE: &str = "before.toml";
/// How often a file that changes under our eyes is looked at.
const LOOKS: u32 = 3;

/// Why the file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It has changed since it was read.
    #[error("{0}")]
    Edit(#[from] EditError),
    /// It has changed, and cannot be read any more.
    #[error("it has changed and is not valid now, so that the images in it cannot be taken out")]
    Unreadable,
    /// It was changed while it was an earlier one.
    #[error(
        "it was changed while it was the file of the earlier deployment, on the way back to that, and stays so; what it was \
         before is in {}", .0.display()
    )]
    Earlier(PathBuf),
}

/// A file before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    original: String,
    /// All that took its place, one after the other.
    written: Vec<String>,
    /// The original is somebody's of after the beginning.
    #[serde(default)]
    is_edited: bool,
}

/// How a file was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restored {
    /// It was as it should be.
    Already,
    /// It is the old one.
    Whole,
    /// It is the old one; numbers and names that the control plane had noted in it are gone.
    WithoutNotes,
    /// Somebody has changed it meanwhile: only the images were taken out.
    ImagesAlone,
}

/// A file that names images for the time of a deployment.
pub(super) struct Replaced<'s> {
    state: &'s State,
    path: PathBuf,
    kept: Kept,
    open: bool,
}

impl<'s> Replaced<'s> {
    /// Writes the images into the file.
    pub(super) fn with_images(
        state: &'s State,
        path: &Path,
        source: &str,
        named: &[Named<'_>],
    ) -> Result<Self, FileError> {
        let changes: Vec<_> = named
            .iter()
            .map(|named| (named.value, named.text.as_str()))
            .collect();
        Self::by(state, path, source, aramb::replace(source, &changes)?)
    }

    /// Replaces the file by another text.
    pub(super) fn by(
        state: &'s State,
        path: &Path,
        source: &str,
        written: String,
    ) -> Result<Self, FileError> {
        if fs::read_to_string(path)? != source {
            return Err(EditError::OtherFile.into());
        }
        let mut replaced = Self {
            state,
            path: path.to_owned(),
            kept: Kept {
                original: source.to_owned(),
                written: Vec::new(),
                is_edited: false,
            },
            open: true,
        };
        if replaced.put(source, written)? == Replacement::Changed {
            // Nothing of ours is in it.
            replaced.open = false;
            state.remove(KEPT)?;
            return Err(EditError::OtherFile.into());
        }
        Ok(replaced)
    }

    /// Replaces the file once more. What somebody has changed in it meanwhile is what it is put back to.
    pub(super) fn again(&mut self, text: &str) -> Result<(), FileError> {
        for _ in 0..LOOKS {
            let current = fs::read_to_string(&self.path)?;
            let (original, how) = restored(&self.kept, &current, &self.state.path(ASIDE))?;
            if how == Restored::ImagesAlone {
                self.kept.original = original;
                self.kept.is_edited = true;
            }
            if self.put(&current, text.to_owned())? == Replacement::Done {
                return Ok(());
            }
        }
        Err(EditError::OtherFile.into())
    }

    /// Puts a text in the place of the current one, if the file is that still.
    fn put(&mut self, current: &str, text: String) -> io::Result<Replacement> {
        self.kept.written.push(text);
        self.state.write(KEPT, &self.kept)?;
        let (old, new) = (current.as_bytes(), self.written().as_bytes());
        let replacement = self.state.replace(&self.path, old, new)?;
        if replacement == Replacement::Changed {
            self.kept.written.pop();
        }
        Ok(replacement)
    }

    /// The text that is in the file now.
    pub(super) fn written(&self) -> &str {
        let last = self.kept.written.last();
        last.map_or(self.kept.original.as_str(), String::as_str)
    }

    /// Leaves the file as it is.
    pub(super) fn keep(mut self) -> io::Result<()> {
        self.open = false;
        self.state.remove(KEPT)
    }

    /// Puts the old one back.
    pub(super) fn restore(mut self) -> Result<Restored, FileError> {
        self.open = false;
        restore(self.state, &self.path, &self.kept)
    }
}

/// On an early way out as well.
impl Drop for Replaced<'_> {
    fn drop(&mut self) {
        if self.open {
            // What fails now is in the state, and done by the next run.
            let _ = restore(self.state, &self.path, &self.kept);
        }
    }
}

/// Puts back what an earlier run has left.
pub(super) fn restore_left(state: &State, path: &Path) -> Result<Restored, FileError> {
    match state.read::<Kept>(KEPT) {
        Some(kept) => restore(state, path, &kept),
        None => Ok(Restored::Already),
    }
}

/// The text of the file as it is without a deployment: what one that runs will put back, or one that was killed would have.
/// Changes nothing.
pub(super) fn without_deployment(path: &Path) -> io::Result<String> {
    let mut current = aramb::load(path)?;
    for _ in 0..LOOKS {
        if let Some(kept) = State::seen::<Kept>(path, KEPT) {
            // What cannot be put back is told of by the next deployment.
            let restored = restored(&kept, &current, Path::new(ASIDE));
            return Ok(restored.map_or(current, |(text, _)| text));
        }
        // It may have been put back between the two looks.
        let again = aramb::load(path)?;
        if again == current {
            break;
        }
        current = again;
    }
    Ok(current)
}

fn restore(state: &State, path: &Path, kept: &Kept) -> Result<Restored, FileError> {
    for _ in 0..LOOKS {
        let current = fs::read_to_string(path)?;
        let restored = restored(kept, &current, &state.path(ASIDE));
        if let Err(FileError::Earlier(_)) = restored {
            state.write_bytes(ASIDE, kept.original.as_bytes())?;
            state.remove(KEPT)?;
        }
        let (text, how) = restored?;
        if text == current
            || state.replace(path, current.as_bytes(), text.as_bytes())? == Replacement::Done
        {
            state.remove(KEPT)?;
            return Ok(how);
        }
    }
    Err(EditError::OtherFile.into())
}

/// The text without the images.
fn restored(kept: &Kept, current: &str, aside: &Path) -> Result<(String, Restored), FileError> {
    let Kept {
        original, written, ..
    } = kept;
    if current == original {
        return Ok((original.clone(), Restored::Already));
    }
    if written.iter().any(|written| current == written) {
        let how = if kept.is_edited {
            Restored::ImagesAlone
        } else {
            Restored::Whole
        };
        return Ok((original.clone(), how));
    }
    if written
        .iter()
        .any(|written| has_only_notes_more(current, written))
    {
        return Ok((original.clone(), Restored::WithoutNotes));
    }
    let [text] = written.as_slice() else {
        // The file of an earlier deployment was changed: no image is to be taken out of that, all of it is another file.
        return Err(FileError::Earlier(aside.to_owned()));
    };
    Ok((
        without_images(original, text, current)?,
        Restored::ImagesAlone,
    ))
}

/// Whether the one is the other with lines more, all of them the `id`s and `slug`s that a control plane notes.
fn has_only_notes_more(current: &str, written: &str) -> bool {
    let mut old = written.lines().peekable();
    for line in current.lines() {
        if old.next_if_eq(&line).is_none() && !is_note(line) {
            return false;
        }
    }
    old.next().is_none()
}

fn is_note(line: &str) -> bool {
    let key = line.split_once('=').map(|(key, _)| key.trim());
    matches!(key, Some("id" | "slug"))
}

/// The text with each value that has become an image as it was; values are found by the numbers of their services.
fn without_images(original: &str, written: &str, current: &str) -> Result<String, FileError> {
    let parse = |text: &str| {
        let toml = aramb::parse(Path::new(aramb::ARAMB_TOML), text);
        (!toml.file.services.is_empty()).then_some(toml.file)
    };
    let (Some(original), Some(written), Some(now)) =
        (parse(original), parse(written), parse(current))
    else {
        return Err(FileError::Unreadable);
    };
    let same = |(old, new): (&Service, &Service)| old.id == new.id;
    let services = || original.services.iter().zip(&written.services);
    if original.services.len() != written.services.len() || !services().all(same) {
        return Err(FileError::Unreadable);
    }
    // Both have the same values, but for what was replaced.
    let mut turned = HashMap::new();
    for (before, after) in services() {
        for (old, new) in before.values().zip(after.values()) {
            if old.text != new.text {
                turned.insert((before.id, new.text.as_str()), old.text.as_str());
            }
        }
    }
    let mut changes = Vec::new();
    for service in &now.services {
        for value in service.values() {
            if let Some(old) = turned.get(&(service.id, value.text.as_str())) {
                changes.push((value, *old));
            }
        }
    }
    Ok(aramb::replace(current, &changes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = r#"# the shop
[[services]]
uniqueIdentifier = 102
name = "api" # runs
type = "backend"
[services.configuration.settings]
image = "${101.outputs.IMAGE_URL}"
cmd = 'x'
[[services]]
uniqueIdentifier = 101
name = "api-build"
type = "build"
"#;

    fn written() -> String {
        ORIGINAL.replace("${101.outputs.IMAGE_URL}", "shop/api-build:abc")
    }

    fn kept() -> Kept {
        Kept {
            original: ORIGINAL.to_owned(),
            written: vec![written()],
            is_edited: false,
        }
    }

    fn check(current: &str, expected: &str, how: Restored) {
        let (text, found) = restored(&kept(), current, Path::new(ASIDE)).unwrap();
        assert_eq!(text, expected);
        assert_eq!(found, how);
    }

    #[test]
    fn what_somebody_else_has_changed_stays() {
        check(ORIGINAL, ORIGINAL, Restored::Already);
        check(&written(), ORIGINAL, Restored::Whole);
        let noted = written().replace(
            "name = \"api\" # runs",
            "name = \"api\" # runs\nid = \"s-1\"\nslug = \"api-x\"",
        );
        check(&noted, ORIGINAL, Restored::WithoutNotes);
        let edited = noted.replace("cmd = 'x'", "cmd = 'y'");
        let expected = edited.replace("shop/api-build:abc", "${101.outputs.IMAGE_URL}");
        check(&edited, &expected, Restored::ImagesAlone);
        let broken = restored(&kept(), &format!("{}[[", written()), Path::new(ASIDE));
        assert!(matches!(broken, Err(FileError::Unreadable)), "{broken:?}");
    }

    #[test]
    fn a_run_that_was_killed_is_made_good_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aramb.toml");
        fs::write(&path, ORIGINAL).unwrap();
        {
            let state = State::of(&path).unwrap();
            let replaced = Replaced::by(&state, &path, ORIGINAL, written()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), written());
            // As after SIGKILL: nobody puts anything back.
            std::mem::forget(replaced);
        }
        let state = State::of(&path).unwrap();
        assert_eq!(restore_left(&state, &path).unwrap(), Restored::Whole);
        assert_eq!(fs::read_to_string(&path).unwrap(), ORIGINAL);
        assert_eq!(restore_left(&state, &path).unwrap(), Restored::Already);
    }

    #[test]
    fn what_somebody_changes_outlives_the_way_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aramb.toml");
        fs::write(&path, ORIGINAL).unwrap();
        let state = State::of(&path).unwrap();
        let earlier = written().replace(":abc", ":old").replace("'x'", "'w'");
        let begin = || Replaced::by(&state, &path, ORIGINAL, written()).unwrap();
        let mut replaced = begin();
        fs::write(&path, written().replace("'x'", "'y'")).unwrap();
        replaced.again(&earlier).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), earlier);
        assert_eq!(replaced.restore().unwrap(), Restored::ImagesAlone);
        let edited = ORIGINAL.replace("'x'", "'y'");
        assert_eq!(fs::read_to_string(&path).unwrap(), edited);
        // In the earlier file it cannot be told from what was there: nothing is thrown away.
        fs::write(&path, ORIGINAL).unwrap();
        let mut replaced = begin();
        replaced.again(&earlier).unwrap();
        let edited = earlier.replace("'w'", "'z'");
        fs::write(&path, &edited).unwrap();
        let error = replaced.restore().unwrap_err();
        let FileError::Earlier(aside) = error else {
            panic!("{error}");
        };
        assert_eq!(fs::read_to_string(&path).unwrap(), edited);
        assert_eq!(fs::read_to_string(aside).unwrap(), ORIGINAL);
        assert_eq!(restore_left(&state, &path).unwrap(), Restored::Already);
    }

    #[test]
    fn what_is_saved_in_the_moment_of_a_replacement_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aramb.toml");
        fs::write(&path, ORIGINAL).unwrap();
        let state = State::of(&path).unwrap();
        let save: fn(&Path) = |file| {
            let text = fs::read_to_string(file).unwrap();
            fs::write(file, text.replace("'x'", "'y'")).unwrap();
        };
        let edited = ORIGINAL.replace("'x'", "'y'");
        let text = || fs::read_to_string(&path).unwrap();
        // At the first it is another file than the one that was read.
        state.meanwhile.set(Some(save));
        let Err(error) = Replaced::by(&state, &path, ORIGINAL, written()) else {
            panic!("it was replaced");
        };
        assert!(matches!(error, FileError::Edit(_)), "{error}");
        assert_eq!(text(), edited);
        assert!(state.read::<Kept>(KEPT).is_none());
        // Later on it is what the file is put back to.
        fs::write(&path, ORIGINAL).unwrap();
        let mut replaced = Replaced::by(&state, &path, ORIGINAL, written()).unwrap();
        state.meanwhile.set(Some(save));
        let other = written().replace(":abc", ":def");
        replaced.again(&other).unwrap();
        assert_eq!(text(), other);
        assert_eq!(replaced.restore().unwrap(), Restored::ImagesAlone);
        assert_eq!(text(), edited);
        // And on the way back.
        fs::write(&path, ORIGINAL).unwrap();
        let replaced = Replaced::by(&state, &path, ORIGINAL, written()).unwrap();
        state.meanwhile.set(Some(save));
        assert_eq!(replaced.restore().unwrap(), Restored::ImagesAlone);
        assert_eq!(text(), edited);
    }

    #[test]
    fn an_early_way_out_puts_it_back_and_what_is_kept_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aramb.toml");
        fs::write(&path, ORIGINAL).unwrap();
        let state = State::of(&path).unwrap();
        drop(Replaced::by(&state, &path, ORIGINAL, written()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), ORIGINAL);
        let other = Replaced::by(&state, &path, "another", written());
        assert!(matches!(other, Err(FileError::Edit(_))));
        let replaced = Replaced::by(&state, &path, ORIGINAL, written()).unwrap();
        replaced.keep().unwrap();
        assert_eq!(restore_left(&state, &path).unwrap(), Restored::Already);
        assert_eq!(fs::read_to_string(&path).unwrap(), written());
    }
}
