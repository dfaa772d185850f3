//! Deploys what an `aramb.toml` describes.

pub mod install;
mod plane;

pub use plane::{
    Application, Build, Built, ControlPlane, Deployed, Deployment, Flow, Missing, Waited,
};
