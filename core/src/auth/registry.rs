//! Who may do what in the registry: a tenant's repository has the tenant's name.

use registry::{Action, Authorize, Decision};

use super::token::{basic_password, bearer, split, verified};
use super::{Identity, Permission};
use crate::store::{Store, StoreError};

/// `docker login` answers this challenge with user name and password; the password is a token.
const CHALLENGE: &str = "Basic realm=\"systemprompt\"";

/// Answers the registry's questions from the database.
pub(crate) struct RegistryAccess {
    store: Store,
}

impl RegistryAccess {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    fn identify(&self, header: Option<&str>) -> Result<Option<Identity>, StoreError> {
        use secrecy::ExposeSecret;
        let Some(token) = header.and_then(|text| bearer(text).or_else(|| basic_password(text)))
        else {
            return Ok(None);
        };
        let Some((id, secret)) = split(token.expose_secret()) else {
            return Ok(None);
        };
        let row = self.store.valid_token_blocking(id)?;
        Ok(row.and_then(|row| verified(row, secret)))
    }

    fn decide(
        &self,
        header: Option<&str>,
        repository: Option<&str>,
        action: Action,
    ) -> Result<Decision, StoreError> {
        let Some(caller) = self.identify(header)? else {
            return Ok(Decision::Challenge(CHALLENGE.to_owned()));
        };
        let Some(repository) = repository else {
            return Ok(Decision::Allow);
        };
        let permission = match action {
            Action::Pull => Permission::Look,
            Action::Push => Permission::Deploy,
        };
        // A repository without a tenant would belong to nobody and never be deployed.
        let allowed =
            caller.may(permission, repository) && self.store.tenant_blocking(repository)?.is_some();
        Ok(if allowed {
            Decision::Allow
        } else {
            Decision::Deny
        })
    }
}

impl Authorize for RegistryAccess {
    fn authorize(
        &self,
        authorization_header: Option<&str>,
        repository: Option<&str>,
        action: Action,
    ) -> Decision {
        self.decide(authorization_header, repository, action)
            .unwrap_or_else(|error| {
                tracing::error!(error = %crate::chain(&error), "the registry refuses a request");
                Decision::Deny
            })
    }
}

#[cfg(test)]
mod tests {
    use management_api::types::Role;
    use secrecy::ExposeSecret;

    use super::super::token::{Issue, issue};
    use super::*;
    use crate::store::deployment_fixtures::tenant;
    use crate::store::fixtures::store;
    use crate::store::{Actor, TenantRow, TokenKind};

    async fn header(store: &Store, role: Role, tenant: Option<&str>) -> String {
        let wanted = Issue {
            kind: TokenKind::Registry,
            name: "ci".into(),
            role,
            tenant: tenant.map(Into::into),
            parent: None,
            expires_in: Some(60),
            by: Actor::server(),
        };
        let (_, token) = issue(store, wanted).await.unwrap();
        format!("Bearer {}", token.expose_secret())
    }

    #[tokio::test]
    async fn repositories_belong_to_tenants() {
        let (store, _folder) = store();
        tenant(&store).await;
        let another = TenantRow {
            id: "a-2".into(),
            name: "a-2".into(),
            port: 2001,
            live: None,
        };
        store
            .create_tenant(another, &Actor::server())
            .await
            .unwrap();
        let access = RegistryAccess::new(store.clone());
        let operator = header(&store, Role::Operator, None).await;
        let deployer = header(&store, Role::Deployer, Some("a")).await;
        let reader = header(&store, Role::Reader, Some("a")).await;
        let stranger = header(&store, Role::Deployer, Some("a-2")).await;
        for (who, repository, pull, push) in [
            (&operator, "a", true, true),
            (&operator, "nobody", false, false),
            (&deployer, "a", true, true),
            (&deployer, "a/b", false, false),
            (&reader, "a", true, false),
            (&stranger, "a", false, false),
        ] {
            for (action, allowed) in [(Action::Pull, pull), (Action::Push, push)] {
                let decision = access.authorize(Some(who), Some(repository), action);
                let expected = if allowed {
                    Decision::Allow
                } else {
                    Decision::Deny
                };
                assert_eq!(decision, expected, "{repository} {action:?}");
            }
        }
    }

    #[tokio::test]
    async fn nobody_is_asked_to_log_in() {
        let (store, _folder) = store();
        let access = RegistryAccess::new(store);
        for header in [None, Some("Bearer sp_00_11"), Some("Basic eDp5"), Some("x")] {
            let decision = access.authorize(header, None, Action::Pull);
            assert_eq!(
                decision,
                Decision::Challenge(CHALLENGE.into()),
                "{header:?}"
            );
        }
    }
}
