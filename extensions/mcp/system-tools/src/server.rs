//! The tools as the SDK sees them: names, descriptions, schemas, hints.

use mcp_common::{Reply, ToolError, blocking, output_schema};
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{Implementation, ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};

use crate::host::{self, HostArguments, HostInfo};
use crate::ports::{self, PortArguments, PortList};
use crate::process::{self, ProcessArguments, ProcessDetails};
use crate::processes::{self, ProcessList, ProcessListArguments};

/// The server. It has no state: every call reads the system anew.
#[derive(Clone)]
pub(crate) struct SystemTools {
    router: ToolRouter<Self>,
}

#[tool_router(router = tools)]
impl SystemTools {
    pub(crate) fn new() -> Self {
        Self {
            router: Self::tools(),
        }
    }

    /// Facts about this host: kernel, operating system, uptime, load, processors, memory, and the
    /// file system that holds a path.
    #[tool(
        title = "Host facts",
        output_schema = output_schema::<HostInfo>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn host_info(
        &self,
        Parameters(arguments): Parameters<HostArguments>,
    ) -> Result<Reply<HostInfo>, ToolError> {
        blocking(move || host::read(&arguments)).await
    }

    /// The processes of this host that use most memory or processor time.
    #[tool(
        title = "Top processes",
        output_schema = output_schema::<ProcessList>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn processes(
        &self,
        Parameters(arguments): Parameters<ProcessListArguments>,
    ) -> Result<Reply<ProcessList>, ToolError> {
        blocking(move || processes::list(&arguments)).await
    }

    /// One process: command line (what looks like a secret is taken out), state, memory, limits,
    /// number of open files.
    #[tool(
        title = "One process",
        output_schema = output_schema::<ProcessDetails>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn process(
        &self,
        Parameters(arguments): Parameters<ProcessArguments>,
    ) -> Result<Reply<ProcessDetails>, ToolError> {
        blocking(move || process::read(&arguments)).await
    }

    /// Listening TCP sockets of this host, with the processes that own them where they may be
    /// read.
    #[tool(
        title = "Listening ports",
        output_schema = output_schema::<PortList>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn ports(
        &self,
        Parameters(arguments): Parameters<PortArguments>,
    ) -> Result<Reply<PortList>, ToolError> {
        blocking(move || ports::list(&arguments)).await
    }
}

#[tool_handler(router = self.router)]
impl ServerHandler for SystemTools {
    fn get_info(&self) -> ServerConfig {
        let server = Implementation::new("system-tools", env!("CARGO_PKG_VERSION"))
            .with_title("System tools");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(server)
            .with_instructions(
                "Facts about the host this server runs on, read only. Begin with `host_info`; \
                 `processes` finds what uses memory or processor time and `process` looks at one \
                 of them by its pid; `ports` says who listens where. Sizes are bytes, times are \
                 seconds. A null is a fact that this server's user may not read.",
            )
    }
}
