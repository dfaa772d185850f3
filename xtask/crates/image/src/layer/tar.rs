//! Writes tar archives whose bytes depend on nothing but what is put into them.
//!
//! The format is `ustar` with a `pax` header only where `ustar` cannot say it: long or non-ASCII
//! names, files over 8 GiB, large numbers of users. Sources: POSIX.1-2017, `pax`, "ustar
//! Interchange Format" and "pax Extended Header".

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BLOCK: usize = 512;
const NAME: usize = 100;
const PREFIX: usize = 155;
/// The largest number that 11 octal digits hold.
const OCTAL_11: u64 = 0o777_7777_7777;
/// The largest number that 7 octal digits hold.
const OCTAL_7: u64 = 0o777_7777;

/// What the header of an entry says beside its name and type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metadata {
    pub(crate) mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Seconds since the epoch.
    pub(crate) modified: u64,
}

/// Writes one archive.
pub(crate) struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    pub(crate) fn directory(&mut self, path: &Path, metadata: Metadata) -> io::Result<()> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        name.push(b'/');
        self.header(&Entry {
            name: &name,
            link: b"",
            kind: b'5',
            size: 0,
            metadata,
        })
    }

    pub(crate) fn symlink(
        &mut self,
        path: &Path,
        target: &Path,
        metadata: Metadata,
    ) -> io::Result<()> {
        let name = path.as_os_str().as_bytes();
        let link = target.as_os_str().as_bytes();
        self.header(&Entry {
            name,
            link,
            kind: b'2',
            size: 0,
            metadata,
        })
    }

    /// Begins a file; its `size` bytes and their padding are for the caller to write.
    pub(crate) fn file_header(
        &mut self,
        path: &Path,
        metadata: Metadata,
        size: u64,
    ) -> io::Result<()> {
        self.header(&Entry {
            name: path.as_os_str().as_bytes(),
            link: b"",
            kind: b'0',
            size,
            metadata,
        })
    }

    /// Where the archive goes.
    pub(crate) fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes a file of exactly `size` bytes; fails when `content` has more or fewer.
    pub(crate) fn file(
        &mut self,
        path: &Path,
        metadata: Metadata,
        size: u64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        self.file_header(path, metadata, size)?;
        let copied = copy(content, &mut self.out, size)?;
        if copied != size || content.read(&mut [0])? != 0 {
            return Err(io::Error::other(
                "the file changed its length while it was read",
            ));
        }
        self.pad(size)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn header(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let records = entry.pax_records();
        if !records.is_empty() {
            let block = entry.pax_header(records.len()).block();
            self.out.write_all(&block)?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(&entry.block())
    }

    /// Fills up the last block of a file.
    pub(crate) fn pad(&mut self, written: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        let missing = usize::try_from((block - written % block) % block).unwrap_or_default();
        self.out.write_all(&[0; BLOCK][..missing])
    }
}

/// Like `io::copy`, with a buffer that is worth the system calls at gigabytes a second.
fn copy(from: &mut dyn Read, to: &mut dyn Write, limit: u64) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut copied = 0;
    while copied < limit {
        let wanted = usize::try_from(limit - copied)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        match from.read(&mut buffer[..wanted]) {
            Ok(0) => break,
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                copied += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}

struct Entry<'a> {
    name: &'a [u8],
    link: &'a [u8],
    kind: u8,
    size: u64,
    metadata: Metadata,
}

impl Entry<'_> {
    /// The header of the pax records, which needs a name although nobody reads it.
    fn pax_header(&self, length: usize) -> Entry<'static> {
        let metadata = Metadata {
            mode: 0o644,
            user: 0,
            group: 0,
            ..self.metadata
        };
        let size = length as u64;
        Entry {
            name: b"PaxHeaders.0/entry",
            link: b"",
            kind: b'x',
            size,
            metadata,
        }
    }

    /// Records for what does not fit the `ustar` header, sorted by keyword.
    fn pax_records(&self) -> Vec<u8> {
        let long_name = !is_plain(self.name) || split(self.name).is_none();
        let long_link = !is_plain(self.link) || self.link.len() > NAME;
        let binary = (long_name && str::from_utf8(self.name).is_err())
            || (long_link && str::from_utf8(self.link).is_err());
        let mut records = Vec::new();
        let mut add = |wanted: bool, keyword: &str, value: &[u8]| {
            if wanted {
                records.extend(record(keyword, value));
            }
        };
        let Metadata {
            user,
            group,
            modified,
            ..
        } = self.metadata;
        add(
            u64::from(group) > OCTAL_7,
            "gid",
            group.to_string().as_bytes(),
        );
        add(binary, "hdrcharset", b"BINARY");
        add(long_link, "linkpath", self.link);
        add(
            modified > OCTAL_11,
            "mtime",
            modified.to_string().as_bytes(),
        );
        add(long_name, "path", self.name);
        add(
            self.size > OCTAL_11,
            "size",
            self.size.to_string().as_bytes(),
        );
        add(
            u64::from(user) > OCTAL_7,
            "uid",
            user.to_string().as_bytes(),
        );
        records
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        // A name that does not fit is in the pax records; here stands as much of it as fits.
        let cut = &self.name[..self.name.len().min(NAME)];
        let (prefix, name) = split(self.name).unwrap_or((b"", cut));
        block[..name.len()].copy_from_slice(name);
        octal(&mut block[100..108], u64::from(self.metadata.mode), OCTAL_7);
        octal(&mut block[108..116], u64::from(self.metadata.user), OCTAL_7);
        octal(
            &mut block[116..124],
            u64::from(self.metadata.group),
            OCTAL_7,
        );
        octal(&mut block[124..136], self.size, OCTAL_11);
        octal(&mut block[136..148], self.metadata.modified, OCTAL_11);
        block[156] = self.kind;
        let link = &self.link[..self.link.len().min(NAME)];
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], 0, OCTAL_7);
        octal(&mut block[337..345], 0, OCTAL_7);
        block[345..345 + prefix.len()].copy_from_slice(prefix);
        checksum(&mut block);
        block
    }
}

/// Whether a name means the same to every reader: ASCII needs no character set.
fn is_plain(name: &[u8]) -> bool {
    name.is_ascii()
}

/// Splits a long name at a `/` into prefix and name; `None` when no split fits.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME {
        return Some((b"", name));
    }
    let fits = |at: &usize| {
        let rest = name.len() - at - 1;
        name[*at] == b'/' && *at <= PREFIX && *at > 0 && rest > 0 && rest <= NAME
    };
    let at = (0..name.len()).find(fits)?;
    Some((&name[..at], &name[at + 1..]))
}

/// `length keyword=value\n`, where the length counts itself.
fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {keyword}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// Writes an octal number, zero-terminated; one that does not fit is 0, pax has it then.
fn octal(field: &mut [u8], value: u64, limit: u64) {
    let value = if value > limit { 0 } else { value };
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(text.as_bytes());
}

fn checksum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    block[148..156].copy_from_slice(text.as_bytes());
}
