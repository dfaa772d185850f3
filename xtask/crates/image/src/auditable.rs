//! What a program says it is made of: the section that `cargo auditable` writes, zlib-compressed
//! JSON. The format: <https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md>.

use std::fs::File;
use std::io;
use std::path::Path;

use libdeflater::{DecompressionError, Decompressor};
use object::elf;
use object::endian::Endianness;
use object::read::elf::{FileHeader, SectionHeader};
use object::read::{ReadCache, ReadRef};

const SECTION: &[u8] = b".dep-v0";
/// The reference implementation takes no longer one either.
const LIMIT: usize = 8 * 1024 * 1024;
const FIRST_ROOM: usize = 128 * 1024;

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
    let bytes = (size <= LIMIT as u64).then(|| found.data(endian, data))?;
    bytes.ok().map(<[u8]>::to_vec)
}

/// The length is not told anywhere: more and more room is given, up to the limit.
fn unpacked(compressed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; FIRST_ROOM];
    loop {
        match Decompressor::new().zlib_decompress(compressed, &mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                return Some(bytes);
            }
            Err(DecompressionError::InsufficientSpace) if bytes.len() < LIMIT => {
                let room = (bytes.len() * 8).min(LIMIT);
                bytes.resize(room, 0);
            }
            Err(_) => return None,
        }
    }
}
