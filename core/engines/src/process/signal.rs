//! The signal that asks a program to end, as images name it.

use nix::sys::signal::Signal;

/// Docker's default.
const DEFAULT: Signal = Signal::SIGTERM;

/// `SIGQUIT`, `QUIT`, `quit` or `3`. An image that names no signal gets the default; so does one
/// that names a signal this does not know, because not stopping at all would be worse.
pub(super) fn stop_signal(name: Option<&str>) -> Signal {
    let Some(name) = name.map(str::trim).filter(|name| !name.is_empty()) else {
        return DEFAULT;
    };
    let name = name.to_ascii_uppercase();
    let number = name
        .parse::<i32>()
        .ok()
        .and_then(|number| Signal::try_from(number).ok());
    let full = if name.starts_with("SIG") {
        name.clone()
    } else {
        format!("SIG{name}")
    };
    number.or_else(|| full.parse().ok()).unwrap_or_else(|| {
        tracing::warn!(
            signal = name,
            "unknown STOPSIGNAL in an image: SIGTERM is sent"
        );
        DEFAULT
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        let cases = [
            (None, Signal::SIGTERM),
            (Some(""), Signal::SIGTERM),
            (Some("SIGQUIT"), Signal::SIGQUIT),
            (Some("int"), Signal::SIGINT),
            (Some("9"), Signal::SIGKILL),
            (Some("SIGNOTHING"), Signal::SIGTERM),
            (Some("999"), Signal::SIGTERM),
        ];
        for (name, expected) in cases {
            assert_eq!(stop_signal(name), expected, "{name:?}");
        }
    }
}
