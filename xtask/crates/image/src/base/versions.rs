//! Symbol versions: those that a program asks of its libraries, and those that a library offers.
//!
//! Source: "ELF Symbol Versioning" by Ulrich Drepper, and the Linux Standard Base, section 10.7.
//! Only the sections that hold versions are read, however large the file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use object::elf;
use object::endian::Endianness;
use object::read::elf::{FileHeader, SectionTable, VersionTable};
use object::read::{ReadCache, ReadRef, StringTable};

/// A version that a program asks of a library.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    /// As the program names it: `libc.so.6`.
    pub(super) library: String,
    /// `GLIBC_2.34`
    pub(super) version: String,
}

/// The versions that `file` defines; empty for a library without versions. `None` when it cannot
/// be told, because the file has no sections or broken ones.
pub(super) fn offered(file: impl Read + Seek) -> io::Result<Option<BTreeSet<String>>> {
    with_headers(file, &Offered)
}

/// The versions that the program at `path` asks for. Empty as well when it cannot be told.
pub(super) fn wanted(path: &Path) -> io::Result<BTreeSet<Wanted>> {
    Ok(with_headers(File::open(path)?, &AskedFor)?.unwrap_or_default())
}

/// A symbol that the program at `path` asks for in that version.
pub(super) fn symbol(path: &Path, wanted: &Wanted) -> io::Result<Option<String>> {
    with_headers(File::open(path)?, &SymbolOf(wanted))
}

/// A question about an ELF file of either width.
trait Question {
    type Answer;

    fn ask<'data, Elf, R>(&self, elf: &Sections<'data, Elf, R>) -> Option<Self::Answer>
    where
        Elf: FileHeader<Endian = Endianness>,
        R: ReadRef<'data>;
}

struct Sections<'data, Elf: FileHeader<Endian = Endianness>, R: ReadRef<'data>> {
    endian: Endianness,
    data: R,
    table: SectionTable<'data, Elf, R>,
}

impl<'data, Elf: FileHeader<Endian = Endianness>, R: ReadRef<'data>> Sections<'data, Elf, R> {
    fn read(data: R) -> Option<Self> {
        let header = Elf::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let table = header.sections(endian, data).ok()?;
        Some(Self {
            endian,
            data,
            table,
        })
    }

    fn strings(&self, section: object::SectionIndex) -> Option<StringTable<'data, R>> {
        self.table.strings(self.endian, self.data, section).ok()
    }
}

fn with_headers<Q: Question>(
    mut file: impl Read + Seek,
    question: &Q,
) -> io::Result<Option<Q::Answer>> {
    let mut identification = [0; 16];
    file.rewind()?;
    match file.read_exact(&mut identification) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    file.rewind()?;
    let cache = ReadCache::new(file);
    Ok(match (&identification[..4], identification[4]) {
        (b"\x7fELF", 1) => Sections::<elf::FileHeader32<Endianness>, _>::read(&cache)
            .and_then(|s| question.ask(&s)),
        (b"\x7fELF", 2) => Sections::<elf::FileHeader64<Endianness>, _>::read(&cache)
            .and_then(|s| question.ask(&s)),
        _ => None,
    })
}

struct Offered;

impl Question for Offered {
    type Answer = BTreeSet<String>;

    fn ask<'data, Elf, R>(&self, elf: &Sections<'data, Elf, R>) -> Option<BTreeSet<String>>
    where
        Elf: FileHeader<Endian = Endianness>,
        R: ReadRef<'data>,
    {
        if elf.table.is_empty() {
            return None;
        }
        let mut offered = BTreeSet::new();
        let Some((mut definitions, strings)) = elf.table.gnu_verdef(elf.endian, elf.data).ok()?
        else {
            return Some(offered);
        };
        let strings = elf.strings(strings)?;
        while let Some((definition, mut names)) = definitions.next().ok()? {
            // The file's own name, which stands among the versions.
            if definition
                .vd_flags
                .get(elf.endian)
                .contains(elf::VER_FLG_BASE)
            {
                continue;
            }
            // The first is the version; those that follow are what it builds upon.
            if let Some(name) = names.next().ok()? {
                offered.insert(text(name.name(elf.endian, strings).ok()?));
            }
        }
        Some(offered)
    }
}

struct AskedFor;

impl Question for AskedFor {
    type Answer = BTreeSet<Wanted>;

    fn ask<'data, Elf, R>(&self, elf: &Sections<'data, Elf, R>) -> Option<BTreeSet<Wanted>>
    where
        Elf: FileHeader<Endian = Endianness>,
        R: ReadRef<'data>,
    {
        let (mut needs, strings) = elf.table.gnu_verneed(elf.endian, elf.data).ok()??;
        let strings = elf.strings(strings)?;
        let mut wanted = BTreeSet::new();
        while let Some((need, mut versions)) = needs.next().ok()? {
            let library = text(need.file(elf.endian, strings).ok()?);
            while let Some(version) = versions.next().ok()? {
                // Every symbol of a weak one may be missing.
                if version
                    .vna_flags
                    .get(elf.endian)
                    .contains(elf::VER_FLG_WEAK)
                {
                    continue;
                }
                let version = text(version.name(elf.endian, strings).ok()?);
                wanted.insert(Wanted {
                    library: library.clone(),
                    version,
                });
            }
        }
        Some(wanted)
    }
}

struct SymbolOf<'a>(&'a Wanted);

impl Question for SymbolOf<'_> {
    type Answer = String;

    fn ask<'data, Elf, R>(&self, elf: &Sections<'data, Elf, R>) -> Option<String>
    where
        Elf: FileHeader<Endian = Endianness>,
        R: ReadRef<'data>,
    {
        let versions: VersionTable<'_, Elf> = elf.table.versions(elf.endian, elf.data).ok()??;
        let symbols = elf.table.symbols(elf.endian, elf.data, elf::SHT_DYNSYM);
        let symbols = symbols.ok()?;
        let named = symbols.enumerate().find_map(|(index, symbol)| {
            let version = versions.version_index(elf.endian, index).index();
            let version = versions.version(version).ok()??;
            let right = version.name() == self.0.version.as_bytes()
                && version.file() == Some(self.0.library.as_bytes());
            right.then_some(symbol)
        })?;
        let name = symbols.symbol_name(elf.endian, named).ok()?;
        Some(text(name))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Orders versions as people do: `GLIBC_2.9` comes before `GLIBC_2.17`.
pub(super) fn newest<'a>(versions: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    versions.max_by_key(|version| {
        let numbers = version.split(|c: char| !c.is_ascii_digit());
        let numbers = numbers.filter(|number| !number.is_empty());
        numbers
            .map(|number| number.parse::<u64>().unwrap_or(u64::MAX))
            .collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_asks_the_c_library_for_versions_it_offers() {
        let own = std::env::current_exe().unwrap();
        let wanted = wanted(&own).unwrap();
        let first = wanted.iter().find(|wanted| wanted.library == "libc.so.6");
        let first = first.expect("the test is linked to glibc");
        let symbol = symbol(&own, first).unwrap();
        assert!(symbol.is_some_and(|name| !name.is_empty()));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let library = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| path.ends_with("libc.so.6"))
            .expect("the C library is loaded");
        let offered = offered(File::open(library).unwrap()).unwrap().unwrap();
        for wanted in wanted.iter().filter(|w| w.library == "libc.so.6") {
            assert!(offered.contains(&wanted.version), "{wanted:?}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number() {
        let versions = ["GLIBC_2.2.5", "GLIBC_2.17", "GLIBC_2.9", "GLIBC_PRIVATE"];
        assert_eq!(newest(versions.into_iter()), Some("GLIBC_2.17"));
        assert_eq!(newest(std::iter::empty()), None);
    }

    #[test]
    fn what_is_no_program_has_no_versions() {
        assert_eq!(offered(io::Cursor::new(b"text")).unwrap(), None);
        assert_eq!(offered(io::Cursor::new([0x7f; 100])).unwrap(), None);
    }
}
