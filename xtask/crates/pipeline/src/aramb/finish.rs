//! What has come of a deployment, gathered on the way.

use std::collections::BTreeSet;
use std::time::Instant;

use deploy_plan::aramb::{
    ApplicationRecord, ArambFile, ArambReport, BuildRecord, BuildRecords, DeploymentRecord,
    FlowError, FlowErrorRecord, FlowStep, OutputName, OutputsRecord, ServiceType, words,
};
use deploy_plan::exit::Exit;

use super::flow::Policy;
use super::plane::{Application, Build, Built, Deployed};

/// A service as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub service: String,
    /// Its type.
    pub kind: &'static str,
    /// How it is.
    pub state: &'static str,
    /// Where everybody reaches it.
    pub public_url: Option<String>,
    /// Where the other services reach it.
    pub internal_url: Option<String>,
}

/// The end of a deployment.
#[derive(Debug)]
pub struct Finished {
    /// For programs.
    pub report: ArambReport,
    /// For people: the services, in the order of the deployment.
    pub services: Vec<Line>,
    /// Why it failed.
    pub error: Option<FlowError>,
    /// How the command ends.
    pub exit: Exit,
}

impl Finished {
    /// The end before the beginning.
    #[must_use]
    pub fn refused(policy: Policy, error: FlowError) -> Self {
        Progress::new(policy).finish(&ArambFile::default(), Some(error))
    }
}

/// What is known so far.
pub(super) struct Progress {
    begun: Instant,
    policy: Policy,
    pub(super) application: Option<Application>,
    pub(super) builds: Vec<(Build, Built)>,
    /// Positions of the builds that the file names by their images.
    pub(super) named: BTreeSet<(usize, usize)>,
    /// Positions of services that it came to deploying.
    pub(super) asked: Option<Vec<usize>>,
    pub(super) deployed: Vec<Deployed>,
    pub(super) returned: bool,
    pub(super) is_planned: bool,
    /// Whether there is something to build.
    pub(super) has_builds: bool,
}

impl Progress {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            begun: Instant::now(),
            policy,
            application: None,
            builds: Vec::new(),
            named: BTreeSet::new(),
            asked: None,
            deployed: Vec::new(),
            returned: false,
            is_planned: false,
            has_builds: false,
        }
    }

    pub(super) fn finish(self, file: &ArambFile, error: Option<FlowError>) -> Finished {
        let exit = error.as_ref().map_or(Exit::Done, |error| self.exit(error));
        let is_unknown = self.deployed.iter().any(|service| service.is_unknown);
        let status = match &error {
            None if self.is_planned => "planned",
            None if is_unknown => "deployed",
            None => "success",
            Some(error) if self.returned || error.exit == Exit::RolledBack => "rolled_back",
            Some(_) => "failed",
        };
        let was_built = !self.builds.is_empty();
        let report = ArambReport {
            status,
            application: self
                .application
                .as_ref()
                .map(|application| ApplicationRecord {
                    id: application.id.clone(),
                    slug: application.slug.clone(),
                }),
            build_skipped: !self.has_builds,
            images_built: (!self.has_builds).then_some(0),
            builds: was_built.then(|| self.build_records(file)),
            deployments: self.deployments(file, status),
            total_time: words(self.begun.elapsed()),
            error: error
                .as_ref()
                .map(|error| FlowErrorRecord::of(error, exit.code())),
        };
        Finished {
            report,
            services: self.lines(file),
            error,
            exit,
        }
    }

    /// The strict flow knows one end for all that goes wrong.
    fn exit(&self, error: &FlowError) -> Exit {
        match self.policy {
            _ if [Exit::Interrupted, Exit::Usage].contains(&error.exit) => error.exit,
            Policy::Strict => Exit::Other,
            Policy::Guarded => error.exit,
        }
    }

    fn build_records(&self, file: &ArambFile) -> BuildRecords {
        let mut records = BuildRecords::default();
        for (build, built) in &self.builds {
            let record = |service: Option<usize>| BuildRecord {
                service: service.map(|position| file.services[position].name.clone()),
                build_service: file.services[build.service].name.clone(),
                docker_repo: build.repository.clone(),
                image: built.image.clone(),
                commit_sha: build.tag.clone(),
                build_time: words(built.took),
                status: if built.reused { "unchanged" } else { "success" },
                toml_updated: service
                    .is_some_and(|position| self.named.contains(&(position, build.service))),
            };
            let mut users: Vec<_> = self.users(file, build.service);
            users.dedup();
            if users.is_empty() {
                records.add(None, record(None));
            }
            for user in users {
                records.add(Some(file.services[user].kind), record(Some(user)));
            }
        }
        records
    }

    /// Services of this deployment that run the image of a build.
    fn users(&self, file: &ArambFile, build: usize) -> Vec<usize> {
        let named = self.named.iter().filter(|(_, named)| *named == build);
        let named: Vec<_> = named.map(|(service, _)| *service).collect();
        if !named.is_empty() {
            return named;
        }
        // The file was not changed: by what it says.
        let id = file.services[build].id;
        let asked = self.asked.iter().flatten().copied();
        asked
            .filter(|position| {
                let image = file.services[*position].settings.image.as_ref();
                image.is_some_and(|image| image.text.contains(&format!("${{{id}.outputs.")))
            })
            .collect()
    }

    fn deployments(&self, file: &ArambFile, status: &'static str) -> Option<DeploymentRecord> {
        let asked = self.asked.as_ref()?;
        let names = |some: &dyn Fn(usize) -> bool| {
            let chosen = asked.iter().filter(|position| some(**position));
            chosen
                .map(|position| file.services[*position].name.clone())
                .collect::<Vec<_>>()
        };
        let is_healthy = |position: usize| {
            let mut known = self.deployed.iter();
            known.any(|service| service.service == position && service.is_healthy)
        };
        let is_bad = |position: usize| {
            let mut known = self.deployed.iter();
            known.any(|service| {
                service.service == position && !service.is_healthy && !service.is_unknown
            })
        };
        Some(DeploymentRecord {
            services: names(&|_| true),
            status,
            backend_outputs: self
                .main(file)
                .map(|service| OutputsRecord {
                    public_url: service.output(OutputName::PublicUrl).map(str::to_owned),
                    internal_url: service.output(OutputName::InternalUrl).map(str::to_owned),
                })
                .unwrap_or_default(),
            successful: names(&is_healthy),
            failed: names(&is_bad),
        })
    }

    /// The service whose addresses are the result: the first public backend, else the first backend, else the first frontend.
    pub(super) fn main(&self, file: &ArambFile) -> Option<&Deployed> {
        let of = |kind: ServiceType, only_public: bool| {
            self.deployed.iter().find(|deployed| {
                let service = &file.services[deployed.service];
                let is_public = service.settings.public_net == Some(true);
                service.kind == kind && (is_public || !only_public)
            })
        };
        of(ServiceType::Backend, true)
            .or_else(|| of(ServiceType::Backend, false))
            .or_else(|| of(ServiceType::Frontend, false))
    }

    fn lines(&self, file: &ArambFile) -> Vec<Line> {
        let lines = self.deployed.iter().map(|deployed| {
            let service = &file.services[deployed.service];
            Line {
                service: service.name.clone(),
                kind: service.kind.name(),
                state: match deployed {
                    _ if deployed.is_healthy => "healthy",
                    _ if deployed.is_unknown => "unknown",
                    _ => "failed",
                },
                public_url: deployed.output(OutputName::PublicUrl).map(str::to_owned),
                internal_url: deployed.output(OutputName::InternalUrl).map(str::to_owned),
            }
        });
        lines.collect()
    }
}

/// Several things that are wrong: the first step that would have failed speaks, and the others are told with it.
pub(super) fn all_of(mut wrong: Vec<(FlowError, String)>) -> Option<FlowError> {
    wrong.sort_by_key(|(error, _)| error.step.number());
    let mut wrong = wrong.into_iter();
    let (mut first, remedy) = wrong.next()?;
    if !remedy.is_empty() {
        first.details.push(remedy);
    }
    for (other, remedy) in wrong {
        first
            .details
            .push(format!("also: {} (step {})", other.message, other.step));
        first.details.extend(other.details);
        if !remedy.is_empty() {
            first.details.push(remedy);
        }
    }
    if first.step.number() <= FlowStep::Names.number() && first.details.len() > 1 {
        first
            .details
            .push("how to set it all up: docs/guides/aramb.md".to_owned());
    }
    Some(first)
}
