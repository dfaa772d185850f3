//! Who calls, and what they may do.

mod identity;
mod registry;
mod token;

pub(crate) use identity::{Access, Identity, Permission};
pub(crate) use registry::RegistryAccess;
pub(crate) use token::{Issue, authenticate, bearer, issue};
