//! The small values of the configuration that have rules of their own: ports and signals.

use std::str::FromStr;

use crate::dockerfile::Problem;

/// Ports that one word of `EXPOSE` names: `80`, `80/udp`, `8000-8010`; an address or a published
/// port in front is passed over, as Docker does.
pub(crate) fn read(word: &str) -> Result<Vec<String>, Problem> {
    let fault = |reason: &str| Problem::Value {
        what: "the port",
        value: word.to_owned(),
        reason: reason.to_owned(),
    };
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(fault("the protocol is tcp, udp or sctp"));
    }
    let container = ports.rsplit(':').next().unwrap_or(ports);
    let (first, last) = container.split_once('-').unwrap_or((container, container));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first..=last)
            .map(|port| format!("{port}/{protocol}"))
            .collect()),
        _ => Err(fault(
            "a port is a number from 1 to 65535, or a range 8000-8010",
        )),
    }
}

/// Checks that the word is a signal; it is kept as written.
pub(crate) fn signal(word: String) -> Result<String, Problem> {
    let upper = word.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    let number = word
        .parse::<u8>()
        .is_ok_and(|number| (1..=64).contains(&number));
    let real_time = name.starts_with("SIGRTMIN") || name.starts_with("SIGRTMAX");
    if number || real_time || nix::sys::signal::Signal::from_str(&name).is_ok() {
        return Ok(word);
    }
    let reason = "it is no signal; SIGTERM and 15 are".to_owned();
    Err(Problem::Value {
        what: "the signal",
        value: word,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_reads_them() {
        assert_eq!(read("8080").unwrap(), ["8080/tcp"]);
        assert_eq!(read("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(
            read("8000-8002").unwrap(),
            ["8000/tcp", "8001/tcp", "8002/tcp"]
        );
        assert_eq!(read("127.0.0.1:80:8080").unwrap(), ["8080/tcp"]);
        for wrong in ["", "x", "0", "70000", "9-8", "80/icmp"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn signals_have_names_or_numbers() {
        for known in ["SIGTERM", "term", "15", "SIGRTMIN+3", "QUIT"] {
            assert_eq!(signal(known.into()).unwrap(), known);
        }
        for unknown in ["SIGNOTHING", "0", "99", ""] {
            assert!(signal(unknown.into()).is_err(), "{unknown}");
        }
    }
}
