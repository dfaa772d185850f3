//! Passwords in addresses: people write them into names of images and URLs, which are repeated in errors, plans and
//! reports. What is shown goes through here.

use std::borrow::Cow;

use super::REDACTED;

/// The text without what stands before the `@` of an address: `https://user:password@host/…`, and
/// `user:password@host/…` as in the name of an image. A password may hold an unescaped `@`: all up to the last one
/// goes, for hiding too much is the smaller fault. Digests of images (`app:1@sha256:…`), paths
/// (`https://host/@scope/name`) and addresses of mail stay.
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
    let begin = word.find("://").map_or(0, |at| at + "://".len());
    let (scheme, address) = word.split_at(begin);
    let at = last_at(address)?;
    let (user, host) = address.split_at(at);
    let first = user.split('/').next().unwrap_or(user);
    let has_path = user.contains('/');
    let names_both = first.contains(':') && !(has_path && ends_with_port(first));
    let is_secret = if scheme.is_empty() {
        names_both && leads_somewhere(&host[1..])
    } else {
        names_both || !has_path
    };
    (is_secret && !user.is_empty() && user != REDACTED).then_some((scheme, host))
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

/// A host with a port or a path. A host alone follows the `@` of whoever gets mail, too.
fn leads_somewhere(host: &str) -> bool {
    let starts = host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    starts && host.contains(['/', ':'])
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
