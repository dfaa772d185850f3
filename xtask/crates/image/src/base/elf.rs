//! What a program says about itself in its ELF headers: its machine, its loader, the libraries it
//! needs. Only the headers are read, however large the file.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use object::elf;
use object::endian::Endianness;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use serde::{Deserialize, Serialize};

/// Strings in the dynamic section longer than this are not names.
const STRING_LIMIT: u64 = 4096;

/// What the loader of a program has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ElfFacts {
    /// The processor, as `GOARCH` names it; `unknown` for rare ones.
    pub machine: String,
    /// 64-bit or 32-bit.
    pub wide: bool,
    /// `PT_INTERP`: the loader; none for a static program and for most libraries.
    pub interpreter: Option<String>,
    /// `DT_NEEDED`
    pub needed: Vec<String>,
    /// `DT_RPATH`, searched before everything else unless there is a `DT_RUNPATH`.
    pub rpath: Vec<String>,
    /// `DT_RUNPATH`
    pub runpath: Vec<String>,
}

/// Reads the headers of the file at `path`; `None` when it is no ELF file or a broken one.
pub(crate) fn read(path: &Path) -> io::Result<Option<ElfFacts>> {
    read_from(File::open(path)?)
}

/// As [`read`], from a file that is open already, from its beginning.
pub(super) fn read_from(mut file: impl Read + Seek) -> io::Result<Option<ElfFacts>> {
    file.rewind()?;
    let mut identification = [0; 16];
    match file.read_exact(&mut identification) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    if !identification.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    file.rewind()?;
    let cache = ReadCache::new(file);
    Ok(match identification[4] {
        1 => facts::<elf::FileHeader32<Endianness>, _>(&cache),
        2 => facts::<elf::FileHeader64<Endianness>, _>(&cache),
        _ => None,
    })
}

fn facts<'data, Elf, R>(data: R) -> Option<ElfFacts>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let interpreter = segments
        .iter()
        .find_map(|segment| segment.interpreter(endian, data).ok()?);
    let dynamic = segments
        .iter()
        .find_map(|segment| segment.dynamic(endian, data).ok()?);
    let strings = dynamic.and_then(|entries| string_table::<Elf>(entries, endian, segments));
    let texts = |tag| -> Vec<String> {
        let Some((entries, (start, size))) = dynamic.zip(strings) else {
            return Vec::new();
        };
        let tagged = entries.iter().filter(|entry| entry.tag(endian) == tag);
        let offsets = tagged
            .map(|entry| entry.val(endian))
            .filter(|offset| *offset < size);
        offsets
            .filter_map(|offset| text(data, start + offset, start + size))
            .collect()
    };
    Some(ElfFacts {
        machine: machine(header.e_machine(endian)).to_owned(),
        wide: header.is_class_64(),
        interpreter: interpreter.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        needed: texts(elf::DT_NEEDED),
        rpath: folders(&texts(elf::DT_RPATH)),
        runpath: folders(&texts(elf::DT_RUNPATH)),
    })
}

/// Where the dynamic strings stand in the file, and how many bytes they take. The header gives an
/// address in memory; the loadable segments say which part of the file it comes from.
fn string_table<Elf: FileHeader<Endian = Endianness>>(
    entries: &[Elf::Dyn],
    endian: Endianness,
    segments: &[Elf::ProgramHeader],
) -> Option<(u64, u64)> {
    let value = |tag| {
        let entry = entries.iter().find(|entry| entry.tag(endian) == tag)?;
        Some(entry.val(endian))
    };
    let (address, size) = (value(elf::DT_STRTAB)?, value(elf::DT_STRSZ)?);
    let offset = segments.iter().find_map(|segment| {
        let start: u64 = segment.p_vaddr(endian).into();
        let length: u64 = segment.p_filesz(endian).into();
        let inside = segment.p_type(endian) == elf::PT_LOAD
            && (start..start.checked_add(length)?).contains(&address);
        let base: u64 = segment.p_offset(endian).into();
        inside.then(|| address - start + base)
    })?;
    Some((offset, size.min(u64::MAX - offset)))
}

fn text<'data>(data: impl ReadRef<'data>, start: u64, end: u64) -> Option<String> {
    let end = end.min(start + STRING_LIMIT);
    let bytes = data.read_bytes_at_until(start..end, 0).ok()?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn folders(paths: &[String]) -> Vec<String> {
    let all = paths.iter().flat_map(|path| path.split(':'));
    all.filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect()
}

fn machine(machine: elf::Machine) -> &'static str {
    match machine {
        elf::EM_X86_64 => "amd64",
        elf::EM_AARCH64 => "arm64",
        elf::EM_386 => "386",
        elf::EM_ARM => "arm",
        elf::EM_RISCV => "riscv64",
        elf::EM_PPC64 => "ppc64le",
        elf::EM_S390 => "s390x",
        elf::EM_LOONGARCH => "loong64",
        _ => "unknown",
    }
}
