//! `list_tenants`, `create_tenant`, `delete_tenant`.

use management_api::types::{NewTenant, Tenant};
use mcp_common::{Platform, Reply, ToolError, bounded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Arguments of tools that take none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoArguments {}

/// Arguments of `create_tenant`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTenant {
    /// 1 to 40 lower-case letters and digits, with single dashes between them. It becomes part of
    /// the repository's name and cannot be changed.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = r"^[a-z0-9]+(-[a-z0-9]+)*$")
    )]
    id: String,
    /// Display name; the id when absent.
    #[schemars(length(min = 1, max = 100))]
    name: Option<String>,
}

/// Arguments of `delete_tenant`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteTenant {
    /// The tenant.
    #[schemars(length(min = 1, max = 100))]
    id: String,
    /// The same id once more, as the user said it.
    confirm: String,
}

/// Tenants of a platform.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TenantList {
    /// The tenants, by id.
    pub tenants: Vec<Tenant>,
}

/// What was removed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeletedTenant {
    /// The tenant that is no more.
    pub deleted: String,
}

pub(crate) async fn list(platform: &Platform) -> Result<Reply<TenantList>, ToolError> {
    platform
        .call(|connection| {
            let mut tenants = connection.client.tenants()?;
            tenants.sort_by(|a, b| a.id.cmp(&b.id));
            let mut lines = vec![format!("{} tenants", tenants.len())];
            lines.extend(tenants.iter().map(describe));
            Ok(Reply::new(lines.join("\n"), TenantList { tenants }))
        })
        .await
}

pub(crate) async fn create(
    platform: &Platform,
    arguments: CreateTenant,
) -> Result<Reply<Tenant>, ToolError> {
    check_new_id(&arguments.id)?;
    if let Some(name) = &arguments.name {
        bounded("name", name, 100)?;
    }
    platform
        .call(move |connection| {
            let tenant = connection.client.create_tenant(&NewTenant {
                id: arguments.id,
                name: arguments.name,
            })?;
            Ok(Reply::new(format!("made {}", describe(&tenant)), tenant))
        })
        .await
}

pub(crate) async fn delete(
    platform: &Platform,
    arguments: DeleteTenant,
) -> Result<Reply<DeletedTenant>, ToolError> {
    bounded("id", &arguments.id, 100)?;
    if arguments.confirm != arguments.id {
        return Err(
            ToolError::argument("confirm", "is not the id: nothing was deleted").next(format!(
                "ask the user whether {} is to be removed for good, and to say its id",
                arguments.id
            )),
        );
    }
    platform
        .call(move |connection| {
            connection.client.delete_tenant(&arguments.id)?;
            let text = format!("{} was deleted", arguments.id);
            let deleted = arguments.id;
            Ok(Reply::new(text, DeletedTenant { deleted }))
        })
        .await
}

/// The embedded platform's rule; a wrong id is told without a call.
fn check_new_id(id: &str) -> Result<(), ToolError> {
    let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let parts_are_sound = id
        .split('-')
        .all(|part| !part.is_empty() && part.chars().all(sound));
    if id.len() <= 40 && parts_are_sound {
        return Ok(());
    }
    Err(ToolError::argument(
        "id",
        "is not 1 to 40 lower-case letters and digits with single dashes between them",
    ))
}

fn describe(tenant: &Tenant) -> String {
    let url = tenant.app_url.as_ref().or(tenant.hostname.as_ref());
    let url = url.map(|url| format!("  {url}")).unwrap_or_default();
    format!("{}  {}{url}", tenant.id, tenant.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        for good in ["a", "acme-2", &"a".repeat(40)] {
            assert!(check_new_id(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a--b",
            "A",
            "a b",
            "a/b",
            "ä",
            &"a".repeat(41),
        ] {
            assert!(check_new_id(bad).is_err(), "{bad}");
        }
    }
}
