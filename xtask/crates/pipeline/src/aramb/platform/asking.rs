//! The release of a file: planned, asked for, and followed to its end.

use std::sync::Arc;

use deploy_plan::aramb::translate::{Names, Translated};
use deploy_plan::aramb::{FlowError, FlowStep, Selection};
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::Request;
use management_api::types::SecretsRequest;
use secrecy::SecretString;

use super::shown::{self, Renaming};
use super::{Asked, OwnPlatform, Planned, first, internal, live, make_folder, names, seen};
use crate::aramb::plane::{Deployment, Flow, Waited};
use crate::control::{self, Control};
use crate::deploy::{Execution, Prepared, accepted, ask, finish, prepare, timeout};

/// Stands for the digest of an image that is not built yet.
const UNKNOWN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

impl OwnPlatform {
    /// Everything that speaks against the release, its images aside.
    pub(super) fn everything_wrong(
        &mut self,
        flow: &Flow<'_>,
        selection: &Selection,
    ) -> Vec<FlowError> {
        let names = match names(flow) {
            Ok(names) => names,
            Err(error) => return vec![error],
        };
        let builds = 0..flow.file.services.len();
        let images = builds.map(|build| (build, UNKNOWN.to_owned())).collect();
        let base = self.settings_for(flow, |_| {});
        let found = self.observer(flow, &base).target();
        let live = found.observed.live.as_ref();
        let moved = live::moved(live, &names).filter(|_| !selection.is_everything);
        if let Some(error) = moved {
            return vec![error];
        }
        let live = live::digests(live, &names);
        let deployment = Deployment {
            services: &selection.services,
            is_everything: selection.is_everything,
            images: &images,
        };
        let services = live::services(flow, &deployment, &live);
        let translated = self.translate(flow, &names, &services, &images, found.control.as_ref());
        let translated = match translated {
            Ok(translated) => translated,
            Err(errors) => return errors,
        };
        let settings = self.settings_for(flow, |config| translated.apply(config));
        let builds = translated.builds.keys();
        let there = builds.map(|position| {
            let name = names.on_platform(*position);
            (name.to_owned(), UNKNOWN.to_owned())
        });
        let request = Request {
            there: there.collect(),
            ..self.request.clone()
        };
        let secrets = translated.secrets.0.keys().cloned();
        let planned = self.plan(flow, settings, &request, secrets);
        let failures = planned.err().unwrap_or_default().into_iter();
        let failures = failures
            .map(|failure| FlowError::of(FlowStep::Platform, &shown::failure(&names, failure)));
        failures.collect()
    }

    /// Asks for the release.
    pub(super) fn ask(
        &mut self,
        flow: &Flow<'_>,
        names: &Names,
        deployment: &Deployment<'_>,
    ) -> Result<(), FlowError> {
        let base = self.settings_for(flow, |_| {});
        let target = self.observer(flow, &base).target();
        let live = live::digests(target.observed.live.as_ref(), names);
        let services = live::services(flow, deployment, &live);
        let control = target.control.as_ref();
        let translated = self.translate(flow, names, &services, deployment.images, control);
        let translated = translated.map_err(first)?;
        let of_step =
            |failure: Failure| FlowError::of(FlowStep::Deploy, &shown::failure(names, failure));
        let release = live::Release {
            names,
            services: &services,
            builds: &translated.builds,
            live: &live,
        };
        let request = Request {
            there: live::there(flow, deployment, &release).map_err(of_step)?,
            // What the platform itself is made of was built with the images.
            skip_build: self.has_built,
            ..self.request.clone()
        };
        for note in &translated.notes {
            flow.say(format!("ℹ {note}"));
        }
        let settings = self.settings_for(flow, |config| translated.apply(config));
        let secrets = translated.secrets.0.keys().cloned();
        let planned = self.plan(flow, settings, &request, secrets);
        let planned = planned.map_err(|failures| {
            let errors = failures.into_iter().map(of_step);
            first(errors.collect())
        })?;
        self.execute(flow, names, planned, &translated)
            .map_err(of_step)
    }

    fn execute(
        &mut self,
        flow: &Flow<'_>,
        names: &Names,
        planned: Planned,
        translated: &Translated,
    ) -> Result<(), Failure> {
        let Planned {
            settings,
            plan,
            found,
        } = planned;
        let mut execution = Execution {
            settings: &settings,
            plan: &plan,
            found,
            shared: Arc::clone(&self.shared),
        };
        let reporter = Renaming {
            sink: flow.reporter,
            names,
        };
        let mut run = self.run(flow, &reporter);
        let asked = make_folder(flow.folder).and_then(|()| {
            let Prepared { control, release } = prepare(&mut run, &mut execution)?;
            let answer = run.step(Step::Deploy, |_| {
                keep_secrets(flow, &control, translated)?;
                let answer = ask(&execution, &control, &release)?;
                let summary = accepted(&answer);
                Ok((answer, summary))
            })?;
            Ok(Asked {
                control,
                answer,
                limit: timeout(&execution),
            })
        });
        self.outcome = run.outcome;
        self.asked = Some(asked?);
        Ok(())
    }

    pub(super) fn follow(&mut self, flow: &Flow<'_>, names: &Names, services: &[usize]) -> Waited {
        let Some(asked) = self.asked.take() else {
            return Waited {
                services: Vec::new(),
                error: Some(internal(FlowStep::Return)),
            };
        };
        let reporter = Renaming {
            sink: flow.reporter,
            names,
        };
        let mut run = self.run(flow, &reporter);
        let Asked {
            control,
            answer,
            limit,
        } = &asked;
        let end = finish(&mut run, control, answer, true, *limit);
        self.outcome = run.outcome;
        let waited = match end {
            Ok(()) => seen::now(control, names, services),
            Err(failure) => Waited {
                services: Vec::new(),
                error: Some(self.not_well(names, failure)),
            },
        };
        self.asked = Some(asked);
        waited
    }

    /// Why a release does not serve, with the last words of what has failed.
    fn not_well(&self, names: &Names, failure: Failure) -> FlowError {
        let mut error = FlowError::of(FlowStep::Return, &shown::failure(names, failure));
        error.details.extend(self.outcome.log_tail.iter().cloned());
        error
    }
}

/// Sets the secrets that the release names. The platform keeps the versions that there are, and makes none of what is the same.
fn keep_secrets(
    flow: &Flow<'_>,
    control: &Control,
    translated: &Translated,
) -> Result<(), Failure> {
    let secrets = &translated.secrets.0;
    if secrets.is_empty() {
        return Ok(());
    }
    let secrets = secrets.iter().map(|(name, text)| {
        flow.redactor.learn_text(text);
        (name.clone(), SecretString::from(text.clone()))
    });
    let request = SecretsRequest {
        secrets: secrets.collect(),
        externally_rotated: Vec::new(),
        remove: Vec::new(),
    };
    let changed = control.client.change_secrets(&control.tenant, &request);
    changed.map_err(|e| control::failure(Step::Deploy, &e))
}
