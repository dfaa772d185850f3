//! From an image's configuration and what the caller adds to it to what the launcher does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::image::PreparedImage;
use super::isolation::{Isolation, Level};
use super::launch::DEFAULT_PATH;
use super::launch::protocol::{
    Confinement, Executable, Failure, FailureKind, Launch, Namespaces, Program, Search, Volume,
};
use super::outside::Outside;
use super::place::Place;
use crate::engine::InstanceSpec;
use crate::error::EngineError;

/// The address instances are to listen on: they share the machine's network.
pub(super) const HOST: &str = "127.0.0.1";

/// What to launch for `spec`, in a place that has been created, with the folders of its volumes.
pub(super) fn launch(
    spec: &InstanceSpec,
    image: &PreparedImage,
    place: &Place,
    isolation: &Isolation,
    volumes: Vec<Volume>,
) -> Result<Launch, EngineError> {
    spec.check_environment()?;
    let command = command(spec, image)?;
    if isolation.level == Level::Group {
        return outside(spec, image, place, command);
    }
    let namespaces = Namespaces {
        user: isolation.level == Level::UserNamespaces,
        root: place.mount(image, isolation.root),
        target: place.target(),
        volumes: place.volumes(image, isolation.root, volumes),
    };
    let program = Program {
        command,
        executable: None,
        environment: environment(spec, image_environment(image)),
        directory: working_directory(image),
        user: image.config.user.clone().unwrap_or_default(),
    };
    Ok(Launch {
        confinement: Confinement::Namespaces(namespaces),
        program: Some(program),
        supervision: None,
    })
}

/// The same failure in the words of the engine's own errors.
pub(super) fn explain(id: &str, program: &str, failure: &Failure) -> EngineError {
    match failure.kind {
        FailureKind::ProgramNotFound => EngineError::ProgramNotFound {
            program: failure.reason.clone(),
        },
        FailureKind::ExecFormat => EngineError::ExecFormat {
            program: program.to_owned(),
        },
        FailureKind::UserNotFound => EngineError::UserNotFound {
            user: failure.reason.clone(),
        },
        FailureKind::Other => EngineError::launch(id, &failure.step, &failure.reason),
    }
}

/// `ENTRYPOINT` and `CMD`, the latter replaced by what the caller wants to run, as in Docker.
fn command(spec: &InstanceSpec, image: &PreparedImage) -> Result<Vec<String>, EngineError> {
    let mut command = image.config.entrypoint.clone().unwrap_or_default();
    let arguments = spec.command.as_ref().or(image.config.cmd.as_ref());
    command.extend(arguments.cloned().unwrap_or_default());
    if command.first().is_none_or(String::is_empty) {
        return Err(EngineError::NoCommand { image: spec.image });
    }
    Ok(command)
}

fn image_environment(image: &PreparedImage) -> BTreeMap<String, String> {
    let pairs = image
        .config
        .env
        .iter()
        .filter_map(|pair| pair.split_once('='));
    let pairs = pairs.filter(|(name, _)| !name.is_empty());
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Nothing of the server's own; the address last, for nobody may choose another one.
fn environment(spec: &InstanceSpec, image: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = image;
    all.extend(spec.env.clone());
    all.insert("PORT".to_owned(), spec.port.to_string());
    all.insert("HOST".to_owned(), HOST.to_owned());
    all
}

fn working_directory(image: &PreparedImage) -> PathBuf {
    let named = image
        .config
        .working_dir
        .as_deref()
        .filter(|path| !path.is_empty());
    Path::new("/").join(named.unwrap_or("/"))
}

fn outside(
    spec: &InstanceSpec,
    image: &PreparedImage,
    place: &Place,
    command: Vec<String>,
) -> Result<Launch, EngineError> {
    let root = place.copy();
    let outside = Outside { root: &root };
    let own = image_environment(image);
    let path = spec.env.get("PATH").or(own.get("PATH"));
    let search = Search {
        path: path.map_or(DEFAULT_PATH, String::as_str).to_owned(),
        directory: working_directory(image),
        libraries: own.get("LD_LIBRARY_PATH").cloned().unwrap_or_default(),
    };
    let executable: Executable = outside
        .executable(&command, &search)
        .map_err(|failure| explain(&spec.id, &command[0], &failure))?;
    let path = outside.search_path(&search.path);
    let rewritten = own.iter().filter(|(name, _)| *name != "LD_LIBRARY_PATH");
    let rewritten = rewritten
        .map(|(name, value)| (name.clone(), outside.rewrite(value)))
        .collect();
    let mut environment = environment(spec, rewritten);
    environment.insert("PATH".to_owned(), path);
    let program = Program {
        command,
        executable: Some(executable),
        environment,
        directory: outside.directory(&search.directory),
        user: image.config.user.clone().unwrap_or_default(),
    };
    Ok(Launch {
        confinement: Confinement::Group { root, search },
        program: Some(program),
        supervision: None,
    })
}
