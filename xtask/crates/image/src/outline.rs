//! Which stages an image needs and what each stands on, found from the Dockerfile alone.

use oci::Platform;

use crate::dockerfile::{Copy, CopyLine, Dockerfile, DockerfileError, Instruction, Line, Problem};
use crate::needs::{self, NeedsEngine};
use crate::options::{BaseChoice, Options};
use crate::stage::{StageState, Step};
use crate::variables::Variables;

/// What a stage stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `FROM scratch`
    Scratch,
    /// An earlier stage, by its number.
    Stage(usize),
    /// An image in a registry.
    Image(String),
}

/// The stages of a Dockerfile as far as one image needs them.
#[derive(Debug, Clone)]
pub struct Outline {
    /// What each stage stands on.
    pub origins: Vec<Origin>,
    /// The platform that each stage's `FROM` asks for.
    pub platforms: Vec<Option<String>>,
    /// Whether the image needs the stage.
    pub needed: Vec<bool>,
    /// The stage that becomes the image.
    pub target: usize,
    pub(crate) globals: Variables,
}

impl Outline {
    /// Finds the stages of `dockerfile` that `options` ask for.
    pub fn new(dockerfile: &Dockerfile, options: &Options) -> Result<Self, DockerfileError> {
        let globals = globals(dockerfile, options)?;
        let mut outline = Self {
            origins: Vec::new(),
            platforms: Vec::new(),
            needed: vec![false; dockerfile.stages.len()],
            target: target(dockerfile, options)?,
            globals,
        };
        for index in 0..dockerfile.stages.len() {
            outline.push_origin(dockerfile, index)?;
        }
        outline.mark(dockerfile, outline.target);
        outline.check_order(dockerfile)?;
        Ok(outline)
    }

    /// The image at the bottom of the target stage, if it stands on one.
    #[must_use]
    pub fn base_image(&self) -> Option<&str> {
        match &self.origins[self.bottom()] {
            Origin::Image(reference) => Some(reference),
            _ => None,
        }
    }

    /// The stage at the bottom of the target stage.
    pub(crate) fn bottom(&self) -> usize {
        let mut stage = self.target;
        while let Origin::Stage(earlier) = self.origins[stage] {
            stage = earlier;
        }
        stage
    }

    /// Whether everything in a stage is known without reading any image.
    pub(crate) fn stands_on_nothing(&self, mut stage: usize) -> bool {
        loop {
            match &self.origins[stage] {
                Origin::Scratch => return true,
                Origin::Image(_) => return false,
                Origin::Stage(earlier) => stage = *earlier,
            }
        }
    }

    fn push_origin(
        &mut self,
        dockerfile: &Dockerfile,
        index: usize,
    ) -> Result<(), DockerfileError> {
        let stage = &dockerfile.stages[index];
        let at = |problem| dockerfile.fault(&stage.line, problem);
        let expand = |word: &str| self.globals.expand(dockerfile.escape, word).map_err(at);
        let image = expand(&stage.from.image)?;
        let platform = stage.from.platform.as_deref().map(expand).transpose()?;
        if image.is_empty() {
            let reason = "its variables are empty; give the ARG above FROM a default".to_owned();
            let value = stage.from.image.clone();
            return Err(at(Problem::Value {
                what: "the image",
                value,
                reason,
            }));
        }
        // `FROM` compares as written, `--from` in lower case.
        let earlier = stage_named(dockerfile, index, &image, str::eq);
        self.origins.push(match earlier {
            Some(earlier) => Origin::Stage(earlier),
            None if image == "scratch" => Origin::Scratch,
            None => Origin::Image(image),
        });
        self.platforms.push(platform);
        Ok(())
    }

    fn mark(&mut self, dockerfile: &Dockerfile, stage: usize) {
        if std::mem::replace(&mut self.needed[stage], true) {
            return;
        }
        if let Origin::Stage(earlier) = self.origins[stage] {
            self.mark(dockerfile, earlier);
        }
        for line in &dockerfile.stages[stage].lines {
            if let Instruction::Copy(Copy {
                from: Some(from), ..
            }) = &line.instruction
                && let Some(earlier) = stage_of(dockerfile, stage, from)
            {
                self.mark(dockerfile, earlier);
            }
        }
    }
}

/// The images in registries that an image made from `dockerfile` stands on or copies from, each for
/// its platform.
pub fn base_images(
    dockerfile: &Dockerfile,
    options: &Options,
) -> Result<Vec<(String, Platform)>, DockerfileError> {
    let outline = Outline::new(dockerfile, options)?;
    match &options.base {
        BaseChoice::Dockerfile => {}
        BaseChoice::Image(reference) => {
            let platform = outline.platform(dockerfile, options, outline.bottom())?;
            return Ok(vec![(reference.clone(), platform)]);
        }
        BaseChoice::Host | BaseChoice::Scratch => return Ok(Vec::new()),
    }
    let mut images = Vec::new();
    for (index, origin) in outline.origins.iter().enumerate() {
        if let Origin::Image(reference) = origin
            && outline.needed[index]
        {
            let platform = outline.platform(dockerfile, options, index)?;
            images.push((reference.clone(), platform));
        }
    }
    Ok(images)
}

impl Outline {
    /// The platform of a stage's base image: that of the image unless `FROM` says otherwise.
    pub(crate) fn platform(
        &self,
        dockerfile: &Dockerfile,
        options: &Options,
        stage: usize,
    ) -> Result<Platform, DockerfileError> {
        let Some(text) = &self.platforms[stage] else {
            return Ok(options.platform.clone());
        };
        let mut parts = text.split('/');
        let (Some(os), Some(architecture)) = (parts.next(), parts.next()) else {
            let problem = Problem::Value {
                what: "the platform",
                value: text.clone(),
                reason: "write it as linux/amd64".to_owned(),
            };
            return Err(dockerfile.fault(&dockerfile.stages[stage].line, problem));
        };
        Ok(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            os_version: None,
            variant: parts.next().map(str::to_owned),
        })
    }
}

impl Outline {
    /// A stage further down is not there yet; its name would be taken for an image's.
    fn check_order(&self, dockerfile: &Dockerfile) -> Result<(), DockerfileError> {
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            if !self.needed[index] {
                continue;
            }
            for line in &stage.lines {
                if let Instruction::Copy(Copy {
                    from: Some(from), ..
                }) = &line.instruction
                    && let Some(reason) = out_of_order(dockerfile, index, from)
                {
                    let name = from.clone();
                    return Err(dockerfile.fault(line, Problem::Stage { name, reason }));
                }
            }
        }
        Ok(())
    }
}

/// Why stage `index` cannot copy from what `from` names, where it is a stage that does not come
/// before it.
fn out_of_order(dockerfile: &Dockerfile, index: usize, from: &str) -> Option<&'static str> {
    let own = dockerfile.stages[index].from.name.as_deref();
    if own.is_some_and(|own| own.eq_ignore_ascii_case(from)) {
        // Even where an earlier stage has the same name.
        return Some("it is the stage that this line stands in");
    }
    if stage_of(dockerfile, index, from).is_some() {
        return None;
    }
    let later = stage_of(dockerfile, dockerfile.stages.len(), from).is_some();
    (later || from.parse::<usize>().is_ok()).then_some("it does not stand above this line")
}

/// The stage that `--from` in stage `before` means, by number or name.
pub(crate) fn stage_of(dockerfile: &Dockerfile, before: usize, from: &str) -> Option<usize> {
    match from.parse::<usize>() {
        Ok(number) => (number < before).then_some(number),
        Err(_) => stage_named(dockerfile, before, from, str::eq_ignore_ascii_case),
    }
}

fn stage_named(
    dockerfile: &Dockerfile,
    before: usize,
    name: &str,
    same: impl Fn(&str, &str) -> bool,
) -> Option<usize> {
    let matches = |index: &usize| {
        let known = dockerfile.stages[*index].from.name.as_deref();
        known.is_some_and(|known| same(known, name))
    };
    (0..before).rev().find(matches)
}

fn globals(dockerfile: &Dockerfile, options: &Options) -> Result<Variables, DockerfileError> {
    let mut globals = Variables::predefined(options);
    for line in &dockerfile.arguments {
        let Instruction::Arg(arguments) = &line.instruction else {
            continue;
        };
        for (name, default) in arguments {
            let given = options.build_arguments.get(name).cloned();
            let expanded = default
                .as_ref()
                .map(|word| globals.expand(dockerfile.escape, word));
            let value = match given {
                Some(value) => Some(value),
                None => expanded
                    .transpose()
                    .map_err(|problem| dockerfile.fault(line, problem))?,
            };
            if let Some(value) = value {
                globals.set(name, &value);
            }
        }
    }
    Ok(globals)
}

fn target(dockerfile: &Dockerfile, options: &Options) -> Result<usize, DockerfileError> {
    let count = dockerfile.stages.len();
    let Some(wanted) = &options.target else {
        return Ok(count - 1);
    };
    stage_of(dockerfile, count, wanted).ok_or_else(|| {
        let reason = "no stage has this name";
        dockerfile.fault(
            &dockerfile.stages[0].line,
            Problem::Stage {
                name: wanted.clone(),
                reason,
            },
        )
    })
}

/// Every instruction of the needed stages that only a container engine can carry out.
pub fn needs_engine(
    dockerfile: &Dockerfile,
    options: &Options,
) -> Result<Vec<NeedsEngine>, DockerfileError> {
    let outline = Outline::new(dockerfile, options)?;
    let mut found = Vec::new();
    each_step(dockerfile, options, &outline, |stage, line, step| {
        found.extend(needs::check(dockerfile, &outline, stage, line, step));
    })?;
    Ok(found)
}

/// What the `COPY` and `ADD` lines of the needed stages take, and where it goes.
pub fn copies(
    dockerfile: &Dockerfile,
    options: &Options,
) -> Result<Vec<CopyLine>, DockerfileError> {
    let outline = Outline::new(dockerfile, options)?;
    let mut found = Vec::new();
    each_step(dockerfile, options, &outline, |_, line, step| {
        if let Step::Copy(copy) = step {
            found.push(CopyLine {
                line: line.span.first,
                sources: copy.sources.clone(),
                destination: copy.destination.clone(),
                from: copy.from.clone(),
            });
        }
    })?;
    Ok(found)
}

/// Walks the needed stages with no image's configuration at hand: what a base would add to the
/// environment is unknown here.
fn each_step(
    dockerfile: &Dockerfile,
    options: &Options,
    outline: &Outline,
    mut visit: impl FnMut(usize, &Line, &Step),
) -> Result<(), DockerfileError> {
    let mut states: Vec<Option<StageState>> = Vec::new();
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        if !outline.needed[index] {
            states.push(None);
            continue;
        }
        let inherited = match outline.origins[index] {
            Origin::Stage(earlier) => states[earlier].clone(),
            _ => None,
        };
        let mut state = inherited.map_or_else(StageState::empty, StageState::derived);
        for line in &stage.lines {
            let step = state.apply(dockerfile, outline, options, line)?;
            visit(index, line, &step);
        }
        states.push(Some(state));
    }
    Ok(())
}
