//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds, ships and watches releases: from a clone to a live URL in one command.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// Work on the project in this folder instead of the one around the current folder.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) project_path: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build everything, make the image, push it, deploy it and wait until it is healthy.
    Deploy(Deploy),
    /// Read `aramb.toml`, say what is wrong with it, and show its services in their order.
    Plan(Plan),
    /// Build the packages that the image ships, and nothing else.
    BuildAll(BuildAll),
    /// Return to an older release. Needs no source, no build and no push.
    Rollback(Rollback),
    /// Let the deployment that is being watched go on to its next step.
    Promote(Steer),
    /// Undo the deployment that is being made now.
    Abort(Steer),
    /// List what was deployed.
    History(History),
    /// Show what serves now and what is being deployed.
    Status(Target),
    /// Show the application's log.
    Logs(Logs),
    /// What the application is told and nobody else: set, list by name, remove.
    #[command(subcommand)]
    Secrets(Secrets),
    /// The platform on this machine, which the environment `local` deploys to.
    #[command(subcommand)]
    Local(Local),
    /// Pin the base images to digests in `.systemprompt/deploy.lock`. Without an environment named,
    /// pins that no environment needs any more are dropped.
    Lock(Lock),
    /// The configuration and where its values come from.
    #[command(subcommand)]
    Config(Config),
    /// Keep a token for a Management API; it is read from standard input.
    Login(Login),
    /// Look at everything that a deployment needs, and say what is missing.
    Doctor(Target),
    /// Run the tests, with everything that they need.
    Test(Test),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    Man {
        /// The folder; made if it is not there.
        #[arg(default_value = "target/man")]
        folder: PathBuf,
    },
    /// Explain a command, or a topic: `exit-codes`, `environment`.
    Help {
        /// Command or topic.
        topic: Vec<String>,
    },
}

/// Which environment and which tenant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// Environment of `.systemprompt/deploy.toml` [default: its `default_environment`].
    #[arg(short, long, value_name = "NAME")]
    pub(crate) environment: Option<String>,
    /// Tenant to deploy to.
    #[arg(long, value_name = "ID")]
    pub(crate) tenant: Option<String>,
    /// Address of the Management API.
    #[arg(long, value_name = "URL")]
    pub(crate) api_url: Option<String>,
    /// How the result is printed on standard output.
    #[arg(short, long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Human,
    /// One JSON document, whatever happens.
    Json,
    /// One YAML document, whatever happens.
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The file [default: `aramb.toml` in this folder or one above].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Draw who takes what from whom.
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = Drawing::Text,
        default_missing_value = "text"
    )]
    pub(crate) graph: Drawing,
}

/// How a graph is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Drawing {
    /// A line for each service.
    Text,
    /// For a Mermaid block in Markdown.
    Mermaid,
    /// A picture.
    Svg,
}

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub(crate) struct Deploy {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Use this tag instead of a generated one.
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Deploy the image that the registry already holds under --tag: no build, no push.
    #[arg(long)]
    pub(crate) skip_push: bool,
    /// Ship the binaries that are there.
    #[arg(long)]
    pub(crate) skip_build: bool,
    /// Print what would be done and touch nothing, neither here nor elsewhere.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Return once the deployment is accepted.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long the deployment may take, as in `5m`.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// How the instances of two releases are exchanged: `rolling`, `blue-green`, `canary` or `recreate`.
    #[arg(long)]
    pub(crate) strategy: Option<String>,
    /// How many instances of the application run.
    #[arg(long, value_name = "N")]
    pub(crate) replicas: Option<String>,
    /// Refuse to deploy uncommitted changes.
    #[arg(long)]
    pub(crate) require_clean: bool,
    /// Start new instances even when the very same release is live.
    #[arg(long)]
    pub(crate) force: bool,
    /// Read every file again instead of trusting its time stamp.
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) build: BuildFlags,
    /// Who makes the image: `auto`, `native` or `docker`.
    #[arg(long)]
    pub(crate) builder: Option<String>,
    /// What the image stands on: `dockerfile`, `host`, `scratch` or an image.
    #[arg(long)]
    pub(crate) base: Option<String>,
    #[command(flatten)]
    pub(crate) aramb: Aramb,
}

/// What belongs to an `aramb.toml` alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Deploying an aramb.toml")]
pub(crate) struct Aramb {
    /// Deploy what this file describes [default: the `aramb.toml` of the project, if it has no `.systemprompt/deploy.toml`].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to [default: `platform` where an environment is named; else `aramb` where its command or one of its variables is
    /// there; else `platform`, the one on this machine].
    #[arg(long, value_enum)]
    pub(crate) control_plane: Option<Plane>,
    /// What happens when something goes wrong.
    #[arg(long, value_enum)]
    pub(crate) policy: Option<Policy>,
    /// Deploy these services alone.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with = "backend_services"
    )]
    pub(crate) services: Vec<String>,
    /// Deploy these backends, and the databases that they take something from.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) backend_services: Vec<String>,
    /// Push the images that are built to a registry as well.
    #[arg(long)]
    pub(crate) push_registry: bool,
    /// Leave the images in the file.
    #[arg(long)]
    pub(crate) write_back: bool,
    /// Install the `aramb` command first, if it is not there.
    #[arg(long)]
    pub(crate) install_cli: bool,
    /// The SHA-256 that the command to install must have [default: the one that its release names].
    #[arg(long, value_name = "HEX", requires = "install_cli")]
    pub(crate) cli_sha256: Option<String>,
}

/// Where the services of an `aramb.toml` run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plane {
    /// The control plane behind the `aramb` command.
    Aramb,
    /// The platform of `--environment`: embedded, self-hosted, or in the cloud.
    Platform,
}

/// What happens when something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// The default: the command ends at once with 1, and everything stays as it is then.
    Strict,
    /// What has changed returns to what it was; independent images are built side by side, and unchanged ones not at all.
    Guarded,
}

#[derive(Debug, Args)]
pub(crate) struct BuildFlags {
    /// Cargo profile.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Fail when `Cargo.lock` is not up to date, or `.systemprompt/deploy.lock` lacks a base image.
    #[arg(long)]
    pub(crate) locked: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BuildAll {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) build: BuildFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Tag or number of the deployment to return to [default: the last good one before the live one].
    #[arg(long, value_name = "TAG|N")]
    pub(crate) to: Option<String>,
    /// Return once the rollback is accepted.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long the rollback may take, as in `5m`.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many at most.
    #[arg(short = 'n', long, default_value = "20")]
    pub(crate) limit: NonZeroUsize,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Go on until interrupted.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines of this service; `app` is the one that the other sections of the configuration describe.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Only lines of this instance; `--output json` tells which one has written each.
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
    /// Only lines of this deployment, by its number in `history`.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) deployment: Option<u64>,
    /// Only lines since then: `10m`, `2h`, or an RFC 3339 time.
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Only lines that hold this text.
    #[arg(long)]
    pub(crate) filter: Option<String>,
    /// Only the last so many lines.
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Start it, if it does not run.
    Up,
    /// Stop it. Its state stays; the release serves again after `up`.
    Down,
    /// Say where it runs and what isolates its instances.
    Status,
    /// Stop it and remove its state: images, releases, history, secrets, tokens, logs. Asks first. Volumes stay.
    Reset(Reset),
}

#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Remove volumes too, with all that is in them.
    #[arg(long)]
    pub(crate) volumes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Lock {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Look for newer images: of all names in the lock, or of the one given.
    #[arg(long)]
    pub(crate) update: bool,
    /// Update the pin of this image alone.
    #[arg(requires = "update")]
    pub(crate) image: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print every value.
    Show {
        #[command(flatten)]
        target: Target,
        /// With where it came from.
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema of `.systemprompt/deploy.toml`.
    Schema,
    /// Print the JSON Schema of the result document of `--output json`.
    ReportSchema {
        /// That of a deployment of an `aramb.toml`.
        #[arg(long)]
        aramb: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// Names and versions; values are told by nobody.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Give one a value, read from standard input, or several from environment variables.
    Set {
        #[command(flatten)]
        target: Target,
        /// Its name: that of the variable in which the application finds it.
        #[arg(required_unless_present = "from_env")]
        name: Option<String>,
        /// Take these environment variables, in place of standard input.
        #[arg(
            long,
            value_name = "NAMES",
            value_delimiter = ',',
            conflicts_with = "name"
        )]
        from_env: Vec<String>,
        /// Somebody else changes it from time to time: a rollback does not bring its old value back.
        #[arg(long)]
        externally_rotated: bool,
    },
    /// Take some away. Older releases keep the values that they were deployed with.
    Remove {
        #[command(flatten)]
        target: Target,
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Steer {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Number of the deployment [default: the one in progress].
    #[arg(long, value_name = "N")]
    pub(crate) deployment: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Install what is missing first.
    #[arg(long)]
    pub(crate) setup: bool,
    /// Only the quick tests, which need nothing but Rust.
    #[arg(long)]
    pub(crate) unit: bool,
    /// Only tests whose names hold one of these.
    pub(crate) filter: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
