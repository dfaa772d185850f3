//! How Linux would execute a file: by itself, through a loader, or through an interpreter.
//! Formats: elf(5), execve(2).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longer than any path a loader has.
const MAX_INTERPRETER: usize = 4096;
/// Longer headers are not of a program.
const MAX_HEADERS: usize = 1 << 16;
const PT_INTERP: u32 = 3;

/// What a file is to execve(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Binary {
    /// A program that needs nobody.
    Static,
    /// A program that this loader puts together with its libraries.
    Dynamic {
        /// As in the file: an absolute path of the image.
        loader: PathBuf,
    },
    /// A text that this program reads.
    Script {
        /// As in the first line.
        interpreter: PathBuf,
        /// The rest of the first line: one argument, blanks and all.
        argument: Option<String>,
    },
    /// Nothing that this knows.
    Unknown,
}

/// Looks at the beginning of `file`.
pub(crate) fn inspect(file: &Path) -> io::Result<Binary> {
    let file = File::open(file)?;
    let mut start = Vec::new();
    (&file).take(256).read_to_end(&mut start)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        return Ok(script(line).unwrap_or(Binary::Unknown));
    }
    if !start.starts_with(b"\x7fELF") {
        return Ok(Binary::Unknown);
    }
    Ok(match elf_interpreter(&file, &start) {
        Some(loader) => Binary::Dynamic { loader },
        None => Binary::Static,
    })
}

/// What has to be there for `file` to be executed.
pub(crate) fn interpreter(file: &Path) -> Option<PathBuf> {
    match inspect(file).ok()? {
        Binary::Dynamic { loader } => Some(loader),
        Binary::Script { interpreter, .. } => Some(interpreter),
        Binary::Static | Binary::Unknown => None,
    }
}

fn script(line: &[u8]) -> Option<Binary> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    let (interpreter, argument) = match line.split_once(char::is_whitespace) {
        Some((interpreter, argument)) => (interpreter, Some(argument.trim().to_owned())),
        None => (line, None),
    };
    (!interpreter.is_empty()).then(|| Binary::Script {
        interpreter: interpreter.into(),
        argument,
    })
}

/// Where the fields of the two classes of ELF files lie.
struct Layout {
    table: usize,
    entry_size: usize,
    entries: usize,
    offset: usize,
    size: usize,
    word: usize,
}

const ELF32: Layout = Layout {
    table: 28,
    entry_size: 42,
    entries: 44,
    offset: 4,
    size: 16,
    word: 4,
};
const ELF64: Layout = Layout {
    table: 32,
    entry_size: 54,
    entries: 56,
    offset: 8,
    size: 32,
    word: 8,
};

fn elf_interpreter(file: &File, start: &[u8]) -> Option<PathBuf> {
    let layout = if *start.get(4)? == 1 { ELF32 } else { ELF64 };
    let big_endian = *start.get(5)? == 2;
    let number = |bytes: &[u8], at: usize, width: usize| {
        let bytes = bytes.get(at..at + width)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if big_endian {
            bytes.iter().fold(0, fold)
        } else {
            bytes.iter().rev().fold(0, fold)
        })
    };
    let entry_size = usize::try_from(number(start, layout.entry_size, 2)?).ok()?;
    let length =
        entry_size.checked_mul(usize::try_from(number(start, layout.entries, 2)?).ok()?)?;
    if entry_size == 0 || length > MAX_HEADERS {
        return None;
    }
    let mut table = vec![0; length];
    file.read_exact_at(&mut table, number(start, layout.table, layout.word)?)
        .ok()?;
    let mut headers = table.chunks_exact(entry_size);
    let header = headers.find(|header| number(header, 0, 4) == Some(u64::from(PT_INTERP)))?;
    let size = usize::try_from(number(header, layout.size, layout.word)?).ok()?;
    let mut path = vec![0; Some(size).filter(|size| *size <= MAX_INTERPRETER)?];
    file.read_exact_at(&mut path, number(header, layout.offset, layout.word)?)
        .ok()?;
    let path = path.split(|byte| *byte == 0).next()?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &[u8], expected: &Binary) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        assert_eq!(inspect(file.path()).unwrap(), *expected);
    }

    #[test]
    fn scripts_name_their_interpreter() {
        let script = |interpreter: &str, argument: Option<&str>| Binary::Script {
            interpreter: interpreter.into(),
            argument: argument.map(str::to_owned),
        };
        check(b"#!/bin/sh\necho", &script("/bin/sh", None));
        check(
            b"#! /usr/bin/env -S a b \n",
            &script("/usr/bin/env", Some("-S a b")),
        );
        check(b"#!\n", &Binary::Unknown);
        check(b"echo", &Binary::Unknown);
        check(b"", &Binary::Unknown);
        check(b"\x7fELF", &Binary::Static);
    }

    #[test]
    fn a_program_of_this_machine_names_its_loader() {
        let Binary::Dynamic { loader } = inspect(Path::new("/bin/sh")).unwrap() else {
            panic!("/bin/sh is expected to be dynamically linked");
        };
        assert!(
            loader.is_absolute() && loader.exists(),
            "{}",
            loader.display()
        );
    }
}
