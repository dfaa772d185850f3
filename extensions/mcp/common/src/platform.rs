//! Access to the Management API from the tools: the blocking client, called away from the threads
//! that serve connections.

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use management_api::client::{ApiError, Client, Options};
use management_api::error::code;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{Origin, Settings, SettingsError, ToolError, blocking, bounded};

/// The configured platform. Settings are looked up at every call: a server that was started
/// before the local platform finds it, and follows it to a new port.
#[derive(Clone, Default)]
pub struct Platform {
    cached: Arc<Mutex<Option<Cached>>>,
}

/// One client a server, so that connections and exchanged tokens are used again.
struct Cached {
    url: String,
    token: SecretString,
    client: Arc<Client>,
}

/// A client with the settings it was made from.
pub struct Connection {
    /// The client.
    pub client: Arc<Client>,
    /// The settings it was made from.
    pub settings: Settings,
}

impl Platform {
    /// Runs `job` with a connection, on a thread that may block.
    pub async fn call<T, F>(&self, job: F) -> Result<T, ToolError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, CallError> + Send + 'static,
    {
        let platform = self.clone();
        blocking(move || {
            let connection = platform.connect()?;
            job(&connection).map_err(|error| match error {
                CallError::Tool(error) => error,
                CallError::Api(error) => explain(&error, &connection.settings.origin),
            })
        })
        .await
    }

    fn connect(&self) -> Result<Connection, ToolError> {
        let settings = Settings::find()?;
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cached.as_ref().filter(|c| c.is_for(&settings)) {
            let client = Arc::clone(&cached.client);
            return Ok(Connection { client, settings });
        }
        let client = Client::new(options(&settings))
            .map(Arc::new)
            .map_err(|error| explain(&error, &settings.origin))?;
        *cached = Some(Cached {
            url: settings.url.clone(),
            token: settings.token.clone(),
            client: Arc::clone(&client),
        });
        Ok(Connection { client, settings })
    }
}

impl Cached {
    fn is_for(&self, settings: &Settings) -> bool {
        self.url == settings.url && self.token.expose_secret() == settings.token.expose_secret()
    }
}

impl Connection {
    /// The tenant a call is about: the one it names, else the configured one, else the only one
    /// that the token can see.
    pub fn tenant(&self, asked: Option<String>) -> Result<String, CallError> {
        if let Some(tenant) = asked {
            bounded("tenant", &tenant, 100)?;
            return Ok(tenant);
        }
        if let Some(tenant) = &self.settings.tenant {
            return Ok(tenant.clone());
        }
        let mut ids: Vec<String> = self.client.tenants()?.into_iter().map(|t| t.id).collect();
        match (ids.pop(), ids.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(ToolError::new("the token sees no tenant")
                .next("make one with the admin server's `create_tenant`")
                .into()),
            (Some(last), false) => {
                ids.push(last);
                Err(
                    ToolError::new(format!("which tenant? there are {}", ids.join(", ")))
                        .next("pass `tenant`, or set SYSTEMPROMPT_TENANT_ID")
                        .into(),
                )
            }
        }
    }
}

/// Why a job with a connection failed.
#[derive(Debug)]
pub enum CallError {
    /// The platform refused or did not answer.
    Api(ApiError),
    /// The job itself refused.
    Tool(ToolError),
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<ToolError> for CallError {
    fn from(error: ToolError) -> Self {
        Self::Tool(error)
    }
}

impl From<SettingsError> for ToolError {
    fn from(error: SettingsError) -> Self {
        let what = match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        Self::new(what).next(error.resolution())
    }
}

/// A person or a model waits: give up earlier than an unattended deployment would.
fn options(settings: &Settings) -> Options {
    let mut options = Options::new(&settings.url, settings.token.clone());
    options.retry_for = Duration::from_secs(5);
    options
}

fn explain(error: &ApiError, origin: &Origin) -> ToolError {
    let what = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let failed = ToolError::new(what);
    match resolution(error, origin) {
        Some(next) => failed.next(next),
        None => failed,
    }
}

fn resolution(error: &ApiError, origin: &Origin) -> Option<&'static str> {
    let local = matches!(origin, Origin::Local(_));
    if let Some(next) = error.code().and_then(resolution_of_code) {
        return Some(next);
    }
    match error {
        ApiError::BadAddress { .. } => Some("correct SYSTEMPROMPT_API_URL"),
        ApiError::Unauthorized { .. } if local => {
            Some("run `cargo xtask local down` and `cargo xtask local up`")
        }
        ApiError::Unauthorized { .. } => {
            Some("set SYSTEMPROMPT_API_TOKEN to a token that the platform knows")
        }
        ApiError::Forbidden { .. } => Some(
            "use a token with a wider role: `deployer` to deploy, `operator` for tenants and tokens",
        ),
        ApiError::NotFound { code, .. } if code.is_empty() => {
            Some("check the id; a platform that knows only the contract does not offer this call")
        }
        ApiError::Transport { .. } | ApiError::Timeout { .. } if local => {
            Some("start the local platform: `cargo xtask local up`")
        }
        ApiError::Transport { .. } | ApiError::Timeout { .. } => {
            Some("check that SYSTEMPROMPT_API_URL can be reached from here, then try again")
        }
        ApiError::OutcomeUnknown { .. } => {
            Some("look whether it was carried out (`status`, `list_*`) before trying again")
        }
        ApiError::RateLimited { .. } | ApiError::Server { .. } | ApiError::Stream { .. } => {
            Some("try again a little later")
        }
        _ => None,
    }
}

/// What to do after a refusal that the platform itself has given a name.
fn resolution_of_code(refused: &str) -> Option<&'static str> {
    match refused {
        code::DEPLOYMENT_IN_PROGRESS => Some("wait until it has ended; look with `status`"),
        code::OPERATOR_NEEDED => Some(
            "an operator has to look at the platform and to say that it is settled: `cargo xtask abort`",
        ),
        code::IMAGE_NOT_FOUND => Some(
            "push the image first (`cargo xtask deploy` does), or deploy one of `list_deployments`",
        ),
        code::NOTHING_TO_ROLL_BACK => {
            Some("choose a deployment that succeeded from `list_deployments`")
        }
        _ => None,
    }
}
