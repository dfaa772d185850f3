//! What a control plane does for the flow. There are two: the one behind the `aramb` command, and the platform of this project.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use deploy_plan::aramb::{ArambFile, FlowError, Graph, OutputName, Selection};
use secrecy::SecretString;

use crate::events::{Event, Reporter};
use crate::interrupt::Interrupts;
use crate::redact::Redactor;

/// What all steps may use.
pub struct Flow<'a> {
    /// Behind the redactor.
    pub reporter: &'a dyn Reporter,
    /// What must pass no sink.
    pub redactor: &'a Redactor,
    /// Whether the user wants out.
    pub interrupts: &'a Interrupts,
    /// The folder of the file.
    pub folder: &'a Path,
    /// What the file describes.
    pub file: &'a ArambFile,
    /// Who takes what from whom.
    pub graph: &'a Graph,
    /// How long the services may take until they are healthy.
    pub timeout: Duration,
    /// Whether a control plane that does not answer is asked again.
    pub is_patient: bool,
}

impl Flow<'_> {
    /// Says a line.
    pub fn say(&self, line: impl Into<String>) {
        self.reporter.event(Event::Output(line.into()));
    }
}

/// Something that the environment lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The step that would fail for it, with the words it would fail with.
    pub error: FlowError,
    /// What to do, as commands to type.
    pub remedy: String,
}

/// An application, as its control plane knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Its number or name there.
    pub id: String,
    /// The first part of the names of its images.
    pub slug: String,
}

/// An image that is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Position of the build in the file.
    pub service: usize,
    /// `{application}/{build}`
    pub repository: String,
    /// The commit, shortened.
    pub tag: String,
    /// Whether it goes to a registry as well.
    pub push: bool,
}

impl Build {
    /// `{application}/{build}:{commit}`
    #[must_use]
    pub fn image(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Position of the build in the file.
    pub service: usize,
    /// What the services that run it are to name.
    pub image: String,
    /// How long it took.
    pub took: Duration,
    /// It was there already.
    pub reused: bool,
}

/// What is deployed.
#[derive(Debug, Clone)]
pub struct Deployment<'a> {
    /// Positions of the services that are deployed, databases first, frontends last.
    pub services: &'a [usize],
    /// Whether these are all that run: nothing was selected.
    pub is_everything: bool,
    /// The images of builds, by the position of the build.
    pub images: &'a BTreeMap<usize, String>,
}

/// How a service is, once it has been waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deployed {
    /// Position of the service in the file.
    pub service: usize,
    /// Whether it is well.
    pub is_healthy: bool,
    /// The control plane did not tell.
    pub is_unknown: bool,
    /// What it has told of itself: `PUBLIC_URL`, `INTERNAL_URL` and more.
    pub outputs: BTreeMap<String, String>,
}

impl Deployed {
    /// An output under any of its names.
    #[must_use]
    pub fn output(&self, name: OutputName) -> Option<&str> {
        let mut names = OutputName::NAMES.iter().filter(|(_, same)| *same == name);
        names.find_map(|(name, _)| self.outputs.get(*name).map(String::as_str))
    }
}

/// The services that were waited for, and what was wrong with the first that is not well.
#[derive(Debug, Default)]
pub struct Waited {
    /// As far as they are known, in the order of the deployment.
    pub services: Vec<Deployed>,
    /// Why it was not waited for the rest.
    pub error: Option<FlowError>,
}

/// A control plane.
pub trait ControlPlane {
    /// Everything that the environment lacks for what is built and deployed, before anything is done. Changes nothing.
    fn missing(&mut self, flow: &Flow<'_>, selection: &Selection) -> Vec<Missing>;

    /// Finds the command or the server; in words which one.
    ///
    /// # Errors
    ///
    /// When it is not there.
    fn reach(&mut self, flow: &Flow<'_>) -> Result<String, FlowError>;

    /// The application that is deployed to. Asked only where images are built.
    ///
    /// # Errors
    ///
    /// When the control plane does not tell.
    fn application(&mut self, flow: &Flow<'_>) -> Result<Application, FlowError>;

    /// Whether a build takes nothing but what is in its folder.
    fn builds_from_folder(&mut self, flow: &Flow<'_>, build: usize) -> bool;

    /// Builds images, in the order in which they stand.
    ///
    /// # Errors
    ///
    /// When one cannot be built: the first of them.
    fn build(&mut self, flow: &Flow<'_>, builds: &[Build]) -> Result<Vec<Built>, FlowError>;

    /// Deploys services. The file in its folder names the images by now.
    ///
    /// # Errors
    ///
    /// When the control plane refuses.
    fn deploy(&mut self, flow: &Flow<'_>, deployment: &Deployment<'_>) -> Result<(), FlowError>;

    /// Waits until services are well or one is not, for as long as the flow allows.
    fn wait(&mut self, flow: &Flow<'_>, services: &[usize]) -> Waited;

    /// How services are now, asked once.
    fn look(&mut self, flow: &Flow<'_>, services: &[usize]) -> Waited;

    /// Whether all services are one deployment that succeeds or returns as a whole. Then the file is not looked at again:
    /// the images are in the [`Deployment`].
    fn is_transaction(&self) -> bool;

    /// What must reach no sink and stands in the environment.
    fn secrets(&self) -> Vec<SecretString> {
        Vec::new()
    }
}
