//! Volumes of Docker's, one for each of ours. A label says whose they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::models::{ContainerSummary, Mount, MountType, Volume, VolumeCreateRequest};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveVolumeOptions,
};
use chrono::DateTime;

use super::container::SERVER;
use super::errors::{failed, is_conflict, is_missing};
use crate::error::EngineError;
use crate::volumes::{Mounted, VolumeId, VolumeInfo};

const OWNER: &str = "io.systemprompt.owner";
const NAME: &str = "io.systemprompt.volume";

/// The volumes of one server.
pub(super) struct Volumes<'a> {
    pub(super) docker: &'a Docker,
    /// Its id.
    pub(super) server: &'a str,
}

impl Volumes<'_> {
    /// Makes those that are not there. Docker fills one, when its first container is made, with what the image has at its path.
    pub(super) async fn ensure(&self, mounted: &[Mounted]) -> Result<Vec<Mount>, EngineError> {
        let mut mounts = Vec::new();
        for Mounted { volume, path } in mounted {
            let labels = [
                (SERVER, self.server),
                (OWNER, &volume.owner),
                (NAME, &volume.name),
            ];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let wanted = VolumeCreateRequest {
                name: Some(self.name(volume)),
                driver: Some("local".to_owned()),
                labels: Some(labels.into()),
                ..VolumeCreateRequest::default()
            };
            let made = self.docker.create_volume(wanted).await;
            made.map_err(failed("make a volume"))?;
            mounts.push(Mount {
                typ: Some(MountType::VOLUME),
                source: Some(self.name(volume)),
                target: Some(path.to_string_lossy().into_owned()),
                ..Mount::default()
            });
        }
        Ok(mounts)
    }

    /// Refuses an image of which Docker would put a volume of no name over what is within one of ours: what is written there would
    /// go with the container.
    pub(super) async fn check_image(
        &self,
        image: &str,
        mounted: &[Mounted],
    ) -> Result<(), EngineError> {
        if mounted.is_empty() {
            return Ok(());
        }
        let found = self.docker.inspect_image(image).await;
        let found = found.map_err(failed("look at an image"))?;
        let own = found.config.and_then(|config| config.volumes);
        let Some((outer, inner)) = covered(mounted, &own.unwrap_or_default()) else {
            return Ok(());
        };
        let inner = inner.display();
        Err(EngineError::Volume {
            volume: outer.volume.clone(),
            path: outer.path.clone(),
            reason: format!(
                "the image says `VOLUME {inner}`, and Docker removes what is written there with the container: have it at {inner}"
            ),
        })
    }

    /// The containers that have a volume, running or not.
    pub(super) async fn users(
        &self,
        volume: &VolumeId,
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("volume", vec![self.name(volume)])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let listed = self.docker.list_containers(Some(options)).await;
        listed.map_err(failed("look for who has a volume"))
    }

    pub(super) async fn list(&self, owner: &str) -> Result<Vec<VolumeInfo>, EngineError> {
        let labels = vec![
            format!("{SERVER}={}", self.server),
            format!("{OWNER}={owner}"),
        ];
        let options = ListVolumesOptionsBuilder::default()
            .filters(&HashMap::from([("label", labels)]))
            .build();
        let listed = self.docker.list_volumes(Some(options)).await;
        let listed = listed.map_err(failed("list volumes"))?;
        let volumes = listed.volumes.unwrap_or_default();
        let mut volumes: Vec<VolumeInfo> = volumes.iter().filter_map(info).collect();
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(volumes)
    }

    /// Whether it is there to be removed. Refused where a container has it.
    pub(super) async fn has(&self, volume: &VolumeId) -> Result<bool, EngineError> {
        match self.docker.inspect_volume(&self.name(volume)).await {
            Ok(_) => {}
            Err(error) if is_missing(&error) => return Ok(false),
            Err(error) => return Err(failed("look at a volume")(error)),
        }
        if self.users(volume).await?.is_empty() {
            return Ok(true);
        }
        Err(in_use(volume))
    }

    /// Removes it; one that is not there is fine.
    pub(super) async fn remove(&self, volume: &VolumeId) -> Result<(), EngineError> {
        let options = None::<RemoveVolumeOptions>;
        match self.docker.remove_volume(&self.name(volume), options).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) if is_conflict(&error) => Err(in_use(volume)),
            Err(error) => Err(failed("remove a volume")(error)),
        }
    }

    /// Neither an owner nor a volume has two dashes in a row.
    fn name(&self, volume: &VolumeId) -> String {
        let VolumeId { owner, name } = volume;
        format!("systemprompt-{}-{owner}--{name}", self.server)
    }
}

fn in_use(volume: &VolumeId) -> EngineError {
    EngineError::VolumeInUse {
        volume: volume.clone(),
        holder: "a container".to_owned(),
    }
}

/// The first of the paths of an image's own volumes that is within one of ours, and which one that is.
fn covered<'a>(mounted: &'a [Mounted], own: &[String]) -> Option<(&'a Mounted, PathBuf)> {
    let own = own.iter().map(|path| Path::new("/").join(path));
    let mut own = own.filter(|path| mounted.iter().all(|ours| ours.path != *path));
    own.find_map(|path| {
        let outer = mounted.iter().find(|ours| path.starts_with(&ours.path))?;
        Some((outer, path))
    })
}

fn info(volume: &Volume) -> Option<VolumeInfo> {
    let created = volume.created_at.as_deref();
    let created = created.and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    Some(VolumeInfo {
        name: volume.labels.get(NAME)?.clone(),
        created_at: created.map(Into::into),
        // Docker would look through all files of all volumes.
        bytes: None,
        in_use_by: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_has_within_a_volume_is_found() {
        let ours = |path: &str| Mounted {
            volume: VolumeId {
                owner: "shop".to_owned(),
                name: "data".to_owned(),
            },
            path: PathBuf::from(path),
        };
        let data = "/var/lib/postgresql/data";
        for (at, own, found) in [
            ("/var/lib/postgresql", data, true),
            ("/var/lib/postgresql", "var/lib/postgresql/data/", true),
            (data, data, false),
            (data, "/var/lib/postgresql/data/", false),
            (data, "/var/lib/postgresql", false),
            ("/var/lib/post", data, false),
        ] {
            let mounted = [ours(at)];
            let covered = covered(&mounted, &[own.to_owned()]);
            assert_eq!(covered.is_some(), found, "{own} in {at}");
        }
    }
}
