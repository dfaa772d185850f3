//! Deploys what an `aramb.toml` describes: the same ten steps on whichever control plane.

mod cli;
mod file;
mod finish;
mod flow;
mod git;
pub mod install;
pub(crate) mod pins;
mod plane;
mod platform;
mod reuse;
mod state;
mod undo;

pub use cli::Cli;
pub use finish::Finished;
pub use flow::{Policy, Request, deploy};
pub use plane::{
    Application, Build, Built, ControlPlane, Deployed, Deployment, Flow, Missing, Waited,
};
pub use platform::OwnPlatform;

use deploy_plan::aramb::{FlowError, FlowStep};
use deploy_plan::exit::Exit;

/// The variable that holds the token of the control plane.
pub(crate) const TOKEN_VARIABLE: &str = "ARAMB_API_TOKEN";

/// The user wants out before anything was asked of the control plane.
fn interrupted(step: FlowStep) -> FlowError {
    FlowError::new(step, "interrupted", Exit::Interrupted, "Interrupted")
        .with("nothing was deployed; the same command takes it up again")
}
