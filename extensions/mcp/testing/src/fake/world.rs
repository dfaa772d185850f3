//! What the fake platform knows.

use std::collections::BTreeMap;

use chrono::Utc;
use management_api::types::{
    DeployAnswer, Deployment, Failure, Role, Tenant, TenantStatus, TokenInfo, is_final,
};

use super::{OPERATOR, READER};

/// Looks at a deployment until it ends.
const LOOKS: u32 = 2;

/// Tenants, tokens and what was done.
pub(super) struct World {
    pub(super) tenants: BTreeMap<String, TenantState>,
    pub(super) tokens: Vec<TokenInfo>,
    pub(super) issued: u32,
    /// Secret parts of the issued tokens with their ids and roles.
    pub(super) secrets: Vec<(String, String, Role)>,
    pub(super) mutations: Vec<String>,
    /// Whether answers carry numbers of deployments.
    pub(super) keeps_history: bool,
}

pub(super) struct TenantState {
    pub(super) tenant: Tenant,
    /// Oldest first.
    pub(super) deployments: Vec<Deployment>,
    looks: u32,
}

impl Default for World {
    fn default() -> Self {
        let mut world = Self {
            tenants: BTreeMap::new(),
            tokens: Vec::new(),
            issued: 0,
            secrets: Vec::new(),
            mutations: Vec::new(),
            keeps_history: true,
        };
        world.add_tenant("acme", "Acme");
        world
    }
}

impl World {
    /// What the holder of a token may do.
    pub(super) fn role(&self, token: &str) -> Option<Role> {
        match token {
            OPERATOR => Some(Role::Operator),
            READER => Some(Role::Reader),
            _ => {
                let known = self.secrets.iter().find(|(secret, ..)| secret == token);
                known.map(|(_, _, role)| *role)
            }
        }
    }

    pub(super) fn add_tenant(&mut self, id: &str, name: &str) -> Tenant {
        let tenant = Tenant {
            id: id.to_owned(),
            name: name.to_owned(),
            fly_app_name: None,
            fly_hostname: None,
            hostname: None,
            app_url: Some(url(id)),
        };
        let state = TenantState {
            tenant: tenant.clone(),
            deployments: Vec::new(),
            looks: 0,
        };
        self.tenants.insert(id.to_owned(), state);
        tenant
    }
}

impl TenantState {
    pub(super) fn live(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.live)
    }

    pub(super) fn running(&self) -> Option<&Deployment> {
        self.deployments
            .last()
            .filter(|last| !is_final(&last.state))
    }

    /// Begins a deployment; `restores` makes it a rollback.
    pub(super) fn begin(&mut self, image: &str, restores: Option<u64>) -> DeployAnswer {
        let number = self.deployments.len() as u64 + 1;
        let deployment = Deployment {
            number,
            tenant: self.tenant.id.clone(),
            kind: if restores.is_some() {
                "rollback"
            } else {
                "deploy"
            }
            .to_owned(),
            state: "requested".to_owned(),
            image: image.to_owned(),
            tag: image.rsplit_once(':').map(|(_, tag)| tag.to_owned()),
            digest: format!("sha256:{:064x}", image.len()),
            strategy: "rolling".to_owned(),
            replicas: 1,
            services: Vec::new(),
            previous: self.live().map(|live| live.number),
            restores,
            live: false,
            gone: false,
            actor: "operator".to_owned(),
            source: None,
            app_url: self.tenant.app_url.clone(),
            created_at: Utc::now(),
            finished_at: None,
            failure: None,
        };
        self.deployments.push(deployment);
        self.looks = 0;
        answer("deploying", self.tenant.app_url.clone(), number)
    }

    /// One look at what is running: time passes only when somebody looks.
    pub(super) fn look(&mut self) {
        self.looks += 1;
        let ends = self.looks > LOOKS;
        let Some(running) = self.deployments.last_mut().filter(|d| !is_final(&d.state)) else {
            return;
        };
        if !ends || running.image.contains("slow") {
            "provisioned".clone_into(&mut running.state);
            return;
        }
        running.finished_at = Some(Utc::now());
        if running.image.contains("broken") {
            "rolled_back".clone_into(&mut running.state);
            running.failure = Some(unhealthy());
        } else {
            "succeeded".clone_into(&mut running.state);
            let number = running.number;
            for deployment in &mut self.deployments {
                deployment.live = deployment.number == number;
            }
        }
    }

    /// Ends what is running, at somebody's word.
    pub(super) fn end(&mut self, state: &str) -> Deployment {
        let number = self.deployments.len() as u64;
        if state == "succeeded" {
            for deployment in &mut self.deployments {
                deployment.live = deployment.number == number;
            }
        }
        let last = self.deployments.last_mut().expect("one is running");
        state.clone_into(&mut last.state);
        last.finished_at = Some(Utc::now());
        last.clone()
    }

    pub(super) fn status(&self) -> TenantStatus {
        let running = self.running().cloned();
        let live = self.live().cloned();
        let status = match (&running, &live) {
            (Some(_), _) => "deploying",
            (None, Some(_)) => "ready",
            (None, None) => "pending",
        };
        TenantStatus {
            status: status.to_owned(),
            message: None,
            app_url: self.tenant.app_url.clone(),
            secrets_url: None,
            live,
            running,
            services: Vec::new(),
        }
    }
}

pub(super) fn answer(status: &str, app_url: Option<String>, number: u64) -> DeployAnswer {
    DeployAnswer {
        status: status.to_owned(),
        app_url,
        message: None,
        deployment: Some(number),
        unchanged: status == "deployed",
        warnings: Vec::new(),
    }
}

fn unhealthy() -> Failure {
    Failure {
        code: "exited".to_owned(),
        message: "the application ended before it was healthy".to_owned(),
        exit_code: Some(3),
        signal: None,
        log_tail: vec!["cannot read the configuration".to_owned()],
    }
}

fn url(tenant: &str) -> String {
    format!("http://{tenant}.example")
}
