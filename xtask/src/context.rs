//! What every command about a project needs: its root, its settings, the ways out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deploy_config::{Overrides, Settings, SettingsError, project};
use deploy_pipeline::interrupt::Interrupts;
use deploy_pipeline::redact::Redactor;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};

use crate::cli::{BuildFlags, Deploy, Target};
use crate::render::same_target;

/// A project and its settings.
pub(crate) struct Context {
    pub(crate) root: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) redactor: Redactor,
    pub(crate) interrupts: Interrupts,
}

impl Context {
    /// Finds the project and reads its settings.
    pub(crate) fn load(
        project_path: Option<&Path>,
        overrides: impl FnOnce(&mut Overrides),
    ) -> Result<Self, Failure> {
        if let Some(folder) = project_path {
            same_target::note_project(folder);
        }
        let root = find_root(project_path)?;
        let variables = environment();
        let mut all = Overrides::new(variables.clone());
        overrides(&mut all);
        let settings = Settings::load(&root, &all).map_err(|e| settings_failure(&e))?;
        let interrupts = Interrupts::catch().map_err(|e| {
            Failure::new(
                Step::Settings,
                "signals_unavailable",
                Exit::Other,
                format!("cannot watch for signals: {e}"),
                "run it outside of what restricts it",
            )
        })?;
        Ok(Self {
            root,
            settings,
            variables,
            redactor: crate::render::redactor(),
            interrupts,
        })
    }

    /// The settings of every environment: as they are for this process, and as they are without what
    /// its variables say.
    pub(crate) fn everywhere(&self) -> Result<Vec<Settings>, Failure> {
        let mut everywhere = Vec::new();
        for name in &self.settings.environments {
            for variables in [self.variables.clone(), BTreeMap::new()] {
                let mut overrides = Overrides::new(variables);
                overrides.environment("--environment", name.as_str());
                let settings = Settings::load(&self.root, &overrides);
                everywhere.push(settings.map_err(|e| settings_failure(&e))?);
            }
        }
        Ok(everywhere)
    }

    /// The folder of configuration, credentials and state.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join(project::FOLDER)
    }
}

/// The folder given, else the project around the current folder.
pub(crate) fn find_root(project_path: Option<&Path>) -> Result<PathBuf, Failure> {
    let start = match project_path {
        Some(folder) => std::path::absolute(folder),
        None => std::env::current_dir(),
    };
    let start =
        start.map_err(|e| project_failure(format!("cannot find the current folder: {e}")))?;
    project::find_root(&start).map_err(|e| project_failure(e.to_string()))
}

fn project_failure(details: String) -> Failure {
    Failure::new(
        Step::Settings,
        "project_not_found",
        Exit::Configuration,
        details,
        "change into a project, or name it: --project-path DIR",
    )
}

pub(crate) fn settings_failure(error: &SettingsError) -> Failure {
    Failure::new(
        Step::Settings,
        "settings_invalid",
        Exit::Configuration,
        deploy_pipeline::control::with_causes(error),
        "correct what is named above; `cargo xtask config show --origin` shows where values come from",
    )
}

/// The environment of this process, as far as it is text.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Flags that every command about a target has.
pub(crate) fn target_overrides(target: &Target, overrides: &mut Overrides) {
    same_target::note(target);
    if let Some(name) = &target.environment {
        overrides.environment("--environment", name.as_str());
    }
    overrides.set_some("--tenant", "api.tenant_id", target.tenant.as_deref());
    overrides.set_some("--api-url", "api.url", target.api_url.as_deref());
}

/// Flags about building.
pub(crate) fn build_overrides(build: &BuildFlags, overrides: &mut Overrides) {
    overrides.set_some("--profile", "build.profile", build.profile.as_deref());
    if build.locked {
        overrides.set("--locked", "build.locked", true);
    }
}

/// Flags of `deploy`.
pub(crate) fn deploy_overrides(flags: &Deploy, overrides: &mut Overrides) {
    target_overrides(&flags.target, overrides);
    build_overrides(&flags.build, overrides);
    overrides.set_some("--timeout", "deploy.timeout", flags.timeout.as_deref());
    overrides.set_some("--strategy", "deploy.strategy", flags.strategy.as_deref());
    overrides.set_some("--replicas", "deploy.replicas", flags.replicas.as_deref());
    overrides.set_some("--builder", "image.builder", flags.builder.as_deref());
    overrides.set_some("--base", "image.base", flags.base.as_deref());
    if flags.require_clean {
        overrides.set("--require-clean", "deploy.require_clean", true);
    }
    if flags.no_wait {
        overrides.set("--no-wait", "deploy.wait", false);
    }
}
