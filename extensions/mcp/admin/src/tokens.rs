//! `list_tokens`, `create_token`, `revoke_token`.

use management_api::types::{IssuedToken, NewToken, Role, TokenInfo};
use mcp_common::{Platform, Reply, ToolError, bounded};
use schemars::JsonSchema;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

/// Ten years; whoever wants longer wants no end.
const MAX_LIFETIME: u64 = 10 * 365 * 86_400;

/// Arguments of `create_token`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateToken {
    /// Who or what will use it; shown in the history of deployments.
    #[schemars(length(min = 1, max = 100))]
    name: String,
    /// `reader` looks at one tenant, `deployer` deploys to one tenant, `operator` does everything.
    role: Role,
    /// The one tenant it is for; needed unless the role is `operator`.
    #[schemars(length(min = 1, max = 100))]
    tenant: Option<String>,
    /// Seconds until it ends; never when absent.
    #[schemars(range(min = 1, max = 315_360_000))]
    expires_in_seconds: Option<u64>,
}

/// Arguments of `revoke_token`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeToken {
    /// Id of the token, as `list_tokens` says (not its secret part).
    #[schemars(length(min = 1, max = 100))]
    id: String,
}

/// Tokens of a platform.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenList {
    /// The tokens, without their secret part.
    pub tokens: Vec<TokenInfo>,
}

/// A new token.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NewTokenAnswer {
    /// The token and its secret part, which is in this answer only.
    pub issued: IssuedToken,
}

/// What was ended.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RevokedToken {
    /// Id of the token that is no more.
    pub revoked: String,
}

pub(crate) async fn list(platform: &Platform) -> Result<Reply<TokenList>, ToolError> {
    platform
        .call(|connection| {
            let tokens = connection.client.tokens()?;
            let mut lines = vec![format!("{} tokens", tokens.len())];
            lines.extend(tokens.iter().map(describe));
            Ok(Reply::new(lines.join("\n"), TokenList { tokens }))
        })
        .await
}

pub(crate) async fn create(
    platform: &Platform,
    arguments: CreateToken,
) -> Result<Reply<NewTokenAnswer>, ToolError> {
    check(&arguments)?;
    let wanted = NewToken {
        name: arguments.name,
        role: arguments.role,
        tenant: arguments.tenant,
        expires_in: arguments.expires_in_seconds,
    };
    platform
        .call(move |connection| {
            let issued = connection.client.create_token(&wanted)?;
            let text = format!(
                "made {}\nSECRET, shown this once, to be stored by the user and repeated nowhere: {}",
                describe(&issued.info),
                issued.token.expose_secret()
            );
            Ok(Reply::new(text, NewTokenAnswer { issued }))
        })
        .await
}

pub(crate) async fn revoke(
    platform: &Platform,
    arguments: RevokeToken,
) -> Result<Reply<RevokedToken>, ToolError> {
    bounded("id", &arguments.id, 100)?;
    platform
        .call(move |connection| {
            connection.client.revoke_token(&arguments.id)?;
            let text = format!("token {} was revoked", arguments.id);
            let revoked = arguments.id;
            Ok(Reply::new(text, RevokedToken { revoked }))
        })
        .await
}

fn check(arguments: &CreateToken) -> Result<(), ToolError> {
    bounded("name", &arguments.name, 100)?;
    if let Some(tenant) = &arguments.tenant {
        bounded("tenant", tenant, 100)?;
    }
    match (arguments.role, &arguments.tenant) {
        (Role::Deployer | Role::Reader, None) => {
            return Err(ToolError::argument("tenant", "is missing for this role")
                .next("pass the id of the tenant that the token is for"));
        }
        (Role::Operator, Some(_)) => {
            return Err(ToolError::argument("tenant", "does not bind an operator")
                .next("leave it out, or use the role `deployer` or `reader`"));
        }
        _ => {}
    }
    let lifetime = arguments.expires_in_seconds;
    if lifetime.is_some_and(|seconds| !(1..=MAX_LIFETIME).contains(&seconds)) {
        let why = format!("is not within 1 to {MAX_LIFETIME}");
        return Err(ToolError::argument("expires_in_seconds", why));
    }
    Ok(())
}

fn describe(token: &TokenInfo) -> String {
    let role = match token.role {
        Role::Operator => "operator",
        Role::Deployer => "deployer",
        Role::Reader => "reader",
    };
    let scope = token.tenant.as_ref().map(|tenant| format!(" of {tenant}"));
    let end = token.expires_at.map_or("never ends".to_owned(), |end| {
        format!("ends {}", end.format("%Y-%m-%d %H:%M UTC"))
    });
    format!(
        "{}  {}  {role}{}, {end}",
        token.id,
        token.name,
        scope.unwrap_or_default()
    )
}
