//! Archives around images: what `docker load` reads, and how to tell an archive from other files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use oci::Digest;

use crate::assemble::Image;
use crate::files::Content;
use crate::layer::tar::{Metadata, TarWriter};

/// Why an image cannot be written as an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A layer is not here: base layers stay in their registry.
    #[error("layer {digest} is not here")]
    MissingLayer {
        /// Which one.
        digest: Digest,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[from] io::Error),
}

/// Writes `image` for `docker load`, under the names `tags`. Docker has read this format since 1.10;
/// the layers go in as they are stored, which it recognises by their first bytes.
pub fn write_docker_archive(
    image: &Image,
    tags: &[String],
    out: impl Write,
) -> Result<(), ArchiveError> {
    let mut archive = TarWriter::new(out);
    let config = format!("{}.json", image.config_digest.hex());
    bytes(&mut archive, &config, &image.config.to_vec())?;
    let mut layers: Vec<String> = Vec::new();
    for layer in &image.layers {
        let folder = layer.diff_id.hex();
        let name = format!("{folder}/layer.tar");
        if !layers.contains(&name) {
            archive.directory(Path::new(&folder), metadata(0o755))?;
            let digest = layer.digest;
            let source = image.sources.get(&digest);
            let mut blob = source
                .ok_or(ArchiveError::MissingLayer { digest })?
                .open_at(0)?;
            archive.file(Path::new(&name), metadata(0o644), layer.size, &mut blob)?;
        }
        layers.push(name);
    }
    let manifest = serde_json::json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]);
    bytes(
        &mut archive,
        "manifest.json",
        manifest.to_string().as_bytes(),
    )?;
    archive.finish()?.flush()?;
    Ok(())
}

fn bytes<W: Write>(archive: &mut TarWriter<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    archive.file(
        Path::new(name),
        metadata(0o644),
        bytes.len() as u64,
        &mut &*bytes,
    )
}

fn metadata(mode: u32) -> Metadata {
    Metadata {
        mode,
        user: 0,
        group: 0,
        modified: crate::options::DEFAULT_EPOCH,
    }
}

/// Whether `ADD` would unpack this: gzip, bzip2, xz, zstd or tar, by its first bytes.
pub(crate) fn is_archive(content: &Content) -> bool {
    const MAGIC: [&[u8]; 4] = [
        b"\x1f\x8b\x08",
        b"BZh",
        b"\xfd7zXZ\x00",
        b"\x28\xb5\x2f\xfd",
    ];
    let mut head = Vec::new();
    match content {
        Content::Inline(_) | Content::Unbuilt { .. } => return false,
        Content::Disk { path, .. } => {
            let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut head));
            if read.is_err() {
                return false;
            }
        }
    }
    MAGIC.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
}
