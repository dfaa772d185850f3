//! The papers of an image that Docker has pushed, by the digest that its registry has.

use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::Image;
use oci::{Client, Descriptor, Digest, TagOrDigest};

use super::answer;
use crate::attest::{About, Papers};
use crate::base::UsedBase;
use crate::deploy::Execution;
use crate::events::Event;
use crate::image::Shipped;
use crate::push::{self, Destination};
use crate::run::Run;

/// What Docker has pushed.
pub(super) struct Pushed<'a> {
    /// As it says itself.
    pub(super) digest: Option<Digest>,
    pub(super) programs: &'a [Shipped],
    pub(super) bases: &'a [UsedBase],
}

/// Sends them, and says the image's digest. They come behind the tag, which Docker sets itself; so
/// nothing tells whether an earlier run has sent them, and they are sent every time.
pub(super) fn send(
    run: &Run<'_>,
    execution: &Execution<'_>,
    image: &Image,
    destination: &Destination,
    pushed: &Pushed<'_>,
) -> Result<Option<Digest>, Failure> {
    let papers = Papers::of(execution, image);
    if !papers.wanted() {
        return Ok(pushed.digest);
    }
    let found = push::client(destination, execution.settings, None, run.interrupts)
        .and_then(|client| Ok((subject(&client, destination, pushed)?, client)));
    let (manifest, client) = match found {
        Ok(found) => found,
        // Docker's own settings let it reach a registry that ours do not: that keeps nobody from
        // deploying who does not want a signature.
        Err(failure) if !papers.signs() && !run.interrupts.any() => {
            let text = format!("the image has no papers: {}", failure.details);
            run.reporter.event(Event::Warning(text));
            return Ok(pushed.digest);
        }
        Err(failure) => return Err(failure),
    };
    let digest = manifest.digest;
    let version = ["version", "--format", "{{.Server.Version}}"];
    let version = answer(run, &execution.settings.root, &version);
    let about = About {
        manifest,
        programs: pushed.programs,
        bases: pushed.bases,
        docker: Some(version.as_deref().unwrap_or("unknown")),
    };
    papers.send(run, &client, destination, &about)?;
    Ok(Some(digest))
}

/// The manifest that was pushed. What Docker says wins over the tag, which another push may have
/// moved meanwhile.
fn subject(
    client: &Client,
    destination: &Destination,
    pushed: &Pushed<'_>,
) -> Result<Descriptor, Failure> {
    let said = pushed.digest.as_ref().map(TagOrDigest::Digest);
    let wanted = said.unwrap_or(TagOrDigest::Tag(&destination.tag));
    let found = client
        .manifest_exists(&destination.repository, wanted)
        .map_err(|e| push::failure(&e))?;
    found.ok_or_else(|| {
        Failure::new(
            Step::Push,
            "push_failed",
            Exit::Push,
            format!(
                "the registry does not have {wanted} of {}",
                destination.image()
            ),
            "run the same command again; if it fails again, check the registry's status",
        )
    })
}
