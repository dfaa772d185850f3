//! Running a program of an image where no root directory can be given to it.
//!
//! The program is started through the image's own loader with the image's own libraries, and the
//! absolute paths that the image's configuration gives it are replaced by where they really are.
//! What this cannot reach: paths written into programs, and further programs that it starts, which
//! are put together by the machine's loader.

use std::fs;
use std::path::{Path, PathBuf};

use super::binary::{self, Binary};
use super::launch::protocol::{Executable, Failure, FailureKind, Search};
use super::rootpath;

/// How many scripts may interpret each other, as in Linux.
const MAX_SCRIPTS: u32 = 4;
/// The largest loader that is searched for an option.
const MAX_LOADER: u64 = 16 << 20;

/// Where the loader looks for libraries without being told.
const LIBRARIES: [&str; 5] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"];

/// The image as it lies on the machine.
pub(crate) struct Outside<'a> {
    /// The instance's own copy of the image, volumes included.
    pub(crate) root: &'a Path,
}

impl Outside<'_> {
    /// `text` with the image's absolute paths made real: whole, after a `=`, or in a list
    /// separated by colons of which every part is one.
    pub(crate) fn rewrite(&self, text: &str) -> String {
        if let Some((name, value)) = text.split_once('=')
            && !name.contains('/')
        {
            return format!("{name}={}", self.rewrite_list(value));
        }
        self.rewrite_list(text)
    }

    /// The search path with all of its folders in the image; those that it does not have are left
    /// out, because the machine's must not take their place.
    pub(crate) fn search_path(&self, path: &str) -> String {
        let folders = path.split(':').filter_map(|folder| self.real(folder));
        folders.collect::<Vec<_>>().join(":")
    }

    /// The real working directory.
    pub(crate) fn directory(&self, path: &Path) -> PathBuf {
        rootpath::existing(self.root, path).unwrap_or_else(|| self.root.to_owned())
    }

    /// How to execute `command`, whose program is looked for on the image's `PATH` or, when its name has a
    /// slash, from its working directory.
    pub(crate) fn executable(
        &self,
        command: &[String],
        search: &Search,
    ) -> Result<Executable, Failure> {
        let (name, rest) = command.split_first().ok_or_else(|| not_found(""))?;
        let inside = self
            .find(name, &search.path, &search.directory)
            .ok_or_else(|| not_found(name))?;
        let arguments = rest.iter().map(|argument| self.rewrite(argument)).collect();
        self.through_interpreters(name, inside, arguments, &search.libraries)
    }

    fn rewrite_list(&self, text: &str) -> String {
        let parts: Option<Vec<String>> = text.split(':').map(|part| self.real(part)).collect();
        parts.map_or_else(|| text.to_owned(), |parts| parts.join(":"))
    }

    /// `/` alone names nothing in particular, and a path of the machine may be meant by it.
    fn real(&self, path: &str) -> Option<String> {
        if !path.starts_with('/') || path.trim_matches('/').is_empty() {
            return None;
        }
        let real = rootpath::existing(self.root, Path::new(path))?;
        real.to_str().map(str::to_owned)
    }

    fn find(&self, name: &str, path: &str, directory: &Path) -> Option<PathBuf> {
        if name.contains('/') {
            return rootpath::existing(self.root, &directory.join(name));
        }
        let folders = path.split(':').filter(|folder| !folder.is_empty());
        let mut files = folders
            .filter_map(|folder| rootpath::existing(self.root, &Path::new(folder).join(name)));
        files.find(|file| super::launch::is_program(file))
    }

    /// Scripts lead to their interpreters, those may be scripts again; at the end is a program.
    fn through_interpreters(
        &self,
        name: &str,
        file: PathBuf,
        arguments: Vec<String>,
        libraries: &str,
    ) -> Result<Executable, Failure> {
        let mut shown = name.to_owned();
        let (mut file, mut arguments) = (file, arguments);
        for _ in 0..MAX_SCRIPTS {
            let kind = binary::inspect(&file).map_err(Failure::at("read the program"))?;
            match kind {
                Binary::Script {
                    interpreter,
                    argument,
                } => {
                    arguments.insert(0, text(&file)?);
                    arguments.splice(0..0, argument);
                    shown = interpreter.to_string_lossy().into_owned();
                    file = self.required(name, &interpreter)?;
                }
                Binary::Dynamic { loader } => {
                    let loader = self.required(name, &loader)?;
                    return self.loaded(&loader, &file, shown, arguments, libraries);
                }
                Binary::Static | Binary::Unknown => {
                    return Ok(Executable {
                        path: file,
                        name: shown,
                        arguments,
                    });
                }
            }
        }
        Err(Failure::new(
            "find the interpreter",
            format!("`{name}`: too many levels of scripts"),
        ))
    }

    fn required(&self, name: &str, interpreter: &Path) -> Result<PathBuf, Failure> {
        rootpath::existing(self.root, interpreter).ok_or_else(|| {
            let reason = format!(
                "its interpreter `{}` is not in the image",
                interpreter.display()
            );
            Failure::new(&format!("run `{name}`"), reason)
        })
    }

    fn loaded(
        &self,
        loader: &Path,
        file: &Path,
        shown: String,
        arguments: Vec<String>,
        libraries: &str,
    ) -> Result<Executable, Failure> {
        let mut all = vec!["--library-path".to_owned(), self.library_path(libraries)];
        // loaders older than 2021 do not have it; programs that go by their name are rare
        if has_option(loader, b"--argv0") {
            all.extend(["--argv0".to_owned(), shown.clone()]);
        }
        all.push(text(file)?);
        all.extend(arguments);
        Ok(Executable {
            path: loader.to_owned(),
            name: shown,
            arguments: all,
        })
    }

    fn library_path(&self, given: &str) -> String {
        let mut folders: Vec<String> = given.split(':').map(str::to_owned).collect();
        folders.extend(self.configured_libraries());
        for folder in LIBRARIES {
            folders.push(format!("{folder}/{}-linux-gnu", std::env::consts::ARCH));
            folders.push(folder.to_owned());
        }
        let mut real: Vec<String> = Vec::new();
        for folder in folders.iter().filter_map(|folder| self.real(folder)) {
            if !real.contains(&folder) {
                real.push(folder);
            }
        }
        real.join(":")
    }

    /// The folders of `/etc/ld.so.conf.d`, which is where distributions and vendors put theirs.
    fn configured_libraries(&self) -> Vec<String> {
        let folder = rootpath::existing(self.root, Path::new("/etc/ld.so.conf.d"));
        let Some(entries) = folder.and_then(|folder| fs::read_dir(folder).ok()) else {
            return Vec::new();
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        let texts = files.iter().filter(|file| !file.is_symlink());
        let texts = texts.filter_map(|file| fs::read_to_string(file).ok());
        texts
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    let name = || {
        Failure::new(
            "name the program",
            format!("{} is not UTF-8", path.display()),
        )
    };
    path.to_str().map(str::to_owned).ok_or_else(name)
}

fn has_option(loader: &Path, option: &[u8]) -> bool {
    let small = fs::metadata(loader).is_ok_and(|found| found.len() <= MAX_LOADER);
    let content = if small {
        fs::read(loader).unwrap_or_default()
    } else {
        Vec::new()
    };
    content.windows(option.len()).any(|window| window == option)
}

fn not_found(name: &str) -> Failure {
    Failure {
        kind: FailureKind::ProgramNotFound,
        step: "find the program".to_owned(),
        reason: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search() -> Search {
        Search {
            path: String::new(),
            directory: PathBuf::from("/"),
            libraries: String::new(),
        }
    }

    #[test]
    fn paths_of_the_image_are_made_real() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("app/bin")).unwrap();
        fs::write(root.join("app/config.toml"), b"").unwrap();
        let outside = Outside { root };
        let at = |path: &str| format!("{}{path}", root.display());
        let cases = [
            ("/app/config.toml", at("/app/config.toml")),
            (
                "--config=/app/config.toml",
                format!("--config={}", at("/app/config.toml")),
            ),
            (
                "/app/bin:/app",
                format!("{}:{}", at("/app/bin"), at("/app")),
            ),
            ("/app/bin:/absent", "/app/bin:/absent".to_owned()),
            ("http://app/bin", "http://app/bin".to_owned()),
            ("/", "/".to_owned()),
            ("app/bin", "app/bin".to_owned()),
            ("/app/../../etc", "/app/../../etc".to_owned()),
        ];
        for (text, expected) in cases {
            assert_eq!(outside.rewrite(text), expected, "{text}");
        }
        assert_eq!(outside.search_path("/absent:/app/bin:/bin"), at("/app/bin"));
    }

    #[test]
    fn scripts_run_with_the_interpreter_of_the_image() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/run"), b"#!/bin/interpreter -x\n").unwrap();
        fs::write(root.join("bin/interpreter"), b"\x7fELF\x02\x01").unwrap();
        let command = ["/bin/run".to_owned(), "argument".to_owned()];
        let found = Outside { root }.executable(&command, &search()).unwrap();
        assert_eq!(found.path, root.join("bin/interpreter"));
        let script = root.join("bin/run").to_str().unwrap().to_owned();
        assert_eq!(
            found.arguments,
            ["-x".to_owned(), script, "argument".to_owned()]
        );
    }

    #[test]
    fn a_missing_interpreter_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("run"), b"#!/bin/absent\n").unwrap();
        let command = ["/run".to_owned()];
        let failure = Outside { root: root.path() }
            .executable(&command, &search())
            .unwrap_err();
        assert!(
            failure
                .to_string()
                .contains("`/bin/absent` is not in the image"),
            "{failure}"
        );
    }
}
