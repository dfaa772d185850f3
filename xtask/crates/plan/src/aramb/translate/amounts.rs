//! Processors, memory and what happens to what has ended, as files have them: `500m`, `1Gi`, `on-failure`.

use crate::config::{Cpus, Memory, Restart};

/// Thousandths of a processor with `m` (`500m`), else whole ones and parts (`0.5`).
pub(super) fn cpus(text: &str) -> Option<Cpus> {
    let text = text.trim();
    let millis = match text.strip_suffix('m') {
        Some(millis) => millis.parse().ok()?,
        None => decimal(text, 1000)?,
    };
    Cpus::from_millis(u32::try_from(millis).ok()?).filter(|cpus| cpus.millis().is_some())
}

/// `512Mi`, `1Gi`, `256M`, `1.5GB`: all of them powers of 1024.
pub(super) fn memory(text: &str) -> Option<Memory> {
    const UNITS: [(char, u64); 4] = [
        ('k', 1 << 10),
        ('m', 1 << 20),
        ('g', 1 << 30),
        ('t', 1 << 40),
    ];
    let text = text.trim().to_ascii_lowercase();
    let plain = text.strip_suffix("ib").or_else(|| text.strip_suffix('i'));
    let plain = plain.or_else(|| text.strip_suffix('b')).unwrap_or(&text);
    let (unit, worth) = UNITS.iter().find(|(unit, _)| plain.ends_with(*unit))?;
    let number = plain.strip_suffix(*unit)?;
    Memory::from_bytes(decimal(number.trim_end(), *worth)?)
}

/// As Docker, Compose and Kubernetes call it.
pub(super) fn restart(text: &str) -> Option<Restart> {
    let word = text.to_ascii_lowercase().replace(['-', '_', ' '], "");
    match word.as_str() {
        "always" | "unlessstopped" => Some(Restart::Always),
        "onfailure" => Some(Restart::OnFailure),
        "never" | "no" => Some(Restart::Never),
        _ => None,
    }
}

/// A number with or without digits behind a point, times `worth`, where that is whole.
fn decimal(text: &str, worth: u64) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 9 {
        return None;
    }
    let scale = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let number: u64 = format!("{whole}{part}").parse().ok()?;
    let product = number.checked_mul(worth)?;
    product.is_multiple_of(scale).then_some(product / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors() {
        for (text, millis) in [
            ("500m", Some(500)),
            ("0.5", Some(500)),
            ("1", Some(1000)),
            (" 2 ", Some(2000)),
            ("1.25", Some(1250)),
            ("0", None),
            ("1m", None),
            ("", None),
            ("two", None),
            ("-1", None),
            ("0.0005", None),
            (".5", None),
            ("99999999999999999999m", None),
        ] {
            assert_eq!(cpus(text).and_then(Cpus::millis), millis, "{text}");
        }
    }

    #[test]
    fn amounts_of_memory() {
        for (text, bytes) in [
            ("512Mi", Some(512 << 20)),
            ("1Gi", Some(1 << 30)),
            ("256M", Some(256 << 20)),
            ("256MB", Some(256 << 20)),
            ("64k", Some(64 << 10)),
            ("1.5GiB", Some(3 << 29)),
            ("512 m", Some(512 << 20)),
            ("512", None),
            ("0Mi", None),
            ("Mi", None),
            ("1Ei", None),
            ("", None),
            ("99999999999999Ti", None),
        ] {
            assert_eq!(memory(text).map(Memory::bytes), bytes, "{text}");
        }
    }

    #[test]
    fn restarts() {
        for (text, expected) in [
            ("always", Some(Restart::Always)),
            ("unless-stopped", Some(Restart::Always)),
            ("OnFailure", Some(Restart::OnFailure)),
            ("on_failure", Some(Restart::OnFailure)),
            ("Never", Some(Restart::Never)),
            ("no", Some(Restart::Never)),
            ("sometimes", None),
        ] {
            assert_eq!(restart(text), expected, "{text}");
        }
    }
}
