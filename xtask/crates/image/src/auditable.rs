//! What a program says it is made of: the section that `cargo auditable` writes, zlib-compressed
//! JSON. The format: <https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md>.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use flate2::read::ZlibDecoder;
use object::elf;
use object::endian::Endianness;
use object::read::elf::{FileHeader, SectionHeader};
use object::read::{ReadCache, ReadRef};

const SECTION: &[u8] = b".dep-v0";
/// The reference implementation takes no longer one either.
const LIMIT: u64 = 8 * 1024 * 1024;

/// The JSON that the ELF file at `path` holds about its dependencies; `None` when it is no ELF file,
/// has no such section, or a damaged one.
pub fn embedded_dependencies(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let cache = ReadCache::new(File::open(path)?);
    let compressed = match (&cache).read_bytes_at(0, 5) {
        Ok(b"\x7fELF\x01") => section::<elf::FileHeader32<Endianness>, _>(&cache),
        Ok(b"\x7fELF\x02") => section::<elf::FileHeader64<Endianness>, _>(&cache),
        _ => None,
    };
    Ok(compressed.and_then(|bytes| unpacked(&bytes)))
}

fn section<'data, Elf, R>(data: R) -> Option<Vec<u8>>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let (_, found) = sections.section_by_name(endian, SECTION)?;
    let size: u64 = found.sh_size(endian).into();
    let bytes = (size <= LIMIT).then(|| found.data(endian, data))?;
    bytes.ok().map(<[u8]>::to_vec)
}

fn unpacked(compressed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut unpacking = ZlibDecoder::new(compressed).take(LIMIT + 1);
    unpacking.read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= LIMIT).then_some(bytes)
}
