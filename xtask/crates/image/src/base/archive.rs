//! The entries of a layer's tar archive, one after the other, as others have written it: ustar, GNU
//! tar's long names and pax headers.
//!
//! It reads what is needed to look into a base image and unpacks nothing. Whatever a header says is
//! bounded here: it comes from a registry.

use std::io::{self, Read};

use super::names::clean;

pub(crate) const BLOCK: usize = 512;
/// A name or a pax header over this is none.
const HEADER_LIMIT: u64 = 1024 * 1024;
/// More entries than this is no layer but an attack.
const ENTRY_LIMIT: usize = 4_000_000;

/// What an entry is, as far as anybody here asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Other,
}

/// An entry. Names that are not UTF-8 never name what is looked for, and are made readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the root, without `.` and `..`.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Where a link leads to, as it is written.
    pub(crate) link: String,
    /// The length of what follows.
    pub(crate) size: u64,
}

/// Reads entries; the content of the last one is read through [`Archive::content`].
pub(crate) struct Archive<R> {
    source: R,
    /// Bytes of the current entry's content that have not been read.
    left: u64,
    padding: u64,
    entries: usize,
}

/// What long-name and pax entries say about the entry that follows them.
#[derive(Debug, Default)]
struct Said {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            left: 0,
            padding: 0,
            entries: 0,
        }
    }

    /// What is left of the current entry's content.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// The next entry; none at the end of the archive.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut said = Said::default();
        loop {
            self.skip()?;
            self.entries += 1;
            if self.entries > ENTRY_LIMIT {
                return Err(invalid("it has more than 4 million entries"));
            }
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let size = number(&block[124..136])?;
            self.expect(size);
            match block[156] {
                b'L' => said.path = Some(text(&self.header()?)),
                b'K' => said.link = Some(text(&self.header()?)),
                b'x' => said.take(&self.header()?),
                // Of no entry in particular: comments, as `git archive` writes them.
                b'g' => self.skip()?,
                kind => return self.entry(&block, kind, said).map(Some),
            }
        }
    }

    fn entry(&mut self, block: &[u8; BLOCK], kind: u8, said: Said) -> io::Result<Entry> {
        if kind == b'S' {
            self.sparse_headers(block)?;
        }
        let kind = match kind {
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Directory,
            _ => Kind::Other,
        };
        // Some writers note a size with links, and no content follows.
        let bare = matches!(block[156], b'1'..=b'6');
        let size = if bare {
            0
        } else {
            said.size.unwrap_or(self.left)
        };
        self.expect(size);
        let path = said.path.unwrap_or_else(|| name(block));
        let link = said.link.unwrap_or_else(|| text(&block[157..257]));
        Ok(Entry {
            path: clean(&path),
            kind,
            link,
            size,
        })
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// GNU tar's old sparse files have further headers before their content.
    fn sparse_headers(&mut self, block: &[u8; BLOCK]) -> io::Result<()> {
        let mut more = block[482] != 0;
        let mut blocks = 0;
        while more {
            let mut extension = [0; BLOCK];
            self.source.read_exact(&mut extension)?;
            more = extension[504] != 0;
            blocks += 1;
            if blocks > HEADER_LIMIT / BLOCK as u64 {
                return Err(invalid("a sparse file has too many parts"));
            }
        }
        Ok(())
    }

    /// The next header; none at the archive's end, marked by a block of zeros or not marked at all.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        check_sum(&block)?;
        Ok(Some(block))
    }

    /// The content of an entry that describes the next one.
    fn header(&mut self) -> io::Result<Vec<u8>> {
        if self.left > HEADER_LIMIT {
            return Err(invalid("a header has more than 1 MiB"));
        }
        let mut bytes = Vec::new();
        self.content().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self) -> io::Result<()> {
        let wanted = self
            .left
            .checked_add(self.padding)
            .ok_or_else(|| invalid("a size is too large"))?;
        let skipped = io::copy(&mut (&mut self.source).take(wanted), &mut io::sink())?;
        if skipped < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// The content of an entry.
pub(crate) struct Content<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.0.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.0.source.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.left -= count as u64;
        Ok(count)
    }
}

impl Said {
    /// Records of a pax header: `LENGTH KEY=VALUE\n`.
    fn take(&mut self, mut records: &[u8]) {
        while let Some((key, value, rest)) = record(records) {
            let value = String::from_utf8_lossy(value).into_owned();
            match key {
                b"path" => self.path = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => self.size = value.parse().ok(),
                _ => {}
            }
            records = rest;
        }
    }
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let whole = bytes.get(space + 1..length)?;
    let whole = whole.strip_suffix(b"\n")?;
    let equals = whole.iter().position(|byte| *byte == b'=')?;
    Some((&whole[..equals], &whole[equals + 1..], &bytes[length..]))
}

/// The name of a header; ustar puts the beginning of a long one into a field of its own.
fn name(block: &[u8; BLOCK]) -> String {
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        return format!("{prefix}/{name}");
    }
    name
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// Whether bytes are the beginning of an archive, which may be one without entries.
pub(crate) fn begins_archive(bytes: &[u8]) -> bool {
    let block = bytes.first_chunk::<BLOCK>();
    block.is_some_and(|block| block.iter().all(|byte| *byte == 0) || check_sum(block).is_ok())
}

/// A number in octal digits, or in GNU tar's binary form for large ones.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        let digits = field.iter().enumerate();
        let digits = digits.map(|(at, byte)| if at == 0 { byte & 0x7f } else { *byte });
        let sum = digits.into_iter().try_fold(0_u64, |sum, byte| {
            sum.checked_mul(256)?.checked_add(u64::from(byte))
        });
        return sum.ok_or_else(|| invalid("a number is too large"));
    }
    let digits = text(field);
    let digits = digits.trim_matches([' ', '\0']);
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| invalid("a number is not octal"))
}

/// The sum of the header's bytes, its own field counted as spaces. Old writers added signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> io::Result<()> {
    let bytes = block.iter().enumerate().map(|(at, byte)| {
        if (148..156).contains(&at) {
            b' '
        } else {
            *byte
        }
    });
    let (mut unsigned, mut signed) = (0_u64, 0_i64);
    for byte in bytes {
        unsigned += u64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    let expected = number(&block[148..156])?;
    if expected == unsigned || i64::try_from(expected) == Ok(signed) {
        return Ok(());
    }
    Err(invalid("it is not a tar archive, or a damaged one"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(bytes: &[u8]) -> Vec<(String, Kind, String, Vec<u8>)> {
        let mut archive = Archive::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = archive.next().unwrap() {
            let mut content = Vec::new();
            archive.content().read_to_end(&mut content).unwrap();
            assert_eq!(content.len() as u64, entry.size);
            found.push((entry.path, entry.kind, entry.link, content));
        }
        found
    }

    #[test]
    fn what_the_tar_library_writes_is_read() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("usr/{}file", "long-name/".repeat(40));
        let target = "../".repeat(60) + "target";
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        builder
            .append_data(&mut header, &long, &b"hello"[..])
            .unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder
            .append_link(&mut header, "lib/link", &target)
            .unwrap();
        builder
            .append_pax_extensions([("path", "pax/name".as_bytes()), ("mtime", b"1.5")])
            .unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        builder
            .append_data(&mut header, "./short", &b"abc"[..])
            .unwrap();
        let bytes = builder.into_inner().unwrap();
        let expected = [
            (long, Kind::File, String::new(), b"hello".to_vec()),
            ("lib/link".to_owned(), Kind::Symlink, target, Vec::new()),
            (
                "pax/name".to_owned(),
                Kind::File,
                String::new(),
                b"abc".to_vec(),
            ),
        ];
        assert_eq!(entries(&bytes), expected);
    }

    #[test]
    fn content_may_be_left_unread_and_the_end_need_not_be_marked() {
        let mut builder = tar::Builder::new(Vec::new());
        for name in ["a", "b"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(700);
            builder
                .append_data(&mut header, name, &[b'x'; 700][..])
                .unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let mut archive = Archive::new(&bytes[..bytes.len() - 1024]);
        assert_eq!(archive.next().unwrap().unwrap().path, "a");
        archive.content().read_exact(&mut [0; 10]).unwrap();
        assert_eq!(archive.next().unwrap().unwrap().path, "b");
        assert_eq!(archive.next().unwrap(), None);
    }

    #[test]
    fn what_is_cut_off_or_no_archive_is_an_error() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(700);
        builder
            .append_data(&mut header, "a", &[b'x'; 700][..])
            .unwrap();
        let bytes = builder.into_inner().unwrap();
        for end in [100, 600, 1300] {
            let mut archive = Archive::new(&bytes[..end]);
            let first = archive.next();
            assert!(first.and_then(|_| archive.next()).is_err(), "{end}");
        }
        let garbage = [b'7'; 2048];
        assert!(Archive::new(&garbage[..]).next().is_err());
    }

    #[test]
    fn a_size_that_overflows_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_path("a").unwrap();
        header.as_mut_bytes()[124] = 0xff;
        header.set_cksum();
        assert!(Archive::new(&header.as_bytes()[..]).next().is_err());
        header.as_mut_bytes()[124..136]
            .copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
        header.set_cksum();
        let mut archive = Archive::new(&header.as_bytes()[..]);
        let outcome = archive.next().and_then(|_| archive.next());
        assert!(outcome.is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_an_error_or_an_end(mut bytes: Vec<u8>, at in 0_usize..512) {
            let mut header = tar::Header::new_gnu();
            header.set_path("a").unwrap();
            header.set_size(10);
            header.set_cksum();
            let mut archive = header.as_bytes().to_vec();
            archive[at] = bytes.pop().unwrap_or_default();
            // A right sum, so that more than the sum is put to the test.
            if !(148..156).contains(&at) {
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(&archive);
                header.set_cksum();
                archive = header.as_bytes().to_vec();
            }
            archive.append(&mut bytes);
            let mut archive = Archive::new(archive.as_slice());
            while let Ok(Some(_)) = archive.next() {}
        }
    }
}
