//! The newer Docker Engine that Dockerfiles are compared with: one of its own beside the machine's,
//! or the machine's where that is new enough.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::engine::Engine;
use crate::components::newer::{self, Newer};

/// Tell the tests where it listens, and which client with which configuration to use.
const HOST: &str = "SYSTEMPROMPT_TEST_BUILDKIT_HOST";
const CLIENT: &str = "SYSTEMPROMPT_TEST_BUILDKIT_CLIENT";
const CONFIG: &str = "SYSTEMPROMPT_TEST_BUILDKIT_CONFIG";

/// An engine whose `BuildKit` knows heredocs.
pub(super) struct BuildKit {
    newer: Newer,
    /// None where the machine's own engine is meant.
    engine: Option<Engine>,
    /// The client's configuration.
    config: PathBuf,
}

impl BuildKit {
    /// Starts it when it is needed and there is one.
    pub(super) fn start_if(needed: bool, root: &Path, temporary: &Path) -> Option<Result<Self>> {
        let newer = newer::engine(root).filter(|_| needed)?;
        Some(Self::start(newer, temporary))
    }

    fn start(newer: Newer, temporary: &Path) -> Result<Self> {
        let config = temporary.join("buildkit-client");
        configure(&config, newer.plugins.as_deref())
            .context("cannot write the configuration of docker's client")?;
        let engine = if newer.installed {
            None
        } else {
            Some(Engine::start(&newer.engine, temporary.join("buildkit"))?)
        };
        Ok(Self {
            newer,
            engine,
            config,
        })
    }

    /// What tests find it by. `own` is where the machine's engine listens.
    pub(super) fn variables(&self, own: Option<String>) -> Vec<(String, OsString)> {
        let Some(host) = self.engine.as_ref().map(Engine::host).or(own) else {
            return Vec::new();
        };
        vec![
            (HOST.to_owned(), host.into()),
            (CLIENT.to_owned(), self.newer.client.clone().into()),
            (CONFIG.to_owned(), self.config.clone().into()),
        ]
    }

    /// Stops it and removes its files.
    pub(super) fn stop(self) -> Result<()> {
        let stopped = self.engine.map_or(Ok(()), Engine::stop);
        fs::remove_dir_all(&self.config)
            .context("cannot remove the configuration of docker's client")?;
        stopped
    }
}

fn configure(folder: &Path, plugins: Option<&Path>) -> Result<()> {
    fs::create_dir(folder)?;
    let folders: Vec<String> = plugins
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let config = serde_json::json!({ "cliPluginsExtraDirs": folders });
    fs::write(folder.join("config.json"), config.to_string())?;
    Ok(())
}
