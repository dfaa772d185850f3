//! Observing: everything that a plan depends on, looked up once. Changes nothing, here or
//! elsewhere.

pub(crate) mod cargo;
mod docker;
mod dockerfile;
mod git;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::Utc;
use deploy_config::credentials::{Credential, Validity};
use deploy_config::extensions::Extensions;
use deploy_config::tenants::Tenants;
use deploy_config::{Settings, project};
use deploy_plan::config::{Builder, Config, ControlPlane, Variables};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::observed::{self, Extension, Live, Observed, Web};
use deploy_plan::plan::{EMBEDDED_TENANT, Request, SERVER_BINARY};
use management_api::client::Client;

use crate::attest::key::{self, SigningKey};
use crate::authorities;
use crate::control::{Access, Control};
use crate::docker_config;
use crate::events::{Event, Reporter};
use crate::platform::Platform;
use crate::redact::Redactor;

/// What was found: facts for the plan, and what the execution goes on to use.
pub struct Observation {
    /// Facts for the plan.
    pub observed: Observed,
    /// How to reach the control plane, when it is not the embedded one.
    pub access: Option<Access>,
    /// The control plane, when it was reached.
    pub control: Option<Control>,
    /// The embedded platform of the project.
    pub platform: Platform,
    /// The server's binary that is there before any build.
    pub server: Option<PathBuf>,
    /// Where cargo puts artifacts.
    pub target_folder: PathBuf,
    /// The key that images are signed with, where there is one.
    pub signing_key: Option<SigningKey>,
    /// What speaks against the deployment and was found by looking.
    pub failures: Vec<Failure>,
}

/// Where to look.
pub struct Observer<'a> {
    /// The project's settings.
    pub settings: &'a Settings,
    /// The environment of this process.
    pub variables: &'a BTreeMap<String, String>,
    /// Learns the secrets that come by.
    pub redactor: &'a Redactor,
    /// Hears warnings.
    pub reporter: &'a dyn Reporter,
}

impl Observer<'_> {
    fn root(&self) -> &Path {
        &self.settings.root
    }

    fn config(&self) -> &Config {
        &self.settings.config
    }

    fn embedded(&self) -> bool {
        self.config().control_plane == ControlPlane::Embedded
    }

    /// Looks at the project alone, not at where it goes.
    #[must_use]
    pub fn project(&self, request: &Request) -> Observation {
        let mut found = self.nothing();
        // Whoever only builds needs no credentials.
        found.observed.credential = observed::Credential::NotNeeded;
        self.here(&mut found, request);
        found
    }

    /// The server that there is before any build.
    #[must_use]
    pub fn server_binary(&self) -> Option<PathBuf> {
        let target = cargo::observe(self.root(), &self.config().build)
            .map_or_else(|_| self.root().join("target"), |cargo| cargo.target);
        self.server(&target)
    }

    fn nothing(&self) -> Observation {
        Observation {
            observed: Observed {
                now: Utc::now(),
                ..Observed::default()
            },
            access: None,
            control: None,
            platform: Platform::of(&self.root().join(project::FOLDER)),
            server: None,
            target_folder: self.root().join("target"),
            signing_key: None,
            failures: Vec::new(),
        }
    }

    /// Looks at what reaching the control plane takes, and reaches it.
    pub fn target(&self) -> Observation {
        let mut found = self.nothing();
        self.learn_secrets();
        self.tenant(&mut found);
        if self.embedded() {
            self.embedded_control(&mut found);
        } else {
            self.credential(&mut found);
            match authorities::check_api(self.settings) {
                Ok(()) => remote_control(&mut found),
                Err(failure) => found.failures.push(failure),
            }
        }
        found.observed.live = found.control.as_ref().and_then(live);
        found
    }

    /// The names of the tenant's secrets, where any is asked for. Who may not see them still deploys: the platform
    /// looks once more.
    fn secrets(&self, found: &mut Observation) {
        let config = self.config();
        let named = |env: &Variables| env.iter().any(|(_, value)| value.contains("${secrets."));
        let mut services = config.services.others.values();
        let wanted = named(&config.env)
            || services.any(|service| !service.secrets.is_empty() || named(&service.env));
        let control = found.control.as_ref();
        let control = control.filter(|control| control.offers("secrets"));
        if let Some(control) = control
            && wanted
            && let Ok(Some(known)) = control.client.secrets(&control.tenant)
        {
            let names = known.into_iter().map(|secret| secret.name);
            found.observed.secrets = Some(names.collect());
        }
    }

    /// Looks at everything that a deployment depends on.
    #[must_use]
    pub fn everything(&self, request: &Request) -> Observation {
        let mut found = self.target();
        self.secrets(&mut found);
        self.here(&mut found, request);
        found
    }

    fn here(&self, found: &mut Observation, request: &Request) {
        let observed = &mut found.observed;
        observed.variables = self.variables.keys().cloned().collect();
        observed.git = git::observe(self.root());
        if let Some(live) = &mut observed.live
            && let Some(sha) = &live.git_sha
        {
            live.commits_since = git::since(self.root(), sha);
        }
        let registries = authorities::check_registries(self.settings);
        found.failures.extend(registries.err());
        if !request.skip_push {
            self.sources(found);
        }
    }

    fn sources(&self, found: &mut Observation) {
        match cargo::observe(self.root(), &self.config().build) {
            Ok(cargo) => {
                found.observed.packages = cargo.packages;
                found.observed.unknown_packages = cargo.unknown;
                found.target_folder = cargo.target;
            }
            Err(failure) => found.failures.push(failure),
        }
        self.signing_key(found);
        self.extensions(found);
        found.server = self.server(&found.target_folder);
        found.observed.server_binary = found.server.is_some();
        found.observed.web = self.web();
        dockerfile::observe(self.root(), self.config(), found);
        let needs_engine = |dockerfile: &observed::Dockerfile| {
            matches!(
                dockerfile,
                observed::Dockerfile::Read { needs_engine, .. } if !needs_engine.is_empty()
            )
        };
        let mut dockerfiles = found.observed.dockerfiles.values();
        let needs_engine =
            needs_engine(&found.observed.dockerfile) || dockerfiles.any(needs_engine);
        let wanted = match self.config().image.builder {
            Builder::Docker => true,
            Builder::Auto => needs_engine,
            Builder::Native => false,
        };
        found.observed.docker = wanted && docker::observe(self.root());
        found.observed.zstd = self.has_program("zstd");
        found.observed.takes_zstd = match &found.control {
            _ if self.embedded() => Some(false),
            // A server of another kind does not say.
            Some(control) if control.capabilities.is_some() => Some(control.offers("zstd")),
            _ => None,
        };
    }

    /// Secrets that the application gets through `[env]` must not show up in our own output.
    fn learn_secrets(&self) {
        if let Some(text) = self.variables.get(docker_config::VARIABLE) {
            docker_config::learn(self.redactor, text);
        }
        let config = self.config();
        let of_services = config.services.others.values().map(|service| &service.env);
        let environments = std::iter::once(&config.env).chain(of_services);
        for (name, value) in environments.flat_map(Variables::iter) {
            if deploy_plan::config::redact_value(name, value) != value {
                self.redactor.learn_text(value);
            }
        }
    }

    fn tenant(&self, found: &mut Observation) {
        let wanted = self.config().api.tenant_id.as_deref();
        let known = match Tenants::read(self.root()) {
            Ok(Some((tenants, warnings))) => {
                for warning in warnings {
                    self.warn(&warning.to_string());
                }
                Some(tenants)
            }
            Ok(None) => None,
            Err(error) => {
                self.warn(&crate::control::with_causes(&error));
                None
            }
        };
        // People write a tenant's name as readily as its id.
        found.observed.tenant = wanted.map(|wanted| {
            known
                .as_ref()
                .and_then(|tenants| tenants.find(wanted).ok())
                .map_or_else(|| wanted.to_owned(), |tenant| tenant.id.clone())
        });
    }

    fn warn(&self, text: &str) {
        self.reporter
            .event(Event::Warning(self.redactor.clean(text)));
    }

    fn embedded_control(&self, found: &mut Observation) {
        let Some(running) = found.platform.running() else {
            return;
        };
        self.redactor.learn(&running.token);
        let access = Access {
            url: running.url,
            token: running.token,
            auth: deploy_plan::config::Auth::Bearer,
            kind: ControlPlane::Embedded,
            certificates: Vec::new(),
        };
        let tenant = found.observed.tenant.as_deref().unwrap_or(EMBEDDED_TENANT);
        match Control::connect(&access, Some(tenant)) {
            Ok(control) => found.control = Some(control),
            Err(failure) => found.failures.push(failure),
        }
    }

    fn credential(&self, found: &mut Observation) {
        let credential = match Credential::find(self.variables, self.root()) {
            Ok(Some((credential, warnings))) => {
                for warning in warnings {
                    self.warn(&warning.to_string());
                }
                credential
            }
            Ok(None) => {
                found.observed.credential = observed::Credential::Missing;
                return;
            }
            Err(error) => {
                found.failures.push(Failure::new(
                    Step::Preflight,
                    "credentials_unreadable",
                    Exit::Authentication,
                    crate::control::with_causes(&error),
                    "correct the file, or set SYSTEMPROMPT_API_TOKEN",
                ));
                return;
            }
        };
        self.redactor.learn(&credential.token);
        if !credential.is_for(&self.config().api.url) {
            found.failures.push(Failure::new(
                Step::Preflight,
                "credentials_elsewhere",
                Exit::Authentication,
                format!(
                    "the token was given for {}, not for {}",
                    credential.api_url.unwrap_or_default(),
                    self.config().api.url
                ),
                "log in there: cargo xtask login, or set SYSTEMPROMPT_API_TOKEN",
            ));
            return;
        }
        found.observed.credential = match credential.validity(found.observed.now.timestamp()) {
            Validity::Expired { .. } => {
                let end = credential.expires_at.unwrap_or_default();
                observed::Credential::Expired(
                    chrono::DateTime::from_timestamp(end, 0).unwrap_or_default(),
                )
            }
            Validity::Valid { .. } | Validity::Unknown => observed::Credential::Usable,
        };
        found.access = Some(Access {
            url: self.config().api.url.to_string(),
            token: credential.token,
            auth: self.config().api.auth,
            kind: ControlPlane::ManagementApi,
            certificates: authorities::of_api(self.settings),
        });
    }

    /// A key that does not sign is worth knowing before the build, not after.
    fn signing_key(&self, found: &mut Observation) {
        if let Some(key) = self.variables.get(key::VARIABLE) {
            self.redactor.learn_text(key);
        }
        let file = self.config().image.signing_key_file.as_deref();
        match SigningKey::find(self.root(), file, self.variables) {
            Ok(key) => found.signing_key = key,
            Err(failure) => found.failures.push(failure),
        }
    }

    fn extensions(&self, found: &mut Observation) {
        let extensions = Extensions::read(self.root());
        for error in extensions.errors {
            found.failures.push(Failure::preflight(
                "manifest_invalid",
                error.to_string(),
                "correct that file",
            ));
        }
        found.observed.extensions = extensions
            .found
            .into_iter()
            .map(|extension| Extension {
                name: extension.name,
                binary: extension.binary,
                enabled: extension.enabled,
                path: extension.path,
            })
            .collect();
    }

    /// The server configured, else the one that an earlier build left, else the one on `PATH`.
    fn server(&self, target: &Path) -> Option<PathBuf> {
        if let Some(server) = &self.config().local.server {
            let server = self.root().join(server);
            return server.is_file().then_some(server);
        }
        let profile = deploy_plan::preflight::profile_folder(&self.config().build.profile);
        let built = target.join(profile).join(SERVER_BINARY);
        if built.is_file() {
            return Some(built);
        }
        on_path(self.variables.get("PATH")?, SERVER_BINARY)
    }

    fn has_program(&self, name: &str) -> bool {
        let path = self.variables.get("PATH");
        path.is_some_and(|path| on_path(path, name).is_some())
    }

    fn web(&self) -> Web {
        let folder = self.config().build.web.clone();
        let package_json = self.root().join(&folder).join("package.json").is_file();
        Web {
            npm: package_json && self.has_program("npm"),
            package_json,
            folder,
        }
    }
}

/// A refused token is worth knowing before the build, not after.
fn remote_control(found: &mut Observation) {
    if found.observed.credential != observed::Credential::Usable {
        return;
    }
    let Some(access) = &found.access else {
        return;
    };
    match Control::connect(access, found.observed.tenant.as_deref()) {
        Ok(control) => {
            found.observed.tenant = Some(control.tenant.clone());
            found.control = Some(control);
        }
        Err(failure) => found.failures.push(failure),
    }
}

fn on_path(path: &str, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// What serves now, where the platform tells. A platform that does not is no reason to stop.
fn live(control: &Control) -> Option<Live> {
    let live = status(&control.client, &control.tenant)?.live?;
    Some(Live {
        deployment: live.number,
        tag: live.tag,
        digest: live.digest,
        services: live
            .services
            .into_iter()
            .map(|service| (service.name, service.digest))
            .collect(),
        git_sha: live.source.map(|source| source.git_sha),
        commits_since: None,
        url: live.app_url,
    })
}

fn status(client: &Client, tenant: &str) -> Option<management_api::types::TenantStatus> {
    client.status(tenant).ok()
}
