//! The base images of an image that Docker builds: which of its layers are theirs, and what they are.
//!
//! Docker finds bases by itself. Of those that its engine keeps as images it says what they are;
//! `BuildKit` keeps them in its cache, and says nothing. `deploy.lock` is believed only where the
//! layers that it means are the ones that were built upon.

use std::fs;

use deploy_image::{
    BaseChoice, BaseSource as _, Dockerfile, Options, Outline, base_images, copies,
};
use deploy_plan::plan::Image;
use oci::{Digest, Platform, Reference};
use serde::Deserialize;

use super::answer;
use crate::base::UsedBase;
use crate::deploy::Execution;
use crate::image;
use crate::run::Run;

/// An image that the Dockerfile names.
pub(super) struct Base {
    reference: Reference,
    /// It is at the bottom of the image, and not of another stage.
    lowest: bool,
    /// As the engine has it.
    engine: Option<Known>,
    /// As the lock has it.
    locked: Option<Known>,
}

/// What somebody knows of an image.
struct Known {
    digest: Option<Digest>,
    /// Uncompressed.
    layers: Vec<Digest>,
}

/// All that the Dockerfile names. What cannot be read in it, Docker alone understands.
pub(super) fn find(run: &Run<'_>, execution: &Execution<'_>, image: &Image) -> Vec<Base> {
    let named = named(execution, image).unwrap_or_default();
    let bases = named.into_iter().filter_map(|(name, platform, lowest)| {
        let reference: Reference = name.parse().ok()?;
        Some(Base {
            engine: in_engine(run, execution, &name, &reference),
            locked: in_lock(execution, &name, &platform),
            lowest,
            reference,
        })
    });
    bases.collect()
}

impl Base {
    /// The layers that it may have brought; none of what only another stage stands on.
    pub(super) fn layers(&self) -> impl Iterator<Item = Vec<Digest>> {
        let known = self.engine.iter().chain(&self.locked);
        let known = known.filter(|_| self.lowest);
        known.map(|known| known.layers.clone())
    }

    /// What it is, as far as that is sure for an image with these layers.
    pub(super) fn used(&self, layers: &[Digest]) -> UsedBase {
        let below = |known: &&Known| layers.starts_with(&known.layers);
        // The engine has just built with it; only at the bottom can that be seen as well.
        let engine = self.engine.as_ref();
        let engine = engine.filter(|known| !self.lowest || below(known));
        let locked = self.locked.as_ref().filter(|_| self.lowest).filter(below);
        let digest = self.reference.digest().copied();
        UsedBase {
            reference: self.reference.clone(),
            digest: digest
                .or_else(|| engine.and_then(|known| known.digest))
                .or_else(|| locked.and_then(|known| known.digest)),
        }
    }
}

/// The images with their platforms, and whether the built one stands on them.
fn named(execution: &Execution<'_>, image: &Image) -> Option<Vec<(String, Platform, bool)>> {
    let path = execution.settings.root.join(&image.dockerfile);
    let text = fs::read_to_string(path).ok()?;
    let dockerfile = Dockerfile::parse(&image.dockerfile.to_string_lossy(), &text).ok()?;
    let options = Options {
        // Docker knows no other.
        base: BaseChoice::Dockerfile,
        ..image::options(image).ok()?
    };
    let outline = Outline::new(&dockerfile, &options).ok()?;
    let lowest = outline.base_image();
    let stood_upon = base_images(&dockerfile, &options).ok()?;
    let stood_upon = stood_upon.into_iter().map(|(name, platform)| {
        let lowest = lowest == Some(name.as_str());
        (name, platform, lowest)
    });
    let copied = copied_from(&dockerfile, &options);
    let copied = copied.map(|name| (name, options.platform.clone(), false));
    let mut named: Vec<_> = stood_upon.chain(copied).collect();
    named.sort_by(|one, other| (&one.0, !one.2).cmp(&(&other.0, !other.2)));
    named.dedup_by(|one, other| one.0 == other.0);
    Some(named)
}

/// What `--from` names that is neither a stage's name nor its number.
fn copied_from(dockerfile: &Dockerfile, options: &Options) -> impl Iterator<Item = String> {
    let names = dockerfile.stages.iter();
    let names: Vec<_> = names
        .filter_map(|stage| stage.from.name.as_deref())
        .collect();
    let lines = copies(dockerfile, options).unwrap_or_default();
    let images = lines.into_iter().filter_map(|line| line.from);
    let images = images.filter(|from| {
        let stage = names.iter().any(|name| name.eq_ignore_ascii_case(from));
        !stage && from.parse::<usize>().is_err()
    });
    images.collect::<Vec<_>>().into_iter()
}

/// The parts of `docker image inspect` that are of use here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
    #[serde(rename = "RootFS")]
    root: RootFs,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    #[serde(default)]
    layers: Option<Vec<Digest>>,
}

fn in_engine(
    run: &Run<'_>,
    execution: &Execution<'_>,
    name: &str,
    reference: &Reference,
) -> Option<Known> {
    let arguments = ["image", "inspect", "--format", "{{json .}}", name];
    let text = answer(run, &execution.settings.root, &arguments)?;
    known(&text, reference)
}

fn known(inspected: &str, reference: &Reference) -> Option<Known> {
    let inspected: Inspected = serde_json::from_str(inspected).ok()?;
    let names = inspected.repo_digests.unwrap_or_default();
    let mut digests = names.iter().filter_map(|name| {
        // The same image may have come from several places.
        let name: Reference = name.parse().ok()?;
        let same =
            name.registry() == reference.registry() && name.repository() == reference.repository();
        name.digest().copied().filter(|_| same)
    });
    Some(Known {
        digest: digests.next(),
        layers: inspected.root.layers.unwrap_or_default(),
    })
}

fn in_lock(execution: &Execution<'_>, name: &str, platform: &Platform) -> Option<Known> {
    let bases = image::known(execution.settings);
    let base = bases.image(name, platform).ok()??;
    Some(Known {
        digest: base.digest,
        layers: base.config.rootfs.diff_ids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(names: &[&str]) -> Vec<Digest> {
        names
            .iter()
            .map(|name| Digest::of(name.as_bytes()))
            .collect()
    }

    fn base(engine: Option<&str>, lowest: bool) -> Base {
        let reference: Reference = "registry.example/debian:12".parse().unwrap();
        Base {
            engine: engine.and_then(|text| known(text, &reference)),
            locked: Some(Known {
                digest: Some(Digest::of(b"locked")),
                layers: layers(&["a"]),
            }),
            lowest,
            reference,
        }
    }

    fn inspected(name: &str, layer: &str) -> String {
        let (digest, layer) = (Digest::of(b"engine"), Digest::of(layer.as_bytes()));
        format!(
            r#"{{"Id":"x","RepoDigests":["other.example/debian@{layer}","{name}@{digest}"],
                "RootFS":{{"Type":"layers","Layers":["{layer}"]}}}}"#
        )
    }

    #[test]
    fn nobody_is_believed_about_a_base_that_is_not_below() {
        let built = layers(&["a", "b"]);
        let digest = |base: Base| base.used(&built).digest;
        let (engine, locked) = (Some(Digest::of(b"engine")), Some(Digest::of(b"locked")));
        let here = inspected("registry.example/debian", "a");
        assert_eq!(digest(base(Some(&here), true)), engine);
        assert_eq!(digest(base(None, true)), locked);
        // The tag has moved on since.
        let moved = inspected("registry.example/debian", "c");
        assert_eq!(digest(base(Some(&moved), true)), locked);
        // Below another stage: the engine's word must do, and the lock's is a guess.
        assert_eq!(digest(base(Some(&moved), false)), engine);
        assert_eq!(digest(base(None, false)), None);
        // Made here, and never in a registry.
        let local = r#"{"RepoDigests":[],"RootFS":{"Layers":null}}"#;
        assert_eq!(digest(base(Some(local), false)), None);
    }

    #[test]
    fn only_what_is_at_the_bottom_has_brought_layers() {
        let here = inspected("registry.example/debian", "c");
        let brought: Vec<_> = base(Some(&here), true).layers().collect();
        assert_eq!(brought, [layers(&["c"]), layers(&["a"])]);
        assert_eq!(base(Some(&here), false).layers().count(), 0);
    }
}
