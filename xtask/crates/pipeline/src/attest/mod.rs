//! What goes to the registry together with an image: its signature, what it is made of, how it was
//! made.
//!
//! All of it is sent between the image's manifest and its tag: a tag that is there says that its
//! papers are there too, so that a push with nothing to do asks one question and is done. A new
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
use deploy_plan::plan::{Image, ImageBuilder, Plan};
use oci::{Client, ClientError, Descriptor};
use serde::Serialize;

use crate::control::with_causes;
use crate::deploy::Execution;
use crate::events::Event;
use crate::image::Made;
use crate::push::{self, Destination};
use crate::run::Run;
use key::SigningKey;
use send::Document;
use signature::SignError;

/// What is to be sent with an image, and what it is made from.
pub struct Papers<'a> {
    /// The project's settings.
    pub(crate) settings: &'a Settings,
    /// Send them also for an image that is there: `--force`.
    pub(crate) again: bool,
    plan: &'a Plan,
    image: &'a Image,
    key: Option<&'a SigningKey>,
}

impl<'a> Papers<'a> {
    pub(crate) fn of(execution: &'a Execution<'_>, image: &'a Image) -> Self {
        Self {
            settings: execution.settings,
            again: execution.plan.rollout.force,
            plan: execution.plan,
            image,
            key: execution.found.signing_key.as_ref(),
        }
    }

    /// Whether anything is to be sent at all.
    pub(crate) fn wanted(&self) -> bool {
        self.image.attach.sbom || self.image.attach.provenance || self.key.is_some()
    }

    /// Sends them. An image that cannot be signed is not released; one without the rest is, with a
    /// warning: nothing that runs it asks for them.
    pub(crate) fn send(
        &self,
        run: &Run<'_>,
        client: &Client,
        destination: &Destination,
        made: &Made,
    ) -> Result<(), Failure> {
        let mut documents = Vec::new();
        if self.image.attach.sbom {
            documents.push(("list of parts (SBOM)", self.sbom(destination, made)));
        }
        if self.image.attach.provenance {
            documents.push(("provenance", self.provenance(destination, made)));
        }
        let subject = subject(made);
        for (name, document) in documents {
            let sent = document.and_then(|document| {
                send::attach(client, &destination.repository, &subject, &document)
                    .map_err(|e| with_causes(&e))
            });
            run.stop_if_interrupted(Step::Push)?;
            if let Err(why) = sent {
                let text = format!("the image's {name} is not attached: {why}");
                run.reporter.event(Event::Warning(text));
            }
        }
        self.sign(client, destination, made)
    }

    fn sign(&self, client: &Client, destination: &Destination, made: &Made) -> Result<(), Failure> {
        let Some(key) = self.key else {
            return Ok(());
        };
        let (registry, repository) = (&destination.registry, &destination.repository);
        signature::sign(client, repository, registry, &made.digest, key).map_err(|error| {
            match &error {
                SignError::Registry(ClientError::Interrupted) => {
                    push::failure(&ClientError::Interrupted)
                }
                _ => Failure::new(
                    Step::Push,
                    "signature_not_sent",
                    Exit::Push,
                    format!("the image is not signed: {}", with_causes(&error)),
                    "run the same command again; without its signature the image gets no tag",
                ),
            }
        })
    }

    fn sbom(&self, destination: &Destination, made: &Made) -> Result<Document, String> {
        let root = &self.settings.root;
        let facts = cargo::facts(root, &self.settings.config.build.manifests, &made.programs)?;
        let of = sbom::Subject {
            name: format!("{}/{}", destination.registry, destination.repository),
            digest: made.digest,
        };
        Ok(Document {
            media_type: sbom::MEDIA_TYPE,
            bytes: sbom::document(&of, &facts),
        })
    }

    fn provenance(&self, destination: &Destination, made: &Made) -> Result<Document, String> {
        let statement = provenance::Statement::of(&provenance::Made {
            root: &self.settings.root,
            image: self.image,
            plan: self.plan,
            name: format!("{}/{}", destination.registry, destination.repository),
            digest: made.digest,
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

/// Whoever has given a key wants a signature: better no image than one without.
pub(crate) fn check(execution: &Execution<'_>) -> Result<(), Failure> {
    let image = execution.plan.image.as_ref();
    let by_docker = image.is_some_and(|image| image.builder == ImageBuilder::Docker);
    if by_docker && execution.found.signing_key.is_some() {
        return Err(Failure::preflight(
            "signing_needs_native",
            "there is a key to sign with, but Docker builds and pushes this image",
            "use --builder native, or take the key away (image.signing_key_file, \
             SYSTEMPROMPT_SIGNING_KEY)",
        ));
    }
    Ok(())
}

fn subject(made: &Made) -> Descriptor {
    Descriptor::of(made.manifest.media_type(), &made.manifest.to_vec())
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "plain structs with string keys always serialise"
    )]
    serde_json::to_vec(value).expect("plain structs serialise")
}
