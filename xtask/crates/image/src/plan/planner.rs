//! Goes through the stages of a Dockerfile, one instruction after the other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci::ImageConfig;

use super::layers::{layer, layers};
use super::{AssemblyPlan, PlanError, PlannedBase, PlannedLayer};
use crate::base::{self, BaseImage, BaseSource, Looked};
use crate::chmod::Chmod;
use crate::context::Context;
use crate::copying::{Copied, Copying, Room};
use crate::dockerfile::{Copy, Dockerfile, Instruction, Line, Problem};
use crate::files::{Content, Files, Kind, Owner};
use crate::ignore::Ignore;
use crate::layer::read_text;
use crate::needs::NeedsEngine;
use crate::options::{BaseChoice, Options};
use crate::outline::{Origin, Outline, stage_of};
use crate::owners::{Accounts, OwnerError};
use crate::stage::{StageState, Step};
use crate::time;
use crate::tree::Tree;

/// A passwd file over this is not one.
const PASSWD_LIMIT: u64 = 1024 * 1024;

/// A stage that has been gone through.
#[derive(Debug, Clone)]
pub(super) struct PlannedStage {
    base: PlannedBase,
    /// The users of the base image, once somebody has asked for a name.
    accounts: Option<Accounts>,
    state: StageState,
    tree: Tree,
    layers: Vec<PlannedLayer>,
    warnings: Vec<String>,
}

impl PlannedStage {
    /// The start of a stage. `furnished`: it stands on an image, which has the usual directories, or its `FROM` names one.
    pub(super) fn on(base: PlannedBase, furnished: bool) -> Self {
        let (state, accounts) = match &base {
            PlannedBase::Image(image) => (StageState::on(&image.config), None),
            _ => (StageState::empty(), None),
        };
        let tree = if furnished {
            Tree::on_image()
        } else {
            Tree::default()
        };
        Self {
            base,
            accounts,
            state,
            tree,
            layers: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The users of the image as this stage has them now.
    fn known_accounts(&self) -> Accounts {
        let text = |path: &str| match self.tree.get(Path::new(path))?.kind {
            Kind::File { ref content, .. } => read_text(content, PASSWD_LIMIT),
            _ => None,
        };
        let known = match self.base {
            PlannedBase::Host => base::accounts(self.state.config.user.as_deref()),
            _ => self.accounts.clone().unwrap_or_default(),
        };
        Accounts {
            passwd: text("etc/passwd").unwrap_or(known.passwd),
            group: text("etc/group").unwrap_or(known.group),
        }
    }
}

pub(super) struct Planner<'a> {
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) context: &'a Context,
    pub(super) options: &'a Options,
    pub(super) images: &'a dyn BaseSource,
    pub(super) outline: &'a Outline,
    pub(super) room: Room,
}

impl Planner<'_> {
    pub(super) fn stage(
        &self,
        index: usize,
        stages: &[Option<PlannedStage>],
    ) -> Result<PlannedStage, PlanError> {
        let earlier = match &self.outline.origins[index] {
            Origin::Stage(earlier) => stages[*earlier].as_ref(),
            _ => None,
        };
        let mut stage = match earlier {
            Some(earlier) => self.derive(index, earlier)?,
            None => self.start(index)?,
        };
        for line in &self.dockerfile.stages[index].lines {
            self.line(&mut stage, index, stages, line)?;
        }
        Ok(stage)
    }

    /// A stage that stands on another one of the same file.
    fn derive(&self, index: usize, earlier: &PlannedStage) -> Result<PlannedStage, PlanError> {
        let line = &self.dockerfile.stages[index].line;
        let room = self.room.take(earlier.tree.len(), Path::new("/"));
        room.map_err(|source| self.copy_error(line, &earlier.tree, source))?;
        let mut stage = earlier.clone();
        stage.state = stage.state.derived();
        Ok(stage)
    }

    fn start(&self, index: usize) -> Result<PlannedStage, PlanError> {
        let origin = &self.outline.origins[index];
        let is_bottom = index == self.outline.bottom();
        let base = match (&self.options.base, origin) {
            (BaseChoice::Host, _) => PlannedBase::Host,
            (BaseChoice::Image(reference), Origin::Image(_))
            | (BaseChoice::Dockerfile, Origin::Image(reference)) => self.image(index, reference)?,
            // A stage that files are copied from stays as empty as it says.
            (BaseChoice::Image(reference), _) if is_bottom => self.image(index, reference)?,
            _ => PlannedBase::Scratch,
        };
        let stands_in = is_bottom && matches!(self.options.base, BaseChoice::Image(_));
        let furnished = stands_in || matches!(origin, Origin::Image(_));
        Ok(PlannedStage::on(base, furnished))
    }

    fn image(&self, index: usize, reference: &str) -> Result<PlannedBase, PlanError> {
        let line = &self.dockerfile.stages[index].line;
        let platform = self
            .outline
            .platform(self.dockerfile, self.options, index)?;
        let found = self
            .images
            .image(reference, &platform)
            .map_err(|source| PlanError::Base {
                at: self.place(line),
                reference: reference.to_owned(),
                source,
            })?;
        let unavailable = || PlannedBase::Unavailable(reference.to_owned());
        Ok(found.map_or_else(unavailable, |image| PlannedBase::Image(Box::new(image))))
    }

    fn line(
        &self,
        stage: &mut PlannedStage,
        index: usize,
        stages: &[Option<PlannedStage>],
        line: &Line,
    ) -> Result<(), PlanError> {
        let step = stage
            .state
            .apply(self.dockerfile, self.outline, self.options, line)?;
        let before = stage.layers.len();
        match step {
            Step::Configure => {}
            Step::Directory { path, owner } => self.directory(stage, line, &path, owner)?,
            Step::Copy(copy) => {
                let source: &dyn Files = match &copy.from {
                    Some(from) => self.stage_files(index, stages, line, from)?,
                    None => self.context,
                };
                self.copy(stage, line, &copy, source)?;
            }
        }
        let made = stage.layers.len() - before;
        stage
            .state
            .record(line, made, &time::rfc3339(self.options.epoch));
        Ok(())
    }

    fn stage_files<'s>(
        &self,
        index: usize,
        stages: &'s [Option<PlannedStage>],
        line: &Line,
        from: &str,
    ) -> Result<&'s dyn Files, PlanError> {
        let earlier = stage_of(self.dockerfile, index, from);
        let planned = earlier.and_then(|earlier| stages.get(earlier)?.as_ref());
        let unknown = || Problem::Stage {
            name: from.to_owned(),
            reason: "no earlier stage",
        };
        let planned = planned.ok_or_else(|| self.dockerfile.fault(line, unknown()))?;
        Ok(&planned.tree)
    }

    fn owner(
        &self,
        stage: &mut PlannedStage,
        line: &Line,
        owner: &str,
    ) -> Result<Owner, PlanError> {
        let unknown = match stage.known_accounts().owner(owner) {
            Ok(owner) => return Ok(owner),
            Err(unknown) => unknown,
        };
        let refused = |source| PlanError::Owner {
            at: self.place(line),
            source,
        };
        let reference = match &stage.base {
            PlannedBase::Unavailable(reference) => reference.clone(),
            PlannedBase::Image(image) if stage.accounts.is_none() => {
                match self.accounts(line, image)? {
                    Looked::Found(accounts) => {
                        stage.accounts = Some(accounts);
                        return stage.known_accounts().owner(owner).map_err(refused);
                    }
                    Looked::Later => image.reference.clone(),
                    Looked::Impossible(reason) => {
                        return Err(refused(OwnerError::Unreadable(owner.to_owned(), reason)));
                    }
                }
            }
            _ => return Err(refused(unknown)),
        };
        // Whoever looks into the image later may find the name. Until then it cannot be made.
        stage.base = PlannedBase::Unavailable(reference);
        Ok(Owner::default())
    }

    fn accounts(&self, line: &Line, image: &BaseImage) -> Result<Looked<Accounts>, PlanError> {
        self.images
            .accounts(image)
            .map_err(|source| PlanError::Base {
                at: self.place(line),
                reference: image.reference.clone(),
                source,
            })
    }

    fn directory(
        &self,
        stage: &mut PlannedStage,
        line: &Line,
        path: &str,
        owner: Option<String>,
    ) -> Result<(), PlanError> {
        let target = crate::paths::below_root(Path::new(path));
        if stage.tree.is_directory(&target) {
            return Ok(());
        }
        let owner = owner
            .map(|owner| self.owner(stage, line, &owner))
            .transpose()?;
        let made = stage
            .tree
            .make_directories(&target, owner.unwrap_or_default());
        let made: BTreeSet<PathBuf> = made.into_iter().collect();
        stage.layers.extend(layer(&stage.tree, line, path, &made));
        Ok(())
    }

    fn copy(
        &self,
        stage: &mut PlannedStage,
        line: &Line,
        copy: &Copy,
        files: &dyn Files,
    ) -> Result<(), PlanError> {
        let owner = copy.chown.as_deref().filter(|owner| !owner.is_empty());
        let owner = owner
            .map(|owner| self.owner(stage, line, owner))
            .transpose()?;
        let failed = |source| self.copy_error(line, files, source);
        let copying = Copying {
            files,
            sources: &copy.sources,
            inline: inline(copy),
            destination: &copy.destination,
            owner,
            chmod: self.chmod(line, copy)?,
            parents: copy.parents,
            exclude: Ignore::of_patterns(&copy.exclude).map_err(|bad| failed(bad.into()))?,
            room: &self.room,
        };
        let copied = copying.run(&mut stage.tree).map_err(failed)?;
        self.check_archives(line, stage, &copied)?;
        for pattern in &copied.unmatched {
            let at = format!("{}:{}", self.dockerfile.file, line.span.first);
            stage
                .warnings
                .push(format!("{at}: nothing matches {pattern}"));
        }
        stage
            .layers
            .extend(layers(&stage.tree, line, &copy.destination, copied.paths));
        Ok(())
    }

    fn chmod(&self, line: &Line, copy: &Copy) -> Result<Option<Chmod>, PlanError> {
        let Some(text) = copy.chmod.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let problem = || Problem::Value {
            what: "the mode",
            value: text.to_owned(),
            reason: "write it as 755 or u=rwX,go=rX".into(),
        };
        let chmod = Chmod::read(text).ok_or_else(|| self.dockerfile.fault(line, problem()))?;
        Ok(Some(chmod))
    }

    /// `ADD` unpacks what is an archive by its content, whatever its name says.
    fn check_archives(
        &self,
        line: &Line,
        stage: &PlannedStage,
        copied: &Copied,
    ) -> Result<(), PlanError> {
        if !matches!(line.instruction, Instruction::Add(_)) {
            return Ok(());
        }
        let archive = copied.paths.iter().find(|path| {
            let node = stage.tree.get(path);
            node.is_some_and(|node| matches!(&node.kind, Kind::File { content, .. } if crate::archive::is_archive(content)))
        });
        let Some(path) = archive else { return Ok(()) };
        let needs = vec![NeedsEngine {
            line: line.span.first,
            instruction: line.name.clone(),
            reason: format!("unpacks an archive to {}", path.display()),
        }];
        Err(PlanError::NeedsEngine {
            file: self.dockerfile.file.clone(),
            needs,
        })
    }

    pub(super) fn finish(&self, stage: PlannedStage) -> AssemblyPlan {
        let PlannedStage {
            base,
            state,
            tree,
            layers,
            mut warnings,
            ..
        } = stage;
        let platform = self.options.platform.clone();
        if let PlannedBase::Unavailable(reference) = &base {
            warnings.push(format!("the base image {reference} has not been looked at"));
        }
        let config = ImageConfig {
            created: Some(time::rfc3339(self.options.epoch)),
            author: state.author,
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config: state.config,
            rootfs: oci::RootFs::default(),
            history: state.history,
        };
        let Options {
            compression, epoch, ..
        } = *self.options;
        AssemblyPlan {
            base,
            layers,
            config,
            warnings,
            compression,
            epoch,
            platform,
            tree,
        }
    }
}
fn inline(copy: &Copy) -> Vec<(String, Content)> {
    let content = |text: &str| Content::Inline(text.as_bytes().into());
    copy.heredocs
        .iter()
        .map(|doc| (doc.name.clone(), content(&doc.content)))
        .collect()
}
