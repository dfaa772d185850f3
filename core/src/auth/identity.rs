//! Roles and what they allow. Pure.

use std::net::IpAddr;

use management_api::types::Role;

use crate::store::Actor;

/// What is to be done to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Read its state, history and logs.
    Look,
    /// Change what it runs.
    Deploy,
    /// Remove it.
    Administer,
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    Public,
    /// A valid token of any role.
    AnyToken,
    /// A permission on the tenant in the path.
    Tenant(Permission),
    /// The operator.
    Operator,
    /// A valid token, or none when the server listens on loopback only and no proxy stands in front.
    Scrape,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Id of the token that people made: the shown one, or the one it was derived from.
    pub(crate) root_token: String,
    /// Shown in the history as the actor.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The one tenant it is for.
    pub(crate) tenant: Option<String>,
}

impl Identity {
    /// Whether this caller may do `permission` to `tenant`.
    pub(crate) fn may(&self, permission: Permission, tenant: &str) -> bool {
        let own = self.tenant.as_deref().is_none_or(|own| own == tenant);
        let enough = match self.role {
            Role::Operator => true,
            Role::Deployer => permission != Permission::Administer,
            Role::Reader => permission == Permission::Look,
        };
        // Only an operator's token may be without a tenant.
        let bound = self.tenant.is_some() || self.role == Role::Operator;
        own && enough && bound
    }

    /// What the audit log says of this caller, who is at the other end of a connection from `address`.
    pub(crate) fn actor(&self, address: Option<IpAddr>) -> Actor {
        Actor {
            name: self.name.clone(),
            token: Some(self.root_token.clone()),
            role: Some(self.role),
            address,
        }
    }

    /// Whether this caller is the operator of the whole platform.
    pub(crate) fn is_operator(&self) -> bool {
        self.role == Role::Operator && self.tenant.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: Role, tenant: Option<&str>) -> Identity {
        Identity {
            root_token: "t".into(),
            name: "n".into(),
            role,
            tenant: tenant.map(Into::into),
        }
    }

    #[test]
    fn what_each_role_may_do_to_its_own_and_to_another_tenant() {
        use Permission::{Administer, Deploy, Look};
        for (role, tenant, own, other) in [
            (Role::Operator, None, &[Look, Deploy, Administer][..], true),
            (
                Role::Operator,
                Some("a"),
                &[Look, Deploy, Administer],
                false,
            ),
            (Role::Deployer, Some("a"), &[Look, Deploy], false),
            (Role::Reader, Some("a"), &[Look], false),
            (Role::Deployer, None, &[], false),
            (Role::Reader, None, &[], false),
        ] {
            let caller = identity(role, tenant);
            for permission in [Look, Deploy, Administer] {
                let context = format!("{role:?} {tenant:?} {permission:?}");
                assert_eq!(
                    caller.may(permission, "a"),
                    own.contains(&permission),
                    "{context}"
                );
                assert_eq!(caller.may(permission, "b"), other, "{context}");
            }
        }
    }
}
