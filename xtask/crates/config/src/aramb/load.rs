//! The text of an `aramb.toml`, whatever has its name.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// So long is none that somebody has written.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Reads the text of the file, and waits for nothing: neither for a pipe nor for a device without an end.
///
/// # Errors
///
/// When it cannot be read, is no file, or is longer than any of them.
pub fn load(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for somebody who writes to it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    File::open(path)?
        .take(LONGEST + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("it has more than 16 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| load(path).unwrap_err().to_string();
        assert_eq!(told(folder.path()), "it is not a file");
        assert_eq!(told(Path::new("/dev/zero")), "it is not a file");
        let file = folder.path().join("aramb.toml");
        fs::write(&file, "a").unwrap();
        assert_eq!(load(&file).unwrap(), "a");
        File::create(&file).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(told(&file), "it has more than 16 MiB");
    }
}
