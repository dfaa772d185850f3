//! Installs the `aramb` command: the program of the latest release for this system.
//!
//! It is run by nobody, and stands under its name nowhere, before its SHA-256 is the one that was
//! given or that its release names. Where there is neither it is not installed. Nothing is done as
//! another user: a folder that needs `sudo` is passed over.

mod fetch;
mod place;

use std::io;
use std::path::{Path, PathBuf};

use deploy_plan::aramb::{FlowError, FlowStep};
use deploy_plan::config::{ApiUrl, InvalidApiUrl};
use deploy_plan::exit::Exit;
use oci::{Digest, Hasher};

use self::fetch::{FetchError, Limits, fetch};
use self::place::Unfinished;
use crate::events::{Event, Reporter};
use crate::interrupt::Interrupts;

/// Where the releases are.
pub const RELEASES: &str = "https://github.com/aramb-ai/release-beta/releases/latest/download";
/// Names another address that has the same files: a mirror.
pub const RELEASES_VARIABLE: &str = "ARAMB_RELEASES_URL";
/// Names the folder that the command goes to, in place of the usual two.
pub const FOLDER_VARIABLE: &str = "ARAMB_INSTALL_DIR";
/// What the command is called.
const NAME: &str = "aramb";
/// A file of checksums is some hundred bytes.
const LONGEST_CHECKSUMS: usize = 64 * 1024;

/// What is installed, and where to.
#[derive(Debug, Clone)]
pub struct Install {
    /// The address of the release's files.
    pub releases: String,
    /// The first that can be written to is taken. The last one is made where it is not there.
    pub folders: Vec<PathBuf>,
    /// The SHA-256 that it must have. Else that which its release names.
    pub sha256: Option<String>,
    /// Operating system and processor, as Rust calls them.
    pub system: (&'static str, &'static str),
    limits: Limits,
}

impl Install {
    /// For this system, by the variables of this process.
    #[must_use]
    pub fn here(sha256: Option<String>) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let home = home.map(|home| Path::new(&home).join(".local/bin"));
        let usual = || {
            let folders = [Some("/usr/local/bin".into()), home];
            folders.into_iter().flatten().collect()
        };
        let named = variable(FOLDER_VARIABLE).map(|folder| vec![folder.into()]);
        Self {
            releases: variable(RELEASES_VARIABLE).unwrap_or_else(|| RELEASES.to_owned()),
            folders: named.unwrap_or_else(usual),
            sha256,
            system: (std::env::consts::OS, std::env::consts::ARCH),
            limits: Limits::default(),
        }
    }
}

/// The command, installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The program.
    pub path: PathBuf,
    /// Its SHA-256, in hex digits.
    pub sha256: String,
}

/// Downloads the command, checks it and puts it in its place. Another one of its name there is
/// replaced; whoever runs that keeps it. What fails or is interrupted leaves nothing behind.
///
/// # Errors
///
/// When there is none for this system, it cannot be downloaded, there is nothing to check it
/// against, it is another one, or no folder can be written to.
pub fn install(
    request: &Install,
    reporter: &dyn Reporter,
    interrupts: &Interrupts,
) -> Result<Installed, FlowError> {
    let asset = asset(request.system)?;
    let wanted = request.sha256.as_deref().map(given_digest).transpose()?;
    let releases = releases(&request.releases)?;
    let folder = place::folder(&request.folders).map_err(|error| cannot_place(request, &error))?;
    let url = format!("{releases}/{asset}");
    let say = |line: String| reporter.event(Event::Output(line));
    say(format!("downloading {url}"));

    let placing = |error: io::Error| cannot_write(&folder, &error);
    let mut unfinished = Unfinished::begin(&folder).map_err(placing)?;
    let mut hasher = Hasher::new();
    let mut head = Vec::new();
    fetch(&url, &request.limits, interrupts, |bytes| {
        hasher.update(bytes);
        head.extend(bytes.iter().take(64 - head.len().min(64)));
        unfinished.write(bytes)
    })
    .map_err(|error| not_fetched(&url, &folder, error))?;
    if is_page(&head) {
        let reason = format!("{url} is a page and no program");
        return Err(not_downloaded(reason, elsewhere()));
    }
    let found = hasher.finish();
    let named = || named_by_release(request, &url, asset, &folder, interrupts);
    let (wanted, by) = match wanted {
        Some(digest) => (Some(digest), "--cli-sha256"),
        None => (named()?, "its release"),
    };
    match wanted {
        None => return Err(nothing_to_check(asset, &found)),
        Some(wanted) if wanted != found => return Err(another(&url, &wanted, &found, by)),
        Some(_) => {}
    }
    // The last look before something changes.
    if interrupts.any() {
        return Err(not_fetched(&url, &folder, FetchError::Interrupted));
    }
    let path = folder.join(NAME);
    unfinished.finish(&path).map_err(placing)?;
    say(format!(
        "installed {}, whose SHA-256 is that of {by}: {}",
        path.display(),
        found.hex()
    ));
    if let Some(warning) = place::unseen(&path, std::env::var_os("PATH").as_deref()) {
        reporter.event(Event::Warning(warning));
    }
    Ok(Installed {
        path,
        sha256: found.hex(),
    })
}

/// How the command is installed on this system: lines to type, for those who lack it.
#[must_use]
pub fn install_command() -> String {
    let system = (std::env::consts::OS, std::env::consts::ARCH);
    let Ok(asset) = asset(system) else {
        return format!("there is no aramb command for {} on {}", system.0, system.1);
    };
    let sum = match system.0 {
        "macos" => "shasum -a 256",
        _ => "sha256sum",
    };
    format!(
        "cargo xtask deploy --install-cli\n\
         or by hand:\n\
         curl --proto '=https' --tlsv1.2 -fLO {RELEASES}/{asset}\n\
         {sum} {asset}\n\
         install -m 755 {asset} ~/.local/bin/{NAME}"
    )
}

/// What the release calls the program for a system.
fn asset(system: (&str, &str)) -> Result<&'static str, FlowError> {
    Ok(match system {
        ("linux", "x86_64") => "aramb-linux-amd64",
        ("linux", "aarch64") => "aramb-linux-arm64",
        ("macos", "x86_64") => "aramb-darwin-amd64",
        ("macos", "aarch64") => "aramb-darwin-arm64",
        (os, processor) => {
            let message = format!("aramb-cli is not released for {os} on {processor}");
            return Err(failure("cli_unsupported_system", message).with(
                "it is released for Linux and macOS, on x86-64 and ARM64: deploy from one of these",
            ));
        }
    })
}

/// Over plain HTTP anybody between here and there could put another program, and its checksum, in
/// place of this one.
fn releases(text: &str) -> Result<ApiUrl, FlowError> {
    let wrong = |reason: String| {
        let message = format!("{RELEASES_VARIABLE} cannot be used: {reason}");
        FlowError::new(
            FlowStep::Install,
            "cli_releases_url",
            Exit::Configuration,
            message,
        )
        .with(format!(
            "set it to an https:// address, or unset it to install from {RELEASES}"
        ))
    };
    let url: ApiUrl = text
        .parse()
        .map_err(|error: InvalidApiUrl| wrong(error.to_string()))?;
    if url.as_str().starts_with("http://") && !url.is_loopback() {
        return Err(wrong("it is not https, and not this machine".to_owned()));
    }
    Ok(url)
}

/// 64 hex digits of either case, with or without `sha256:`.
fn digest(text: &str) -> Option<Digest> {
    let digits = text.trim().to_ascii_lowercase();
    let digits = digits.strip_prefix("sha256:").unwrap_or(&digits);
    (digits.len() == 64)
        .then(|| Digest::from_hex(digits).ok())
        .flatten()
}

fn given_digest(text: &str) -> Result<Digest, FlowError> {
    digest(text).ok_or_else(|| {
        let message = "--cli-sha256 is no SHA-256";
        FlowError::new(
            FlowStep::Install,
            "cli_digest_invalid",
            Exit::Usage,
            message,
        )
        .with("give its 64 hex digits")
    })
}

/// The SHA-256 that stands beside the program in its release; `None` when none does.
fn named_by_release(
    request: &Install,
    url: &str,
    asset: &str,
    folder: &Path,
    interrupts: &Interrupts,
) -> Result<Option<Digest>, FlowError> {
    let url = format!("{url}.sha256");
    let mut text = Vec::new();
    let limits = Limits {
        bytes: LONGEST_CHECKSUMS,
        ..request.limits
    };
    let fetched = fetch(&url, &limits, interrupts, |bytes| {
        text.extend_from_slice(bytes);
        Ok(())
    });
    match fetched {
        Ok(()) => {}
        Err(FetchError::Refused { status: 404 }) => return Ok(None),
        Err(error) => return Err(not_fetched(&url, folder, error)),
    }
    let text = String::from_utf8_lossy(&text);
    let found = checksum(&text, asset);
    found.map(Some).ok_or_else(|| {
        failure("cli_checksum_malformed", "Failed to check aramb-cli")
            .with(format!("{url} names no SHA-256 of {asset}"))
            .with(elsewhere())
    })
}

/// The line of `sha256sum` for a file, `HEX  NAME` or `HEX *NAME`; or the only one, `HEX`.
fn checksum(text: &str, asset: &str) -> Option<Digest> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let of_asset = lines.clone().find_map(|line| {
        let (digits, name) = line.split_once(char::is_whitespace)?;
        let name = name.trim().trim_start_matches('*');
        let name = name.strip_prefix("./").unwrap_or(name);
        (name == asset).then(|| digest(digits)).flatten()
    });
    of_asset.or_else(|| match (lines.next(), lines.next()) {
        (Some(only), None) => digest(only),
        _ => None,
    })
}

/// A proxy or a portal that answers in place of the server.
fn is_page(head: &[u8]) -> bool {
    head.trim_ascii_start().starts_with(b"<")
}

fn failure(code: &'static str, message: impl Into<String>) -> FlowError {
    FlowError::new(FlowStep::Install, code, Exit::Other, message)
}

fn elsewhere() -> String {
    format!("look at the address in a browser, or name a mirror: {RELEASES_VARIABLE}")
}

fn nothing_to_check(asset: &str, found: &Digest) -> FlowError {
    let found = found.hex();
    let message =
        format!("The release names no SHA-256 of {asset}, so aramb-cli was not installed");
    failure("cli_unverified", message)
        .with(format!("the SHA-256 of what was downloaded is {found}"))
        .with(format!(
            "compare it with one that you trust, then: cargo xtask deploy --install-cli --cli-sha256 {found}"
        ))
}

fn another(url: &str, wanted: &Digest, found: &Digest, by: &str) -> FlowError {
    let message =
        "What was downloaded is not the aramb-cli that was expected, and was not installed";
    failure("cli_digest_mismatch", message)
        .with(url)
        .with(format!("SHA-256 by {by}: {}", wanted.hex()))
        .with(format!("SHA-256 of what was downloaded: {}", found.hex()))
        .with("do not run what was downloaded; ask whoever named the SHA-256")
}

fn cannot_place(request: &Install, cause: &io::Error) -> FlowError {
    let error = match request.folders.last() {
        None => failure("cli_install_failed", "Failed to install aramb-cli")
            .with("there is no folder to install it to: HOME is not set"),
        Some(folder) => cannot_write(folder, cause),
    };
    error.with(format!(
        "name a folder of PATH that can be written to: {FOLDER_VARIABLE}"
    ))
}

fn cannot_write(folder: &Path, cause: &io::Error) -> FlowError {
    let path = folder.join(NAME);
    let message = format!("Failed to install aramb-cli to {}", path.display());
    failure("cli_install_failed", message).with(cause.to_string())
}

fn not_downloaded(reason: String, remedy: String) -> FlowError {
    failure("cli_download_failed", "Failed to download aramb-cli")
        .with(reason)
        .with(remedy)
}

fn not_fetched(url: &str, folder: &Path, cause: FetchError) -> FlowError {
    match cause {
        FetchError::Interrupted => FlowError::new(
            FlowStep::Install,
            "interrupted",
            Exit::Interrupted,
            "Interrupted",
        )
        .with("nothing was installed; run the same command again"),
        FetchError::NoCurl => failure("curl_missing", "Failed to download aramb-cli")
            .with("there is no curl to download it with")
            .with("install it, `apt-get install curl` on Debian, and run the same command again"),
        FetchError::Write(cause) => cannot_write(folder, &cause)
            .with("make room on that disk and run the same command again"),
        cause @ (FetchError::Refused { .. } | FetchError::TooLong { .. }) => {
            not_downloaded(format!("{url}: {cause}"), elsewhere())
        }
        cause @ (FetchError::Curl(_) | FetchError::Run(_)) => not_downloaded(
            format!("{url}: {cause}"),
            "look at the connection and run the same command again".to_owned(),
        ),
    }
}

#[cfg(test)]
mod real_curl;
#[cfg(test)]
mod tests;
