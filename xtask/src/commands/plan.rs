//! `cargo xtask plan`.

use std::path::{Path, PathBuf};

use deploy_config::aramb::{self, ARAMB_TOML};
use deploy_config::project;
use deploy_plan::aramb::{mermaid, svg, text};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};

use super::Failures;
use crate::cli::{Drawing, Plan};
use crate::render;

pub(crate) fn run(project: Option<&Path>, flags: &Plan) -> Result<(), Failures> {
    let path = find(project, flags.config.as_deref()).map_err(|failure| vec![failure])?;
    let source = aramb::load(&path).map_err(|error| {
        let details = format!("cannot read {}: {error}", path.display());
        vec![failure(
            "aramb_unreadable",
            details,
            "make it readable, and UTF-8",
        )]
    })?;
    let shown = path.file_name().map_or(path.as_path(), Path::new);
    let toml = aramb::parse(shown, &source);
    for warning in &toml.warnings {
        render::err(&format!("warning: {warning}\n\n"));
    }
    if !toml.diagnostics.is_empty() {
        let errors: Vec<_> = toml.diagnostics.iter().map(ToString::to_string).collect();
        let details = format!(
            "{} {} wrong with {}\n\n{}",
            errors.len(),
            if errors.len() == 1 {
                "thing is"
            } else {
                "things are"
            },
            path.display(),
            errors.join("\n\n")
        );
        return Err(vec![failure(
            "aramb_invalid",
            details,
            "correct what is named above",
        )]);
    }
    render::out(&match flags.graph {
        Drawing::Text => text(&toml.file, &toml.graph),
        Drawing::Mermaid => mermaid(&toml.file, &toml.graph),
        Drawing::Svg => svg(&toml.file, &toml.graph),
    });
    Ok(())
}

/// The file named, else the nearest one, beginning with the project's folder or the current one.
fn find(project: Option<&Path>, named: Option<&Path>) -> Result<PathBuf, Failure> {
    let start = match project {
        Some(folder) => std::path::absolute(folder),
        None => std::env::current_dir(),
    };
    let start = start.map_err(|error| {
        let details = format!("cannot find the current folder: {error}");
        failure("project_not_found", details, "change into a project")
    })?;
    let found = match named {
        Some(file) => Some(start.join(file)).filter(|path| path.is_file()),
        None => start
            .ancestors()
            .map(|folder| folder.join(ARAMB_TOML))
            .find(|path| path.is_file()),
    };
    found.ok_or_else(|| {
        let details = match named {
            Some(file) => format!("{} not found", start.join(file).display()),
            None => format!("{ARAMB_TOML} not found in {} nor above", start.display()),
        };
        let settings = project::find_root(&start).map(|root| root.join(project::DEPLOY_TOML));
        let help = if named.is_none() && settings.is_ok_and(|file| file.is_file()) {
            "this project is deployed by .systemprompt/deploy.toml; what that does: cargo xtask deploy --dry-run"
        } else {
            "change into the project, or name the file: cargo xtask plan --config FILE"
        };
        failure("aramb_not_found", details, help)
    })
}

fn failure(code: &'static str, details: String, resolution: &str) -> Failure {
    Failure::new(
        Step::Settings,
        code,
        Exit::Configuration,
        details,
        resolution,
    )
}
