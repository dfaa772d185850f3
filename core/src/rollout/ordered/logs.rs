//! What instances write that somebody else runs, into the logs of the platform.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engines::orchestrator::LoggedLine;
use engines::{EngineError, Orchestrator, add_to_log, last_number};
use futures_util::StreamExt as _;
use tokio::task::spawn_blocking;

use crate::logs;
use crate::platform::App;
use crate::tenant::Tenant;

/// So much is written at once, when so much is there.
const AT_ONCE: usize = 256;
/// Before an engine is asked again that had no more to say.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot write the logs")]
    Files(#[from] io::Error),
}

/// Writes what comes, behind what an earlier server has written, for as long as the tenant is there.
pub(super) async fn follow(app: &App, tenant: &Tenant, engine: &dyn Orchestrator) {
    let folder = app.data.logs(&tenant.id);
    let mut told: Option<String> = None;
    // Read from the logs once, by the first of these.
    let mut last = None;
    loop {
        let end = async {
            tokio::select! {
                () = app.shutdown.cancelled() => {}
                () = tenant.deleted.cancelled() => {}
            }
        };
        let following = async {
            let why = match write_all(&folder, tenant, engine, &mut last).await {
                Ok(()) => None,
                Err(error) => Some(crate::chain(&error)),
            };
            // Said once, and not each second.
            if let Some(why) = why.as_ref().filter(|why| told.as_ref() != Some(why)) {
                tracing::warn!(tenant = tenant.id, why, "logs are not followed");
            }
            told = why;
            tokio::time::sleep(PAUSE).await;
        };
        tokio::select! {
            () = end => return,
            () = following => {}
        }
    }
}

async fn write_all(
    folder: &Path,
    tenant: &Tenant,
    engine: &dyn Orchestrator,
    last: &mut Option<u64>,
) -> Result<(), FollowError> {
    let after = if let Some(last) = *last {
        last
    } else {
        let path = folder.to_owned();
        let found = spawn_blocking(move || last_number(&path)).await;
        found.map_err(io::Error::other)??
    };
    *last = Some(after);
    let lines = engine.logs(tenant.id.clone(), after).await?;
    let mut chunks = lines.ready_chunks(AT_ONCE);
    while let Some(chunk) = chunks.next().await {
        let mut broken = None;
        let mut lines = Vec::with_capacity(chunk.len());
        for line in chunk {
            match line {
                Ok(line) => lines.push(line),
                Err(error) => broken = Some(error),
            }
        }
        let (folder, number) = (folder.to_owned(), lines.last().map(|line| line.number));
        let written = spawn_blocking(move || write(&folder, lines)).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            // How much of it is there, the logs say.
            *last = None;
            return Err(error.into());
        }
        *last = number.max(*last);
        if let Some(error) = broken {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Each line into the log of its service, those that follow each other at once. It blocks.
fn write(folder: &Path, lines: Vec<LoggedLine>) -> io::Result<()> {
    let mut run: Option<(PathBuf, Vec<LoggedLine>)> = None;
    for line in lines {
        // It becomes the name of a file.
        if !is_name(&line.service) {
            continue;
        }
        let path = logs::file(folder, line.deployment, &line.service);
        match &mut run {
            Some((same, run)) if *same == path => run.push(line),
            run => {
                if let Some((path, lines)) = run.replace((path, vec![line])) {
                    add_to_log(&path, lines)?;
                }
            }
        }
    }
    match run {
        Some((path, lines)) => add_to_log(&path, lines),
        None => Ok(()),
    }
}

fn is_name(service: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&service.len()) && service.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_the_logs_of_their_services_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let line = |number: u64, service: &str| LoggedLine {
            number,
            at: chrono::Utc::now(),
            deployment: 3,
            service: service.to_owned(),
            instance: None,
            is_error: false,
            text: format!("line {number}"),
        };
        let logs = folder.path().join("logs");
        let lines = [(1, "app"), (2, "app"), (3, "db"), (4, "../db"), (5, "app")];
        let lines = lines.map(|(number, service)| line(number, service));
        write(&logs, lines.to_vec()).unwrap();
        let count = |name: &str| {
            let text = std::fs::read_to_string(logs.join(name)).unwrap();
            text.lines().count()
        };
        assert_eq!((count("3.log"), count("3.db.log")), (3, 1));
        assert_eq!(std::fs::read_dir(&logs).unwrap().count(), 2);
        assert_eq!(last_number(&logs).unwrap(), 5);
    }
}
