//! A newer Docker Engine than the machine's own, from packages that are unpacked and not installed:
//! Debian 12 has one of 2020, whose `BuildKit` knows neither heredocs nor `--link`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use xshell::{Shell, cmd};

use super::{find_program, say, tools};

/// The first release whose own reader of Dockerfiles knows heredocs.
const MAJOR: u32 = 23;
/// The Debian that the packages are from. They need no newer C library than Debian 12 has.
const SUITE: &str = "trixie";

/// A newer engine and what it takes to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Newer {
    /// `dockerd`.
    pub(crate) engine: PathBuf,
    /// `docker`.
    pub(crate) client: PathBuf,
    /// Where the client finds `buildx`, when that is not where it looks by itself.
    pub(crate) plugins: Option<PathBuf>,
    /// Whether it is the machine's own.
    pub(crate) installed: bool,
}

/// The newer engine: among the tools, or the machine's own where that is new enough.
pub(crate) fn engine(root: &Path) -> Option<Newer> {
    unpacked(root).or_else(|| installed(root))
}

/// What [`install`] does, for people.
pub(super) fn command(packages: &[&str]) -> String {
    format!(
        "cargo xtask test --setup, which unpacks {} of Debian {SUITE}",
        packages.join(", ")
    )
}

/// Downloads packages of [`SUITE`] with a package list of their own and unpacks them: the machine's
/// list of sources stays as it is.
pub(super) fn install(shell: &Shell, root: &Path, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    say(&format!(
        "unpacking {} of Debian {SUITE}",
        packages.join(" ")
    ));
    let state = folder(root).join("apt");
    let settings = configure(&state, &mirror(shell)?).context("cannot set apt-get up")?;
    let _folder = shell.push_dir(&state);
    cmd!(shell, "apt-get -qq -c {settings} update")
        .quiet()
        .run()
        .with_context(|| format!("cannot fetch the list of packages of Debian {SUITE}"))?;
    cmd!(shell, "apt-get -qq -c {settings} download {packages...}")
        .quiet()
        .run()
        .with_context(|| format!("cannot download packages of Debian {SUITE}"))?;
    let target = folder(root);
    for package in shell.read_dir(&state)? {
        if package
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            cmd!(shell, "dpkg -x {package} {target}")
                .quiet()
                .run()
                .context("cannot unpack a Debian package")?;
        }
    }
    shell
        .remove_path(&state)
        .context("cannot remove the downloads")
}

fn folder(root: &Path) -> PathBuf {
    tools(root).join("debian")
}

fn unpacked(root: &Path) -> Option<Newer> {
    let folder = folder(root).join("usr");
    let newer = Newer {
        engine: folder.join("sbin/dockerd"),
        client: folder.join("bin/docker"),
        plugins: Some(folder.join("libexec/docker/cli-plugins")),
        installed: false,
    };
    let plugin = newer.plugins.as_ref()?.join("docker-buildx");
    let parts = [&newer.engine, &newer.client, &plugin];
    parts.iter().all(|path| path.is_file()).then_some(newer)
}

fn installed(root: &Path) -> Option<Newer> {
    let engine = find_program(root, "dockerd")?;
    let client = find_program(root, "docker")?;
    let version = output(Command::new(&engine).arg("--version"))?;
    output(Command::new(&client).args(["buildx", "version"]))?;
    (major(&version)? >= MAJOR).then_some(Newer {
        engine,
        client,
        plugins: None,
        installed: true,
    })
}

/// Of `Docker version 26.1.5, build …`.
fn major(version: &str) -> Option<u32> {
    let number = version.strip_prefix("Docker version ")?;
    number.split('.').next()?.parse().ok()
}

fn output(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// Where this machine's own Debian packages come from: the newer ones are there, too.
fn mirror(shell: &Shell) -> Result<String> {
    let format = "$(REPO_URI)|$(ORIGIN)|$(CODENAME)";
    let listed = cmd!(shell, "apt-get indextargets --format {format}")
        .quiet()
        .read()
        .context(
            "this machine has no apt-get: install Docker 23 or newer with its buildx plugin",
        )?;
    let main = listed.lines().find_map(|line| {
        let mut parts = line.split('|');
        let (address, origin, codename) = (parts.next()?, parts.next()?, parts.next()?);
        (origin == "Debian" && !codename.contains('-')).then_some(address)
    });
    match main {
        Some(address) => Ok(address.to_owned()),
        None => bail!("this is no Debian: install Docker 23 or newer with its buildx plugin"),
    }
}

/// Makes the folders of an `apt-get` of its own; gives the file of its settings.
fn configure(state: &Path, mirror: &str) -> Result<PathBuf> {
    for name in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(state.join(name))?;
    }
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let sources = format!("deb [signed-by={keys}] {mirror} {SUITE} main\n");
    fs::write(state.join("sources.list"), sources)?;
    let state = state.display();
    let text = format!(
        "Dir::Etc::sourcelist \"{state}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{state}/lists\";\nDir::Cache \"{state}/cache\";\n\
         APT::Sandbox::User \"root\";\n"
    );
    let settings = Path::new(&state.to_string()).join("apt.conf");
    fs::write(&settings, text)?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(major(text), expected, "{text}");
        check("Docker version 26.1.5+dfsg1, build 411e817", Some(26));
        check("Docker version 20.10.24+dfsg1, build 297e128", Some(20));
        check("something else", None);
    }

    #[test]
    fn an_unpacked_engine_is_found_when_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let file = folder(root.path()).join("usr").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        };
        place("sbin/dockerd");
        place("bin/docker");
        assert_eq!(unpacked(root.path()), None);
        place("libexec/docker/cli-plugins/docker-buildx");
        assert!(unpacked(root.path()).is_some_and(|newer| !newer.installed));
    }

    #[test]
    fn apt_gets_settings_keep_to_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let settings = configure(folder.path(), "http://localhost/debian").unwrap();
        let text = fs::read_to_string(settings).unwrap();
        assert_eq!(
            text.matches(&folder.path().display().to_string()).count(),
            3
        );
        let sources = fs::read_to_string(folder.path().join("sources.list")).unwrap();
        assert!(
            sources.contains("] http://localhost/debian trixie main"),
            "{sources}"
        );
    }
}
