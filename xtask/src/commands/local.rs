//! `cargo xtask local up|down|status|reset`.

use std::path::Path;

use deploy_pipeline::observe::Observer;
use deploy_pipeline::platform::{Kept, Platform, Start, Volumes};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};

use super::{Failures, terminal};
use crate::cli::{Local, Reset};
use crate::context::Context;
use crate::render;

pub(crate) fn run(project: Option<&Path>, action: &Local) -> Result<(), Failures> {
    let context = Context::load(project, |_| {}).map_err(|failure| vec![failure])?;
    let platform = Platform::of(&context.state());
    match action {
        Local::Up => up(&context, &platform),
        Local::Down => down(&platform),
        Local::Status => status(&platform),
        Local::Reset(flags) => reset(&context, &platform, flags),
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
        let silent = platform.silent(Step::Platform);
        return Err(silent.unwrap_or_else(|| {
            Failure::new(
                Step::Platform,
                "platform_not_running",
                Exit::Other,
                "it does not run",
                "start it: cargo xtask local up",
            )
        }));
    };
    let mut lines = vec![
        format!("url      {}", running.url),
        format!("process  {}", running.pid()),
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

/// What is to be typed.
const WORD: &str = "reset";

fn reset(context: &Context, platform: &Platform, flags: &Reset) -> Result<(), Failure> {
    let kept = platform.kept();
    let volumes = if flags.volumes {
        Volumes::Remove
    } else {
        Volumes::Keep
    };
    let goes = kept.state || (flags.volumes && !kept.volumes.is_empty());
    if goes {
        let told = told(platform, &kept, volumes);
        if flags.yes {
            render::err(&told);
        } else {
            confirm(context, &told, flags.volumes)?;
        }
    }
    platform.reset(volumes)?;
    render::err(done(&kept, volumes, goes));
    Ok(())
}

/// What a reset would do, before it is done.
fn told(platform: &Platform, kept: &Kept, volumes: Volumes) -> String {
    let folder = platform.folder().display();
    let size =
        |bytes: Option<u64>| bytes.map_or_else(String::new, |b| format!(" ({})", render::bytes(b)));
    let mut lines = vec![format!("the platform in {folder}{}:", size(kept.bytes))];
    if let Some(running) = platform.running() {
        lines.push(format!("  what it serves ends: {}", running.url));
    }
    if kept.state {
        lines.push(
            "  removed: images, releases and their history, secrets, tokens, logs".to_owned(),
        );
    }
    if !kept.volumes.is_empty() {
        let named = kept.volumes.iter();
        let named: Vec<String> = named
            .map(|volume| format!("{}{}", volume.name, size(volume.bytes)))
            .collect();
        let (what, more) = match volumes {
            Volumes::Keep => ("volumes stay", "; --volumes removes them"),
            Volumes::Remove => ("removed: volumes, with all that is in them", ""),
        };
        lines.push(format!("  {what}: {}{more}", named.join(", ")));
    }
    if let Some(label) = &kept.docker_label {
        lines.push(format!(
            "  volumes of Docker's stay with Docker, and the next platform has others: docker volume ls --filter label={label}"
        ));
    }
    lines.join("\n") + "\n"
}

fn confirm(context: &Context, told: &str, volumes: bool) -> Result<(), Failure> {
    let unconfirmed = |details: String| {
        let more = if volumes { " --volumes" } else { "" };
        Failure::new(
            Step::Platform,
            "reset_unconfirmed",
            Exit::Usage,
            details,
            format!("if all of that may go: cargo xtask local reset --yes{more}"),
        )
    };
    if !terminal::asks() {
        return Err(unconfirmed(format!(
            "there is no terminal to ask on, and nothing was removed; {}",
            told.trim_end()
        )));
    }
    render::err(told);
    match terminal::typed(&format!("type {WORD} to go on: "), &context.interrupts) {
        Some(answer) if answer.trim() == WORD => Ok(()),
        Some(_) => Err(unconfirmed(
            "it was not confirmed, and nothing was removed".to_owned(),
        )),
        None => Err(Failure::new(
            Step::Platform,
            "interrupted",
            Exit::Interrupted,
            "interrupted before anything was removed",
            "nothing has changed",
        )),
    }
}

fn done(kept: &Kept, volumes: Volumes, goes: bool) -> &'static str {
    let stay = volumes == Volumes::Keep && !kept.volumes.is_empty();
    match (goes, stay) {
        (true, false) => "stopped and forgotten\n",
        (true, true) => "stopped and forgotten; volumes stay\n",
        (false, true) => {
            "there is nothing to remove but volumes: cargo xtask local reset --volumes\n"
        }
        (false, false) => "there is nothing to remove\n",
    }
}
