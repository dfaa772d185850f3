//! What to do about a `COPY` that cannot be carried out.

use std::path::{Path, PathBuf};

use super::planner::Planner;
use super::{Place, PlanError};
use crate::copying::CopyError;
use crate::dockerfile::Line;
use crate::files::Files;
use crate::glob;

impl Planner<'_> {
    pub(super) fn place(&self, line: &Line) -> Place {
        let (file, text) = (self.dockerfile.file.clone(), line.text.clone());
        Place {
            file,
            line: line.span.first,
            text,
        }
    }

    pub(super) fn copy_error(
        &self,
        line: &Line,
        files: &dyn Files,
        source: CopyError,
    ) -> PlanError {
        let hint = self.hint(files, &source);
        let (at, source) = (self.place(line), Box::new(source));
        PlanError::Copy { at, hint, source }
    }

    fn hint(&self, files: &dyn Files, error: &CopyError) -> String {
        match error {
            CopyError::Missing { path } => self.missing_hint(files, path),
            CopyError::Outside { .. } => "copy it into the project, or move the context up".into(),
            CopyError::Pattern(_) => "close the bracket, or escape it with \\".into(),
            CopyError::Several { .. } => "add / to the end of the line".into(),
            CopyError::Replaces { path, .. } => {
                format!("choose another destination than /{}", path.display())
            }
            CopyError::TooMany { .. } => {
                "copy less: name the files that are needed, or list others in .dockerignore".into()
            }
            CopyError::TooLong { .. } => "shorten the destination".into(),
            CopyError::Files(_) => "make the file readable, or list it in .dockerignore".into(),
        }
    }

    fn missing_hint(&self, files: &dyn Files, path: &str) -> String {
        let clean = crate::paths::below_root(Path::new(&glob::unescape(path)));
        if let Some((file, line)) = self.context.hidden_by(&clean) {
            let hidden = self.context.package_of(&clean).is_some() || self.exists(&clean);
            if hidden {
                return format!("{}:{line} hides it: add `!{path}` below", file.display());
            }
        }
        match nearest(files, &clean) {
            Some(name) => format!("did you mean {}?", name.display()),
            None => format!("create {path}, or remove the line"),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        self.context.exists_unfiltered(path)
    }
}

/// The file beside the wanted one whose name is most like it.
fn nearest(files: &dyn Files, wanted: &Path) -> Option<PathBuf> {
    let name = wanted.file_name()?.to_string_lossy().to_lowercase();
    let parent = wanted.parent()?;
    let names = files.children(parent).ok()?;
    let alike = names.into_iter().filter(|other| {
        let other = other.to_string_lossy().to_lowercase();
        let (short, long) = (other.len().min(name.len()), other.len().max(name.len()));
        let common = other
            .chars()
            .zip(name.chars())
            .take_while(|(a, b)| a == b)
            .count();
        short >= 3 && common + 2 >= short && long - common <= 4
    });
    alike.into_iter().next().map(|name| parent.join(name))
}
