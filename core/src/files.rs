//! How many files this process may have open. Connections are files, too.

/// Of all processes, this one's limits.
const LIMITS: &str = "/proc/self/limits";

/// The limit that holds; none where there is no bound, or the kernel does not say it.
pub(crate) fn allowed() -> Option<usize> {
    parse(&std::fs::read_to_string(LIMITS).ok()?)
}

/// The soft limit: `Max open files            1024                 524288               files`.
fn parse(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let head = "Limit                     Soft Limit           Hard Limit           Units\n";
        let line = |soft| format!("{head}Max open files            {soft}  524288  files\n");
        assert_eq!(parse(&line("1024")), Some(1024));
        assert_eq!(parse(&line("unlimited")), None);
        assert_eq!(parse(head), None);
        assert!(allowed().is_none_or(|files| files > 0));
    }
}
