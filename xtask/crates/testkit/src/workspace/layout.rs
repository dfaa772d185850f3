//! The files of a project as the seed document lays it out, and the ways to break it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const APP: &str = include_str!("templates/app.rs.txt");
const EXTENSION: &str = include_str!("templates/extension.rs.txt");
const DOCKERFILE: &str = include_str!("templates/Dockerfile.txt");
const JUSTFILE: &str = include_str!("templates/justfile.txt");

/// Folder, package and binary of each extension.
const EXTENSIONS: [(&str, &str, u16); 3] = [
    ("system-tools", "system-tools", 5002),
    ("infrastructure", "systemprompt-infrastructure", 5003),
    ("admin", "systemprompt-admin", 5004),
];

/// A way in which a project is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// `.systemprompt/Dockerfile` is missing.
    NoDockerfile,
    /// `core/web/dist` is missing.
    NoWebDist,
    /// As [`Defect::NoWebDist`], with a `package.json` that could build it.
    NoWebDistButPackageJson,
    /// The binary of the extension `admin` is not copied by the Dockerfile.
    ExtensionWithoutCopy,
    /// The Dockerfile copies a binary that no package builds.
    StaleCopy,
    /// Not a git repository.
    NoGit,
    /// A file differs from its commit.
    Dirty,
    /// The application does not compile.
    CompileError,
    /// `core` is not a member of the workspace and has a lock file of its own.
    CoreOutside,
    /// The environment `production` needs `DATABASE_URL`.
    NeedsDatabase,
}

/// What the application does when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// Serves, and is healthy.
    #[default]
    Serves,
    /// Ends with this exit code at once.
    Exits(u8),
    /// Is ended by a signal (SIGABRT) at once.
    Aborts,
    /// Listens on the port after the one it was given.
    ListensElsewhere,
    /// Answers 503 to every health check.
    NeverHealthy,
    /// Listens only after so many milliseconds.
    StartsSlowly(u64),
    /// Is healthy and exits with 70 after so many milliseconds.
    CrashesLater(u64),
}

impl Behaviour {
    /// As the application reads it, from `core/behaviour.txt` or `APP_BEHAVIOUR`.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Serves => "serves".to_owned(),
            Self::Exits(code) => format!("exits {code}"),
            Self::Aborts => "aborts".to_owned(),
            Self::ListensElsewhere => "listens-elsewhere".to_owned(),
            Self::NeverHealthy => "never-healthy".to_owned(),
            Self::StartsSlowly(milliseconds) => format!("starts-slowly {milliseconds}"),
            Self::CrashesLater(milliseconds) => format!("crashes-later {milliseconds}"),
        }
    }
}

/// What a project is like.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// What the application does.
    pub behaviour: Behaviour,
    /// What is wrong with the project.
    pub defects: Vec<Defect>,
    /// Lines put in front of the committed `deploy.toml`.
    pub configuration: String,
    /// Link to the C library at run time. Otherwise the programs run on `FROM scratch`.
    pub dynamic: bool,
}

impl Layout {
    /// A project with one defect.
    #[must_use]
    pub fn with(defect: Defect) -> Self {
        Self {
            defects: vec![defect],
            ..Self::default()
        }
    }

    /// A sound project whose application behaves so.
    #[must_use]
    pub fn behaving(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            ..Self::default()
        }
    }

    /// A sound project with its own lines of `deploy.toml`.
    #[must_use]
    pub fn configured(configuration: &str) -> Self {
        Self {
            configuration: configuration.to_owned(),
            ..Self::default()
        }
    }

    /// A sound project whose programs need the C library of their image.
    #[must_use]
    pub fn linked_dynamically() -> Self {
        Self {
            dynamic: true,
            ..Self::default()
        }
    }

    pub(super) fn has(&self, defect: Defect) -> bool {
        self.defects.contains(&defect)
    }

    /// Writes every file but those that only git or cargo can make.
    pub(super) fn write(&self, root: &Path) {
        self.write_cargo(root);
        self.write_release(root);
        put(root, "justfile", JUSTFILE);
        put(root, "README.md", "# Example\n");
        put(root, ".gitignore", GITIGNORE);
        if !self.dynamic {
            put(root, ".cargo/config.toml", STATIC);
        }
        put(root, "services/app.yaml", "name: example\n");
        put(root, "services/agents/helper.yaml", "agent: helper\n");
        self.write_web(root);
    }

    fn write_cargo(&self, root: &Path) {
        let core = if self.has(Defect::CoreOutside) {
            "exclude = [\"core\"]"
        } else {
            ""
        };
        let members = if core.is_empty() { "\"core\", " } else { "" };
        put(
            root,
            "Cargo.toml",
            &format!(
                "[workspace]\nresolver = \"3\"\nmembers = [{members}\"extensions/mcp/*\"]\n{core}\n"
            ),
        );
        put(
            root,
            "core/Cargo.toml",
            &package("systemprompt", self.has(Defect::CoreOutside)),
        );
        let app = if self.has(Defect::CompileError) {
            APP.replacen(
                "fn main() {",
                "fn main() {\n    let port: u16 = \"no number\";",
                1,
            )
        } else {
            APP.to_owned()
        };
        put(root, "core/src/main.rs", &app);
        put(root, "core/behaviour.txt", &self.behaviour.text());
        for (folder, binary, port) in EXTENSIONS {
            let at = format!("extensions/mcp/{folder}");
            put(root, &format!("{at}/Cargo.toml"), &package(binary, false));
            put(
                root,
                &format!("{at}/src/main.rs"),
                &EXTENSION.replace("NAME", binary),
            );
            put(
                root,
                &format!("{at}/manifest.yaml"),
                &manifest(folder, binary, port),
            );
        }
    }

    fn write_release(&self, root: &Path) {
        let mut configuration = self.configuration.clone();
        if self.has(Defect::NeedsDatabase) {
            configuration
                .push_str("[environments.production.deploy]\nrequire_env = [\"DATABASE_URL\"]\n");
        }
        put(root, ".systemprompt/deploy.toml", &configuration);
        if self.has(Defect::NoDockerfile) {
            return;
        }
        let mut dockerfile = DOCKERFILE.to_owned();
        if self.has(Defect::ExtensionWithoutCopy) {
            dockerfile = dockerfile
                .lines()
                .filter(|line| !line.contains("systemprompt-admin"))
                .fold(String::new(), |text, line| text + line + "\n");
        }
        if self.has(Defect::StaleCopy) {
            dockerfile = dockerfile.replacen(
                "# Copy web",
                "COPY target/release/systemprompt-gone /app/bin/mcp/\n\n# Copy web",
                1,
            );
        }
        put(root, ".systemprompt/Dockerfile", &dockerfile);
    }

    fn write_web(&self, root: &Path) {
        if self.has(Defect::NoWebDistButPackageJson) {
            put(root, "core/web/package.json", PACKAGE_JSON);
            put(root, "core/web/package-lock.json", PACKAGE_LOCK);
        } else if !self.has(Defect::NoWebDist) {
            put(
                root,
                "core/web/dist/index.html",
                "<!doctype html><title>Example</title>\n",
            );
            put(root, "core/web/dist/assets/app.css", "body { margin: 0 }\n");
        }
    }
}

const STATIC: &str = "[build]\nrustflags = [\"-Ctarget-feature=+crt-static\"]\n";

const GITIGNORE: &str = "/target\n/core/target\n/.systemprompt/*\n!/.systemprompt/Dockerfile\n\
     !/.systemprompt/deploy.toml\n!/.systemprompt/deploy.lock\n";

/// A front end without dependencies: `npm ci` needs no network for it.
const PACKAGE_JSON: &str = r#"{
  "name": "web",
  "version": "1.0.0",
  "private": true,
  "scripts": {
    "build": "node -e \"fs.mkdirSync('dist',{recursive:true});fs.writeFileSync('dist/index.html','<title>built</title>')\""
  }
}
"#;

const PACKAGE_LOCK: &str = r#"{
  "name": "web",
  "version": "1.0.0",
  "lockfileVersion": 3,
  "requires": true,
  "packages": { "": { "name": "web", "version": "1.0.0" } }
}
"#;

fn package(name: &str, own_workspace: bool) -> String {
    let mut text = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n"
    );
    if own_workspace {
        let _ = writeln!(text, "\n[workspace]");
    }
    text
}

fn manifest(name: &str, binary: &str, port: u16) -> String {
    format!(
        "extension:\n  type: mcp\n  name: {name}\n  binary: {binary}\n  port: {port}\n  enabled: true\n"
    )
}

fn put(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    let folder = file.parent().expect("a file is in a folder");
    fs::create_dir_all(folder).expect("create a folder of the project");
    fs::write(&file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
}
