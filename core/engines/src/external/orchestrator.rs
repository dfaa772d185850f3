//! The calls of an external engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::http::{Action, Client, Open, PATIENCE, body};
use super::wire::{
    About, LineRecord, ObservedRecord, PROTOCOL, PlaceRecord, PlaceRequest, RanRecord, TaskRecord,
    WantedRecord,
};
use crate::engine::BoxFuture;
use crate::error::EngineError;
use crate::orchestrator::{LoggedLine, Observed, Orchestrator, Place, Ran, Task, Wanted};
use crate::registry::Registry;
use crate::resources::Resources;

/// How long an engine is waited for that was started along with the server.
const START: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The longest line of a log as it travels: one of 64 KiB, each character of which is escaped.
const MAX_LINE: usize = 512 << 10;

/// What it is made of.
#[derive(Clone)]
pub struct Settings {
    /// Where the engine listens.
    pub socket: PathBuf,
    /// Where images come from.
    pub registry: Arc<dyn Registry>,
}

/// An orchestrator that is a program of its own.
pub struct External {
    client: Client,
    registry: Arc<dyn Registry>,
    enforces: Vec<String>,
    notes: Vec<String>,
}

impl External {
    /// Asks who listens at the socket; waits a while for somebody to.
    pub async fn new(settings: Settings) -> Result<Self, EngineError> {
        let action = Action("ask the engine who it is");
        let client = Client::new(settings.socket);
        let until = Instant::now() + START;
        let about: About = loop {
            let asked = client.ask(action, Method::GET, "/v1/engine", None, Some(PATIENCE));
            match asked.await {
                Ok(answer) => break answer.read(action)?,
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        if about.protocol != PROTOCOL {
            let reason = format!(
                "it speaks version {} of the protocol, this server {PROTOCOL}",
                about.protocol
            );
            return Err(action.failed(&reason));
        }
        let at = client.socket().display();
        let mut notes = vec![format!(
            "releases are replaced by `{}`, which listens at {at}",
            about.name
        )];
        notes.extend(about.notes);
        Ok(Self {
            client,
            registry: settings.registry,
            enforces: about.enforces,
            notes,
        })
    }

    async fn put_place(&self, tenant: String, services: Vec<String>) -> Result<Place, EngineError> {
        let action = Action("make a place for a tenant");
        let body = body(action, &PlaceRequest { services })?;
        let path = of_tenant(&tenant, "/place");
        let asked = self
            .client
            .ask(action, Method::PUT, &path, body, Some(PATIENCE));
        let place: PlaceRecord = asked.await?.read(action)?;
        Ok(place.into())
    }

    async fn put_release(&self, wanted: Wanted) -> Result<(), EngineError> {
        let action = Action("apply a release");
        let (tenant, turn) = (wanted.tenant.clone(), wanted.turn);
        let record = WantedRecord::of(wanted, &*self.registry);
        let body = body(action, &record)?;
        let path = of_tenant(&tenant, "/release");
        let asked = self
            .client
            .ask(action, Method::PUT, &path, body, Some(PATIENCE));
        let answer = asked.await?;
        let refused = answer.refusal().filter(|_| !answer.status.is_success());
        if refused.is_some_and(|refusal| refusal.code == "outdated") {
            return Err(EngineError::Outdated { tenant, turn });
        }
        answer.check(action)?;
        Ok(())
    }

    async fn get_release(&self, tenant: String) -> Result<Option<Observed>, EngineError> {
        let action = Action("look at a release");
        let path = of_tenant(&tenant, "/release");
        let asked = self
            .client
            .ask(action, Method::GET, &path, None, Some(PATIENCE));
        let answer = asked.await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let observed: ObservedRecord = answer.read(action)?;
        Ok(Some(observed.into()))
    }

    async fn post_run(&self, task: Task) -> Result<Ran, EngineError> {
        let action = Action("run a command");
        let (tenant, turn) = (task.tenant.clone(), task.turn);
        let (repository, image) = (task.service.repository.clone(), task.service.image);
        let body = body(action, &TaskRecord::of(task, &*self.registry))?;
        let path = of_tenant(&tenant, "/run");
        // However long it takes: whoever has asked for it says when it is enough, and hangs up.
        let asked = self.client.ask(action, Method::POST, &path, body, None);
        let answer = asked.await?;
        let refused = answer.refusal().filter(|_| !answer.status.is_success());
        match refused.as_ref().map(|refusal| refusal.code.as_str()) {
            Some("outdated") => return Err(EngineError::Outdated { tenant, turn }),
            Some("image_not_found") => {
                tracing::warn!(repository = repository.as_str(), %image, "the engine does not find an image");
                return Err(EngineError::ImageNotFound {
                    image,
                    missing: image,
                });
            }
            _ => {}
        }
        let ran: RanRecord = answer.read(action)?;
        let ran = ran.ran();
        ran.ok_or_else(|| action.failed("the answer does not say how it has ended"))
    }

    async fn delete_tenant(&self, tenant: String) -> Result<(), EngineError> {
        let action = Action("remove a tenant");
        let path = of_tenant(&tenant, "");
        let asked = self
            .client
            .ask(action, Method::DELETE, &path, None, Some(PATIENCE));
        let answer = asked.await?;
        if answer.status != StatusCode::NOT_FOUND {
            answer.check(action)?;
        }
        Ok(())
    }

    async fn get_logs(
        &self,
        tenant: String,
        after: u64,
    ) -> Result<BoxStream<'static, Result<LoggedLine, EngineError>>, EngineError> {
        let action = Action("follow logs");
        let path = of_tenant(&tenant, &format!("/logs?after={after}"));
        let lines = Lines {
            open: self.client.open(action, &path).await?,
            action,
            pending: Vec::new(),
        };
        Ok(stream::try_unfold(lines, Lines::next).boxed())
    }
}

impl Orchestrator for External {
    fn name(&self) -> &'static str {
        "external"
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn lacks(&self, resources: &Resources) -> Option<String> {
        let asked = [
            ("memory", "memory", resources.memory.is_some()),
            ("cpu", "processors", resources.cpu_millis.is_some()),
            ("pids", "processes", resources.pids.is_some()),
            ("read_only", "a read-only root", resources.read_only),
        ];
        let enforced = |word: &str| self.enforces.iter().any(|known| known == word);
        let lacking = asked.iter().filter(|(word, _, is)| *is && !enforced(word));
        let lacking: Vec<&str> = lacking.map(|(_, told, _)| *told).collect();
        (!lacking.is_empty()).then(|| format!("{}: its engine does not", lacking.join(", ")))
    }

    fn place(
        &self,
        tenant: String,
        services: Vec<String>,
    ) -> BoxFuture<'_, Result<Place, EngineError>> {
        Box::pin(self.put_place(tenant, services))
    }

    fn apply(&self, wanted: Wanted) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(self.put_release(wanted))
    }

    fn observe(&self, tenant: String) -> BoxFuture<'_, Result<Option<Observed>, EngineError>> {
        Box::pin(self.get_release(tenant))
    }

    fn run_once(&self, task: Task) -> BoxFuture<'_, Result<Ran, EngineError>> {
        Box::pin(self.post_run(task))
    }

    fn remove(&self, tenant: String) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(self.delete_tenant(tenant))
    }

    fn logs(
        &self,
        tenant: String,
        after: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<LoggedLine, EngineError>>, EngineError>>
    {
        Box::pin(self.get_logs(tenant, after))
    }
}

/// Neither a tenant's id nor what is behind it has a character that means something in a path.
fn of_tenant(tenant: &str, rest: &str) -> String {
    format!("/v1/tenants/{tenant}{rest}")
}

/// Lines of a log on their way.
struct Lines {
    open: Open,
    action: Action,
    pending: Vec<u8>,
}

impl Lines {
    /// The next line, and what comes after it.
    async fn next(mut self) -> Result<Option<(LoggedLine, Self)>, EngineError> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                let text = std::mem::replace(&mut self.pending, rest);
                let line: LineRecord = serde_json::from_slice(&text).map_err(|error| {
                    self.action
                        .failed(&format!("a line is not understood: {error}"))
                })?;
                return Ok(Some((line.into(), self)));
            }
            if self.pending.len() > MAX_LINE {
                return Err(self.action.failed("a line has no end"));
            }
            let Some(bytes) = self.more().await? else {
                return Ok(None);
            };
            self.pending.extend_from_slice(&bytes);
        }
    }

    async fn more(&mut self) -> Result<Option<Bytes>, EngineError> {
        let Some(frame) = self.open.body.frame().await else {
            return Ok(None);
        };
        let frame = frame.map_err(|error| self.action.failed(&error))?;
        Ok(Some(frame.into_data().unwrap_or_default()))
    }
}
