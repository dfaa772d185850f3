//! The tools as the SDK sees them: names, descriptions, schemas, hints.

use management_api::types::Tenant;
use mcp_common::{Platform, Reply, ToolError, output_schema};
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{Implementation, ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};

use crate::tenants::{self, CreateTenant, DeleteTenant, DeletedTenant, NoArguments, TenantList};
use crate::tokens::{self, CreateToken, NewTokenAnswer, RevokeToken, RevokedToken, TokenList};

/// The server. What it knows is the platform's; it keeps nothing but a connection.
#[derive(Clone)]
pub(crate) struct Admin {
    platform: Platform,
    router: ToolRouter<Self>,
}

#[tool_router(router = tools)]
impl Admin {
    pub(crate) fn new() -> Self {
        Self {
            platform: Platform::default(),
            router: Self::tools(),
        }
    }

    /// The tenants of the platform that this server's token can see.
    #[tool(
        title = "List tenants",
        output_schema = output_schema::<TenantList>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn list_tenants(
        &self,
        Parameters(NoArguments {}): Parameters<NoArguments>,
    ) -> Result<Reply<TenantList>, ToolError> {
        tenants::list(&self.platform).await
    }

    /// Makes a tenant: a repository, a URL and a history of its own.
    #[tool(
        title = "Create a tenant",
        output_schema = output_schema::<Tenant>(),
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    async fn create_tenant(
        &self,
        Parameters(arguments): Parameters<CreateTenant>,
    ) -> Result<Reply<Tenant>, ToolError> {
        tenants::create(&self.platform, arguments).await
    }

    /// Stops a tenant's application and removes the tenant with everything it has, for good. The
    /// id has to be given twice.
    #[tool(
        title = "Delete a tenant",
        output_schema = output_schema::<DeletedTenant>(),
        annotations(
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn delete_tenant(
        &self,
        Parameters(arguments): Parameters<DeleteTenant>,
    ) -> Result<Reply<DeletedTenant>, ToolError> {
        tenants::delete(&self.platform, arguments).await
    }

    /// The API tokens of the platform: names, roles, ends; never their secret part.
    #[tool(
        title = "List tokens",
        output_schema = output_schema::<TokenList>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn list_tokens(
        &self,
        Parameters(NoArguments {}): Parameters<NoArguments>,
    ) -> Result<Reply<TokenList>, ToolError> {
        tokens::list(&self.platform).await
    }

    /// Makes an API token. The answer holds its secret part, which is never shown again: hand it
    /// to the user and repeat it nowhere else.
    #[tool(
        title = "Create a token",
        output_schema = output_schema::<NewTokenAnswer>(),
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    async fn create_token(
        &self,
        Parameters(arguments): Parameters<CreateToken>,
    ) -> Result<Reply<NewTokenAnswer>, ToolError> {
        tokens::create(&self.platform, arguments).await
    }

    /// Ends an API token at once. Whoever uses it is refused from then on.
    #[tool(
        title = "Revoke a token",
        output_schema = output_schema::<RevokedToken>(),
        annotations(
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn revoke_token(
        &self,
        Parameters(arguments): Parameters<RevokeToken>,
    ) -> Result<Reply<RevokedToken>, ToolError> {
        tokens::revoke(&self.platform, arguments).await
    }
}

#[tool_handler(router = self.router)]
impl ServerHandler for Admin {
    fn get_info(&self) -> ServerConfig {
        let server = Implementation::new("systemprompt-admin", env!("CARGO_PKG_VERSION"))
            .with_title("systemprompt administration");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(server)
            .with_instructions(
                "Tenants and API tokens of a systemprompt platform, with an operator's rights. \
                 Use the tools that change something only when the user asks for exactly that. \
                 `delete_tenant` cannot be undone: ask the user to say the tenant's id, and pass \
                 it as `confirm`. Prefer tokens with the role `reader` or `deployer` for one \
                 tenant and an end.",
            )
    }
}
