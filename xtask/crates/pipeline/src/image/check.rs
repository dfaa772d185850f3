//! Whether the programs of an image will start on their base image, asked before anything is sent.

use deploy_image::{
    AssemblyPlan, Cache, Looked, PlannedBase, Shortfall, check_libraries, loads_libraries,
};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};

use super::image_failure;
use crate::base::Bases;
use crate::events::Event;
use crate::run::Run;

/// As many problems as a person wants to read.
const SHOWN: usize = 8;

/// Refuses programs that need what neither the base image nor the image itself has.
pub(super) fn check_base(
    run: &Run<'_>,
    planned: &AssemblyPlan,
    bases: &Bases<'_>,
    cache: &mut Cache,
) -> Result<(), Failure> {
    let PlannedBase::Image(base) = &planned.base else {
        return Ok(());
    };
    if !loads_libraries(planned, cache).map_err(|e| image_failure(&e))? {
        return Ok(());
    }
    let facts = match bases.facts(base).map_err(|e| e.failure(Step::Image))? {
        Looked::Found(facts) => facts,
        Looked::Later => return Ok(()),
        Looked::Impossible(reason) => {
            run.reporter.event(Event::Warning(format!(
                "whether {} has the libraries that the programs need is not checked: {reason}",
                base.reference
            )));
            return Ok(());
        }
    };
    let missing = check_libraries(planned, &facts, cache).map_err(|e| image_failure(&e))?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(incompatible(&base.reference, &missing))
}

fn incompatible(base: &str, missing: &[Shortfall]) -> Failure {
    let shown = missing.iter().take(SHOWN).map(ToString::to_string);
    let mut lines: Vec<String> = shown.collect();
    if missing.len() > SHOWN {
        lines.push(format!("and {} more", missing.len() - SHOWN));
    }
    Failure::new(
        Step::Image,
        "base_incompatible",
        Exit::Build,
        format!(
            "the programs will not start on {base}: {}",
            lines.join("; ")
        ),
        "use a newer base image or --base host, build on an older system, or link statically (musl); \
         image.check_libraries = false skips this check",
    )
}
