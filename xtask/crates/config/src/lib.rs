//! Readers of what a project says about its deployment: `.systemprompt/deploy.toml`, the
//! credentials and tenants beside it, the manifests of its extensions.
//!
//! One module a file format. Everything that the process knows by itself (its environment, its
//! folder, the time) is an argument, so that two settings can be loaded side by side. What the
//! values mean is the business of [`deploy_plan::config`]; nothing here talks to a network.

pub mod aramb;
pub mod credentials;
pub mod extensions;
pub mod jwt;
pub mod project;
pub mod tenants;

mod check;
mod deploy_toml;
mod diagnostic;
mod entry;
mod nearest;
mod origin;
mod overrides;
mod private_file;
mod schema;
mod settings;
mod shape;
mod variables;

pub use diagnostic::{Diagnostic, Line, Place};
pub use nearest::nearest;
pub use origin::Origin;
pub use overrides::Overrides;
pub use private_file::{PrivateFileError, Warning, keep_out_of_git, replace_file};
pub use schema::schema_json;
pub use settings::{Explained, Settings, SettingsError};
pub use variables::variable_of;
