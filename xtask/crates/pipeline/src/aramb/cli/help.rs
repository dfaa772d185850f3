//! Which of the flags that the command has had over time it has now: its help says so.

/// Which command it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Generation {
    /// It builds where `BUILDKIT_HOST` says.
    #[default]
    Old,
    /// It builds by itself and answers in JSON.
    New,
}

/// What it is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) generation: Generation,
    /// Deploys what a file describes.
    pub(super) from_toml: &'static str,
    /// `build --service`
    pub(super) service: bool,
    /// `build --static-outdir`
    pub(super) static_outdir: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            generation: Generation::Old,
            from_toml: "--deploy-from-toml",
            service: false,
            static_outdir: false,
        }
    }
}

impl Flags {
    /// What the help of `build` and `deploy` tells; nothing where files cannot be deployed.
    pub(super) fn of(build: &str, deploy: &str) -> Option<Self> {
        let (generation, from_toml) = if names(deploy, "--deploy-from-toml") {
            (Generation::Old, "--deploy-from-toml")
        } else if names(deploy, "--from-toml") {
            (Generation::New, "--from-toml")
        } else {
            return None;
        };
        Some(Self {
            generation,
            from_toml,
            service: names(build, "--service"),
            // Older ones make no image of a static site, and take no tag beside it.
            static_outdir: generation == Generation::New && names(build, "--static-outdir"),
        })
    }
}

/// Whether a help text has a flag of exactly this name.
fn names(help: &str, flag: &str) -> bool {
    help.match_indices(flag).any(|(at, _)| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let before = help[..at].chars().next_back();
        let after = help[at + flag.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_are_told_by_their_help() {
        let old = Flags::of(
            "  --name string\n  --tag string\n  --static-outdir string",
            "Flags:\n      --deploy-from-toml   deploy services of aramb.toml\n      --services string",
        );
        assert_eq!(old, Some(Flags::default()));
        let new = Flags::of(
            "--service SLUG  --static-outdir=DIR",
            "usage: aramb deploy [--from-toml] [--services a,b]",
        );
        let expected = Flags {
            generation: Generation::New,
            from_toml: "--from-toml",
            service: true,
            static_outdir: true,
        };
        assert_eq!(new, Some(expected));
        assert_eq!(Flags::of("", "--from-toml-file --services"), None);
        assert!(!names("--services", "--service"));
    }
}
