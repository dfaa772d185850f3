//! `cargo xtask local up|down|status|reset`.

use std::path::Path;

use deploy_pipeline::observe::Observer;
use deploy_pipeline::platform::{Platform, Start};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};

use super::Failures;
use crate::cli::Local;
use crate::context::Context;
use crate::render;

pub(crate) fn run(project: Option<&Path>, action: &Local) -> Result<(), Failures> {
    let context = Context::load(project, |_| {}).map_err(|failure| vec![failure])?;
    let platform = Platform::of(&context.state());
    match action {
        Local::Up => up(&context, &platform),
        Local::Down => down(&platform),
        Local::Status => status(&platform),
        Local::Reset => reset(&platform),
    }
    .map_err(|failure| vec![failure])
}

fn up(context: &Context, platform: &Platform) -> Result<(), Failure> {
    if let Some(running) = platform.running() {
        render::err("it runs already\n");
        render::out(&format!("{}\n", running.url));
        return Ok(());
    }
    let reporter = render::reporter();
    let observer = Observer {
        settings: &context.settings,
        variables: &context.variables,
        redactor: &context.redactor,
        reporter: reporter.as_ref(),
    };
    let binary = observer.server_binary().ok_or_else(|| {
        Failure::new(
            Step::Platform,
            "server_missing",
            Exit::Configuration,
            "there is no `systemprompt` binary",
            "build it: cargo xtask build-all, or name it: local.server in .systemprompt/deploy.toml",
        )
    })?;
    let running = platform.start(&Start::of_project(&context.settings, &binary))?;
    render::out(&format!("{}\n", running.url));
    Ok(())
}

fn down(platform: &Platform) -> Result<(), Failure> {
    let ran = platform.stop()?;
    render::err(if ran { "stopped\n" } else { "it did not run\n" });
    Ok(())
}

fn status(platform: &Platform) -> Result<(), Failure> {
    let Some(running) = platform.running() else {
        return Err(Failure::new(
            Step::Platform,
            "platform_not_running",
            Exit::Other,
            "it does not run",
            "start it: cargo xtask local up",
        ));
    };
    let mut lines = vec![
        format!("url      {}", running.url),
        format!("process  {}", running.pid),
        format!("version  {}", running.version),
        format!("state    {}", platform.folder().display()),
        format!("log      {}", platform.log().display()),
    ];
    for note in platform.notes(&running) {
        lines.push(format!("         {note}"));
    }
    render::out(&format!("{}\n", lines.join("\n")));
    Ok(())
}

fn reset(platform: &Platform) -> Result<(), Failure> {
    platform.reset()?;
    render::err("stopped and forgotten\n");
    Ok(())
}
