//! What goes to the registry together with an image: its signature, what it is made of, how it was
//! made.
//!
//! All of it is sent between the image's manifest and its tag: a tag that is there says that its
//! papers are there too, so that a push with nothing to do asks one question and is done. What
//! Docker pushes has its tag at once, and gets its papers before its deployment is asked for. A new
//! commit with the same content is no new image, so nothing here is part of the image itself
//! (docs/decisions/0014-papers-beside-the-image.md).

mod cargo;
mod envelope;
mod graph;
pub mod key;
mod lockfile;
mod provenance;
mod sbom;
mod send;
pub(crate) mod signature;

use deploy_config::Settings;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::{Attach, Image, Plan};
use oci::{Client, ClientError, Descriptor};
use serde::Serialize;

use crate::base::UsedBase;
use crate::control::with_causes;
use crate::deploy::Execution;
use crate::events::Event;
use crate::image::{Made, Shipped};
use crate::push::{self, Destination};
use crate::run::Run;
use key::SigningKey;
use send::Document;
use signature::SignError;

/// The image that papers are about.
pub(crate) struct About<'a> {
    /// Its manifest.
    pub(crate) manifest: Descriptor,
    /// The programs in it, as they lie here.
    pub(crate) programs: &'a [Shipped],
    /// The images that it stands on.
    pub(crate) bases: &'a [UsedBase],
    /// The version of the Docker Engine that built it, where one did.
    pub(crate) docker: Option<&'a str>,
}

impl<'a> About<'a> {
    /// An image that was made here.
    pub(crate) fn made(made: &'a Made) -> Self {
        Self {
            manifest: Descriptor::of(made.manifest.media_type(), &made.bytes),
            programs: &made.programs,
            bases: &made.bases,
            docker: None,
        }
    }
}

/// What is to be sent with an image, and what it is made from.
pub struct Papers<'a> {
    /// The project's settings.
    pub(crate) settings: &'a Settings,
    /// Send them also for an image that is there: `--force`.
    pub(crate) again: bool,
    plan: &'a Plan,
    image: &'a Image,
    attach: Attach,
    key: Option<&'a SigningKey>,
}

impl<'a> Papers<'a> {
    pub(crate) fn of(execution: &'a Execution<'_>, image: &'a Image) -> Self {
        Self {
            settings: execution.settings,
            again: execution.plan.rollout.force,
            plan: execution.plan,
            image,
            attach: image.attach,
            key: execution.found.signing_key.as_ref(),
        }
    }

    /// A signature alone: what was made elsewhere has its papers there.
    pub(crate) fn of_copy(self) -> Self {
        Self {
            attach: Attach::default(),
            ..self
        }
    }

    /// Whether anything is to be sent at all.
    pub(crate) fn wanted(&self) -> bool {
        self.attach.sbom || self.attach.provenance || self.key.is_some()
    }

    /// Whether the image is to be signed.
    pub(crate) fn signs(&self) -> bool {
        self.key.is_some()
    }

    /// Sends them. An image that cannot be signed is not released; one without the rest is, with a
    /// warning: nothing that runs it asks for them.
    pub(crate) fn send(
        &self,
        run: &Run<'_>,
        client: &Client,
        destination: &Destination,
        about: &About<'_>,
    ) -> Result<(), Failure> {
        let mut documents = Vec::new();
        if self.attach.sbom && is_told(run, about) {
            documents.push(("list of parts (SBOM)", self.sbom(destination, about)));
        }
        if self.attach.provenance {
            documents.push(("provenance", self.provenance(destination, about)));
        }
        for (name, document) in documents {
            let sent = document.and_then(|document| {
                send::attach(client, &destination.repository, &about.manifest, &document)
                    .map_err(|e| with_causes(&e))
            });
            run.stop_if_interrupted(Step::Push)?;
            if let Err(why) = sent {
                let text = format!("the image's {name} is not attached: {why}");
                run.reporter.event(Event::Warning(text));
            }
        }
        self.sign(client, destination, about)
    }

    fn sign(
        &self,
        client: &Client,
        destination: &Destination,
        about: &About<'_>,
    ) -> Result<(), Failure> {
        let Some(key) = self.key else {
            return Ok(());
        };
        let (registry, repository) = (&destination.registry, &destination.repository);
        signature::sign(client, repository, registry, &about.manifest.digest, key).map_err(
            |error| match &error {
                SignError::Registry(ClientError::Interrupted) => {
                    push::failure(&ClientError::Interrupted)
                }
                _ => unsigned(&with_causes(&error), about.docker.is_some()),
            },
        )
    }

    fn sbom(&self, destination: &Destination, about: &About<'_>) -> Result<Document, String> {
        let root = &self.settings.root;
        let facts = cargo::facts(root, &self.settings.config.build.manifests, about.programs)?;
        let of = sbom::Subject {
            name: format!("{}/{}", destination.registry, destination.repository),
            digest: about.manifest.digest,
        };
        Ok(Document {
            media_type: sbom::MEDIA_TYPE,
            bytes: sbom::document(&of, &facts),
        })
    }

    fn provenance(&self, destination: &Destination, about: &About<'_>) -> Result<Document, String> {
        let statement = provenance::Statement::of(&provenance::Made {
            root: &self.settings.root,
            image: self.image,
            plan: self.plan,
            name: format!("{}/{}", destination.registry, destination.repository),
            digest: about.manifest.digest,
            bases: about.bases,
            docker: about.docker,
        });
        let bytes = to_json(&statement);
        let Some(key) = self.key else {
            return Ok(Document {
                media_type: provenance::MEDIA_TYPE,
                bytes,
            });
        };
        let envelope = envelope::sealed(provenance::MEDIA_TYPE, &bytes, key);
        Ok(Document {
            media_type: envelope::MEDIA_TYPE,
            bytes: envelope.map_err(|e| e.to_string())?,
        })
    }
}

/// Whether anything is known of the programs in the image: those that a command of its Dockerfile
/// compiles are none of cargo's here, and an empty list would say that there is nothing in it.
fn is_told(run: &Run<'_>, about: &About<'_>) -> bool {
    let unknown = about.docker.is_some() && about.programs.is_empty();
    if unknown {
        let text = "the image gets no list of parts: none of its programs was built here by cargo";
        run.reporter.event(Event::Note(text.to_owned()));
    }
    !unknown
}

/// Whoever has given a key wants a signature: better no deployment than one without.
fn unsigned(why: &str, tagged: bool) -> Failure {
    Failure::new(
        Step::Push,
        "signature_not_sent",
        Exit::Push,
        format!("the image is not signed: {why}"),
        if tagged {
            "run the same command again; the image has its tag, but it was not deployed"
        } else {
            "run the same command again; without its signature the image gets no tag"
        },
    )
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "plain structs with string keys always serialise"
    )]
    serde_json::to_vec(value).expect("plain structs serialise")
}
