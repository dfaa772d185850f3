//! Images in the Docker Engine: fetched from the platform's registry, and freed again.

use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions,
};
use futures_util::TryStreamExt as _;
use oci::{Digest, Repository};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::errors::{failed, is_conflict, is_missing, reason};
use crate::error::EngineError;
use crate::registry::Registry;

/// For one image, from the registry of this machine.
const PULL_PATIENCE: Duration = Duration::from_mins(10);

/// The name by which Docker knows an image of the platform, which it has fetched when this returns.
pub(super) async fn ensure(
    docker: &Docker,
    registry: &dyn Registry,
    repository: &Repository,
    image: Digest,
) -> Result<String, EngineError> {
    let name = format!("{}/{}", registry.host(), repository.as_str());
    let reference = format!("{name}@{image}");
    match docker.inspect_image(&reference).await {
        Ok(_) => return Ok(reference),
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(failed("look for an image")(error)),
    }
    let options = CreateImageOptionsBuilder::default()
        .from_image(&name)
        .tag(&image.to_string())
        .build();
    let token = registry.token(repository);
    let credentials = DockerCredentials {
        registrytoken: Some(token.expose_secret().to_owned()),
        ..DockerCredentials::default()
    };
    let pull = docker.create_image(Some(options), None, Some(credentials));
    let done = pull.try_for_each(|_| async { Ok(()) });
    match timeout(PULL_PATIENCE, done).await {
        Ok(Ok(())) => Ok(reference),
        Ok(Err(error)) if is_unknown(&error) => Err(EngineError::ImageNotFound {
            image,
            missing: image,
        }),
        Ok(Err(error)) => Err(failed("pull the image from this server's registry")(error)),
        Err(_) => Err(EngineError::Docker {
            action: "pull the image from this server's registry",
            reason: format!("it took longer than {} s", PULL_PATIENCE.as_secs()),
        }),
    }
}

/// Whether the registry says that it has no such image.
fn is_unknown(error: &Error) -> bool {
    let said = reason(error);
    is_missing(error) || said.contains("manifest unknown") || said.contains("unknown blob")
}

/// Removes the platform's images that are not among `kept` and that no container is of. Returns how large they were; of
/// that, Docker goes on keeping what other images share.
pub(super) async fn retain(
    docker: &Docker,
    registry: &dyn Registry,
    kept: &[Digest],
) -> Result<u64, EngineError> {
    let options = ListImagesOptionsBuilder::default().digests(true).build();
    let images = docker.list_images(Some(options)).await;
    let ours = format!("{}/", registry.host());
    let mut freed = 0;
    for image in images.map_err(failed("list images"))? {
        let names = image.repo_digests.iter();
        let unwanted = names.filter(|name| name.starts_with(&ours) && !is_among(name, kept));
        for name in unwanted {
            let removed = docker.remove_image(name, None::<RemoveImageOptions>, None);
            match removed.await {
                Ok(items) => {
                    let whole = |id: &String| *id == image.id;
                    if items
                        .iter()
                        .any(|item| item.deleted.as_ref().is_some_and(whole))
                    {
                        freed += u64::try_from(image.size).unwrap_or_default();
                    }
                }
                // A container is of it; or somebody else has removed it.
                Err(error) if is_conflict(&error) || is_missing(&error) => {}
                Err(error) => return Err(failed("remove an image")(error)),
            }
        }
    }
    Ok(freed)
}

fn is_among(name: &str, kept: &[Digest]) -> bool {
    let digest = name.rsplit_once('@').and_then(|(_, d)| d.parse().ok());
    digest.is_some_and(|digest: Digest| kept.contains(&digest))
}
