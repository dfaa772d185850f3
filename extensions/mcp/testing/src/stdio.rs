//! A server's binary as a child process, driven by the SDK's client over its pipes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResult, ErrorCode, ProgressNotificationParam, ProtocolVersion,
    Tool,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, NotificationContext, RoleClient, RunningService,
    ServiceError,
};
use rmcp::{ClientHandler, ServiceExt as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{PATIENCE, Variables, command, temporary_folder, terminate};

/// A running server with the client that is connected to it.
pub struct Server {
    client: RunningService<RoleClient, Listener>,
    child: Child,
    stderr: JoinHandle<String>,
    progress: Progress,
    home: TempDir,
}

type Progress = Arc<Mutex<Vec<String>>>;

/// What a tool answered.
#[derive(Debug)]
pub struct Answer {
    /// Whether the tool says that it failed.
    pub failed: bool,
    /// The text blocks, joined.
    pub text: String,
    /// The structured content; null where there is none.
    pub value: Value,
}

/// The client's side: keeps the messages of progress notifications.
#[derive(Clone, Default)]
struct Listener {
    progress: Progress,
}

impl ClientHandler for Listener {
    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        let message = progress.message.unwrap_or_default();
        lock(&self.progress).push(message);
    }
}

impl Server {
    /// Starts the binary and shakes hands as most clients of today do (`initialize`).
    pub async fn start(binary: &str, variables: Variables<'_>) -> Self {
        Self::launch(binary, variables, ClientLifecycleMode::Initialize).await
    }

    /// Starts the binary and talks as protocol revision 2026-07-28 does (`server/discover`).
    pub async fn start_discovering(binary: &str, variables: Variables<'_>) -> Self {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        let lifecycle = ClientLifecycleMode::Discover { preferred_versions };
        Self::launch(binary, variables, lifecycle).await
    }

    /// Starts the binary in a folder that may belong to a project.
    pub async fn start_in(binary: &str, folder: &Path) -> Self {
        let home = temporary_folder();
        let mut command = command(binary, &[], &[], &home);
        command.current_dir(folder);
        Self::connect(command, ClientLifecycleMode::Initialize, home).await
    }

    async fn launch(
        binary: &str,
        variables: Variables<'_>,
        lifecycle: ClientLifecycleMode,
    ) -> Self {
        let home = temporary_folder();
        let command = command(binary, &[], variables, &home);
        Self::connect(command, lifecycle, home).await
    }

    async fn connect(mut command: Command, lifecycle: ClientLifecycleMode, home: TempDir) -> Self {
        let mut child = command.spawn().expect("start the server");
        let pipes = (
            child.stdout.take().expect("standard output is a pipe"),
            child.stdin.take().expect("standard input is a pipe"),
        );
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let stderr = tokio::spawn(read_to_end(stderr));
        let listener = Listener::default();
        let progress = Arc::clone(&listener.progress);
        let connected = match lifecycle {
            ClientLifecycleMode::Initialize => timeout(PATIENCE, listener.serve(pipes)).await,
            other => timeout(PATIENCE, listener.serve_with_lifecycle(pipes, other)).await,
        };
        Self {
            client: connected
                .expect("the handshake takes too long")
                .expect("the handshake fails"),
            child,
            stderr,
            progress,
            home,
        }
    }

    /// What the server says of itself: name, version, instructions.
    #[must_use]
    pub fn introduction(&self) -> (String, String, String) {
        let info = self
            .client
            .peer_info()
            .expect("the server introduced itself");
        let server = info
            .server_info
            .clone()
            .expect("the server says its name and version");
        let instructions = info.instructions.clone().unwrap_or_default();
        (server.name, server.version, instructions)
    }

    /// All tools, by name.
    pub async fn tools(&self) -> Vec<Tool> {
        let listed = timeout(PATIENCE, self.client.list_all_tools()).await;
        let mut tools = listed
            .expect("listing the tools takes too long")
            .expect("list the tools");
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools
    }

    /// Names of all tools, sorted.
    pub async fn tool_names(&self) -> Vec<String> {
        let tools = self.tools().await;
        tools
            .into_iter()
            .map(|tool| tool.name.into_owned())
            .collect()
    }

    /// Calls a tool; the answer may be a tool error.
    pub async fn call(&self, tool: &str, arguments: Value) -> Answer {
        Answer::of(
            self.try_call(tool, arguments)
                .await
                .expect("a tool's answer"),
        )
    }

    /// Calls a tool that must work.
    pub async fn succeed(&self, tool: &str, arguments: Value) -> Answer {
        let answer = self.call(tool, arguments).await;
        assert!(!answer.failed, "{tool} failed: {}", answer.text);
        assert!(
            !answer.value.is_null(),
            "{tool} answers no structured content"
        );
        assert!(!answer.text.is_empty(), "{tool} answers no text");
        answer
    }

    /// Calls a tool that must fail with a tool error that holds `expected`.
    pub async fn fail(&self, tool: &str, arguments: Value, expected: &str) -> Answer {
        let answer = self.call(tool, arguments).await;
        assert!(answer.failed, "{tool} worked: {}", answer.text);
        assert!(
            answer.text.contains(expected),
            "{tool} failed without saying {expected:?}: {}",
            answer.text
        );
        answer
    }

    /// Checks that a tool which does not exist is a protocol error.
    pub async fn refuse_unknown_tool(&self) {
        match self.try_call("no_such_tool", Value::Null).await {
            Err(ServiceError::McpError(error)) => {
                assert_eq!(error.code, ErrorCode::INVALID_PARAMS, "{error:?}");
            }
            other => panic!("an unknown tool was answered with {other:?}"),
        }
    }

    async fn try_call(&self, tool: &str, arguments: Value) -> Result<CallToolResult, ServiceError> {
        let mut request = CallToolRequestParams::new(tool.to_owned());
        request.arguments = match arguments {
            Value::Null => None,
            Value::Object(map) => Some(map),
            other => panic!("arguments must be an object, not {other}"),
        };
        // Longer than the minute that a call may be told to wait.
        timeout(Duration::from_mins(2), self.client.call_tool(request))
            .await
            .expect("the tool takes too long")
    }

    /// Messages of the progress notifications so far.
    #[must_use]
    pub fn progress(&self) -> Vec<String> {
        lock(&self.progress).clone()
    }

    /// Asks the server to end as a service manager does, while its client is still there. It must
    /// end with success.
    pub async fn terminate(mut self) {
        terminate(&self.child).await;
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("the server ignores SIGTERM")
            .expect("wait for the server");
        assert!(status.success(), "the server ended with {status}");
    }

    /// Closes the pipe. The server must end by itself, with success; answers its standard error.
    pub async fn stop(self) -> String {
        let Self {
            client,
            mut child,
            stderr,
            home: _home,
            ..
        } = self;
        client.cancel().await.expect("close the connection");
        let status = timeout(PATIENCE, child.wait())
            .await
            .expect("the server goes on after its client has gone")
            .expect("wait for the server");
        let stderr = stderr.await.expect("read standard error");
        assert!(status.success(), "the server ended with {status}: {stderr}");
        stderr
    }
}

impl Answer {
    fn of(result: CallToolResult) -> Self {
        let texts: Vec<&str> = result
            .content
            .iter()
            .filter_map(|block| block.as_text())
            .map(|text| text.text.as_str())
            .collect();
        Self {
            failed: result.is_error == Some(true),
            text: texts.join("\n"),
            value: result.structured_content.unwrap_or_default(),
        }
    }
}

/// The hints of a tool: read only, destructive, idempotent, open world.
#[must_use]
pub fn hints(tool: &Tool) -> [Option<bool>; 4] {
    let hints = tool.annotations.as_ref().expect("the tool has annotations");
    [
        hints.read_only_hint,
        hints.destructive_hint,
        hints.idempotent_hint,
        hints.open_world_hint,
    ]
}

/// Checks what every tool must have: a description, and an object schema both ways that refuses
/// arguments nobody reads.
pub fn check_descriptions(tools: &[Tool]) {
    for tool in tools {
        let name = &tool.name;
        let description = tool.description.as_deref().unwrap_or_default();
        assert!(description.len() > 20, "{name} is not described");
        let output = tool.output_schema.as_ref();
        let output = output.unwrap_or_else(|| panic!("{name} announces no output"));
        assert_eq!(output.get("type"), Some(&"object".into()), "{name}");
        assert_eq!(
            tool.input_schema.get("type"),
            Some(&"object".into()),
            "{name}"
        );
        let closed = tool.input_schema.get("additionalProperties");
        assert_eq!(
            closed,
            Some(&Value::Bool(false)),
            "{name} takes any argument"
        );
        let [read_only, destructive, idempotent, open_world] = hints(tool);
        assert_eq!(open_world, Some(false), "{name}");
        assert!(read_only.is_some() && idempotent.is_some(), "{name}");
        assert!(read_only == Some(true) || destructive.is_some(), "{name}");
    }
}

async fn read_to_end(mut stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    let _ = stderr.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn lock(progress: &Progress) -> std::sync::MutexGuard<'_, Vec<String>> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
