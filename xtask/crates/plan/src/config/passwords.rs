//! Passwords in addresses: people write them into names of images and URLs, which are repeated in errors, plans and
//! reports. What is shown goes through here.

use std::borrow::Cow;
use std::net::IpAddr;

use super::REDACTED;

/// What is no user before a colon: what follows gets mail, or is a package.
const NO_USERS: [&str; 11] = [
    "acct", "author", "bcc", "by", "cc", "from", "mailto", "npm", "sip", "to", "xmpp",
];

/// The text without what stands before the `@` of an address: `https://user:password@host/…`, and
/// `user:password@host/…` or `user:password@registry.example` as in the name of an image or of a registry. A password may
/// hold an unescaped `@`: all up to the last one goes, for hiding too much is the smaller fault. Digests of images
/// (`app:1@sha256:…`), paths (`https://host/@scope/name`), versions and addresses of mail stay.
#[must_use]
pub fn without_passwords(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
    let mut shown = String::with_capacity(text.len());
    for word in text.split_inclusive(ends) {
        match secret_of(word) {
            Some((before, after)) => {
                shown.push_str(before);
                shown.push_str(REDACTED);
                shown.push_str(after);
            }
            None => shown.push_str(word),
        }
    }
    if shown == text {
        return Cow::Borrowed(text);
    }
    Cow::Owned(shown)
}

/// What stands before and after a user and password, if there is one.
fn secret_of(word: &str) -> Option<(&str, &str)> {
    let (scheme, address) = without_scheme(word);
    let at = last_at(address)?;
    let (user, host) = address.split_at(at);
    let first = user.split('/').next().unwrap_or(user);
    let has_path = user.contains('/');
    let names_both = first.contains(':') && !(has_path && ends_with_port(first));
    let is_secret = if scheme.ends_with("://") {
        names_both || !has_path
    } else {
        names_both && (leads_somewhere(&host[1..]) || is_asked(first, &host[1..]))
    };
    (is_secret && !user.is_empty() && user != REDACTED).then_some((scheme, host))
}

/// `https://` or `//`, and what follows.
fn without_scheme(word: &str) -> (&str, &str) {
    let begin = match word.find("://") {
        Some(at) => at + "://".len(),
        None if word.starts_with("//") => "//".len(),
        None => 0,
    };
    word.split_at(begin)
}

/// The last `@` that no digest follows.
fn last_at(address: &str) -> Option<usize> {
    let digest = |at: &usize| {
        let after = &address[at + 1..];
        after.starts_with("sha256:") || after.starts_with("sha512:")
    };
    let mut ats = address.match_indices('@').map(|(at, _)| at);
    ats.rfind(|at| !digest(at))
}

/// `host:5000`, before a path.
fn ends_with_port(text: &str) -> bool {
    let port = text.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// A host with a port or a path, which may be a variable (`$HOST/app`).
fn leads_somewhere(host: &str) -> bool {
    !host.starts_with(['/', '@', ':']) && host.contains(['/', ':'])
}

/// A host alone. It follows the `@` of whoever gets mail, too, and the end of a version looks like one.
fn is_asked(user: &str, host: &str) -> bool {
    let name = user.split(':').next().unwrap_or(user);
    if NO_USERS.iter().any(|no| name.eq_ignore_ascii_case(no)) {
        return false;
    }
    // Of a sentence, not of the host.
    let host = host.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let last = host.rsplit_once('.').map(|(_, last)| last);
    let is_name = host == "localhost"
        || last.is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()));
    host.parse::<IpAddr>().is_ok() || (is_name && host.chars().all(is_word))
}

#[cfg(test)]
mod tests {
    use super::without_passwords;

    #[test]
    fn passwords_go() {
        for (text, shown) in [
            (
                "`https://ada:secret@r.example/app:1` names no image",
                "`https://[redacted]@r.example/app:1` names no image",
            ),
            (
                "https://token@r.example/app",
                "https://[redacted]@r.example/app",
            ),
            (
                "\"https://a:b@c/d\", \"https://x/y\"",
                "\"https://[redacted]@c/d\", \"https://x/y\"",
            ),
            (
                "FROM ada:secret@r.example/app",
                "FROM [redacted]@r.example/app",
            ),
            ("ada:12345@r.example:5000", "[redacted]@r.example:5000"),
            ("ada:pa@ss/w@r.example/app:1", "[redacted]@r.example/app:1"),
            ("ada:pw@host:5000/name", "[redacted]@host:5000/name"),
            ("//ada:pw@host/name", "//[redacted]@host/name"),
            ("ada:pw@$REGISTRY/name:1", "[redacted]@$REGISTRY/name:1"),
            ("ada:pw@_host/name", "[redacted]@_host/name"),
            (
                "`ada:pw@r.example` is no host",
                "`[redacted]@r.example` is no host",
            ),
            ("(ada:p@w@r.example).", "[redacted]@r.example)."),
            ("ada:pw@localhost", "[redacted]@localhost"),
            ("ada:pw@10.0.0.1", "[redacted]@10.0.0.1"),
            (
                "ada:pw@r.example/app:1@sha256:00ff",
                "[redacted]@r.example/app:1@sha256:00ff",
            ),
            (
                "see postgres://me:pa@ss/w@db:5432/app\n",
                "see postgres://[redacted]@db:5432/app\n",
            ),
        ] {
            assert_eq!(without_passwords(text), shown);
            assert_eq!(without_passwords(shown), shown, "once is enough");
        }
    }

    #[test]
    fn all_else_stays() {
        for text in [
            "",
            "https://r.example:5000/app:1",
            "debian:12@sha256:00ff",
            "r.example:5000/app@sha512:00ff",
            "r.example:5000/app@1.2",
            "https://r.example/@scope/name",
            "http://127.0.0.1:4873/@types/node",
            "registry+https://github.com/rust-lang/crates.io-index#serde@1.0.0",
            "from:ada@example.com",
            "mailto:ada@example.com, From:ada@example.com",
            "github:owner/action@v1.2.3",
            "//@ts-check",
            "git@github.com:org/project.git",
            "npm:left-pad@1.0.0",
            "@",
            "://@",
            "systemd user@1000.service: started",
        ] {
            assert_eq!(without_passwords(text), text);
        }
    }
}
