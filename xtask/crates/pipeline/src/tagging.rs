//! The tags of a release. They are moved together, once all of its images are in the registry: a tag that another
//! release had until now must not mean a part of that one and a part of this.

use deploy_plan::config::APP;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use oci::{Client, Digest, Repository, Tag};

use crate::image::Made;
use crate::push::{self, Destination};
use crate::run::Run;

/// A tag that is to mean an image which is there by its digest.
pub(crate) struct Tagging {
    /// Of which service.
    service: String,
    repository: Repository,
    tag: Tag,
    digest: Digest,
    bytes: Vec<u8>,
    media_type: String,
}

impl Tagging {
    pub(crate) fn of(service: &str, to: &Destination, made: &Made) -> Self {
        Self {
            service: service.to_owned(),
            repository: to.repository.clone(),
            tag: to.tag.clone(),
            digest: made.digest,
            bytes: made.bytes.clone(),
            media_type: made.manifest.media_type().to_owned(),
        }
    }

    /// Its name.
    pub(crate) fn tag(&self) -> String {
        self.tag.to_string()
    }

    fn put(&self, client: &Client) -> Result<(), Failure> {
        client
            .put_manifest(&self.repository, &self.tag, &self.bytes, &self.media_type)
            .map(drop)
            .map_err(|e| push::failure(&e))
    }

    /// Whether the registry has it, where it tells.
    fn is_moved(&self, client: &Client) -> Option<bool> {
        let found = client.manifest_exists(&self.repository, &self.tag).ok()?;
        Some(found.is_some_and(|found| found.digest == self.digest))
    }
}

/// How far the tags of a release have come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) moved: Vec<String>,
    pub(crate) unknown: Vec<String>,
    pub(crate) not_moved: Vec<String>,
}

impl Progress {
    /// Says it in a failure, where it matters: once a tag has moved.
    pub(crate) fn told(&self, mut failure: Failure) -> Failure {
        if self.moved.is_empty() && self.unknown.is_empty() {
            return failure;
        }
        let lists = [
            ("these tags mean the new images", &self.moved),
            ("of these the registry does not tell", &self.unknown),
            ("these mean what they did before", &self.not_moved),
        ];
        let told = lists
            .into_iter()
            .filter(|(_, tags)| !tags.is_empty())
            .map(|(what, tags)| format!("{what}: {}", tags.join(", ")));
        let before = if failure.exit == Exit::Interrupted {
            "interrupted while the tags of the release were moved"
        } else {
            &failure.details
        };
        failure.details = format!("{before}; {}", told.collect::<Vec<_>>().join("; "));
        failure.resolution.push_str(
            "; the same command moves the other tags too. What serves goes by digests and has not changed",
        );
        failure
    }
}

/// Moves the tags, that of `app` last: where it means the release, all others do. What has been moved before, by
/// others, is told with them.
pub(crate) fn move_all(
    run: &Run<'_>,
    client: &Client,
    mut tags: Vec<Tagging>,
    moved: Vec<String>,
) -> Result<(), Failure> {
    tags.sort_by_key(|tagging| tagging.service == APP);
    let mut progress = Progress {
        moved,
        ..Progress::default()
    };
    let mut left = tags.iter();
    while let Some(tagging) = left.next() {
        let put = run
            .stop_if_interrupted(Step::Push)
            .and_then(|()| tagging.put(client));
        let Err(failure) = put else {
            progress.moved.push(tagging.tag());
            continue;
        };
        let is_moved = match failure.exit {
            // It was not sent, or the registry is not asked any more.
            Exit::Interrupted => None,
            _ => tagging.is_moved(client),
        };
        let name = tagging.tag();
        match is_moved {
            Some(true) => progress.moved.push(name),
            Some(false) => progress.not_moved.push(name),
            None => progress.unknown.push(name),
        }
        progress.not_moved.extend(left.map(Tagging::tag));
        return Err(progress.told(failure));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_of_tags_before_one_has_moved() {
        let failure = || Failure::new(Step::Push, "push_failed", Exit::Push, "refused", "again");
        let nothing = Progress {
            not_moved: vec!["v1".to_owned()],
            ..Progress::default()
        };
        assert_eq!(nothing.told(failure()), failure());
        let half = Progress {
            moved: vec!["api-v1".to_owned()],
            ..nothing
        };
        let told = half.told(failure());
        assert_eq!(
            told.details,
            "refused; these tags mean the new images: api-v1; these mean what they did before: v1"
        );
        let interrupted = half.told(crate::run::interrupted(Step::Push));
        assert!(
            !interrupted.details.contains("nothing has changed"),
            "{interrupted}"
        );
        assert_eq!(interrupted.exit, Exit::Interrupted);
    }
}
