//! Who calls, and what they may do.

mod identity;
mod jwt;
mod registry;
mod token;

pub(crate) use identity::{Access, Identity, Permission};
pub(crate) use jwt::{SERVICE, Signer};
pub(crate) use registry::{Bearer, MAX_SCOPES, RegistryAccess, Scope, shown};
pub(crate) use token::{Issue, authenticate, basic_password, bearer, issue, renewed};
