//! Completions and manual pages, made from the definition of the command line.

use std::path::Path;

use clap::CommandFactory;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};

use super::Failures;
use crate::cli::Cli;
use crate::render;

pub(crate) fn completions(shell: clap_complete::Shell) -> Exit {
    let mut text = Vec::new();
    // Shells complete words, and `cargo xtask` is two: the script is for the binary's own name.
    clap_complete::generate(shell, &mut Cli::command(), "xtask", &mut text);
    render::out_as_it_is(&String::from_utf8_lossy(&text));
    Exit::Done
}

pub(crate) fn pages(folder: &Path) -> Result<(), Failures> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command().name("cargo-xtask"), folder))
        .map_err(|e| {
            vec![Failure::new(
                Step::Settings,
                "manual_not_written",
                Exit::Other,
                format!("cannot write the manual pages to {}: {e}", folder.display()),
                "name a folder that is writable: cargo xtask man DIR",
            )]
        })?;
    render::err(&format!(
        "written; read them with: man -l {}/cargo-xtask.1\n",
        folder.display()
    ));
    Ok(())
}
