//! Deploys what an `aramb.toml` describes.

mod plane;

pub use plane::{
    Application, Build, Built, ControlPlane, Deployed, Deployment, Flow, Missing, Waited,
};
