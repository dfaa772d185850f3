//! Takes what looks like a secret out of a command line.
//!
//! A command line is shown to a model and through it to whoever reads the conversation, so the
//! rules err on the side of hiding: a hidden container id costs nothing, a shown token does.

const HIDDEN: &str = "[redacted]";

/// Names that announce a secret, without dashes and underscores.
const NAMES: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "credential",
    "auth",
    "cookie",
    "session",
    "bearer",
];

/// Beginnings of well-known tokens.
const PREFIXES: [&str; 16] = [
    "eyJ",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "sk-",
    "sk_",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "npm_",
    "-----BEGIN",
];

/// Programs whose `-p` takes a password, often without a space.
const PASSWORD_P: [&str; 8] = [
    "mysql",
    "mysqldump",
    "mysqladmin",
    "mariadb",
    "mariadb-dump",
    "mariadb-admin",
    "sshpass",
    "mongosh",
];

/// The arguments of a command line with secrets taken out.
pub(crate) fn redact(arguments: &[String]) -> Vec<String> {
    let program = arguments.first().map_or("", |path| base_name(path));
    let mut reader = Reader {
        announced: false,
        named: false,
        password_p: PASSWORD_P.contains(&program),
    };
    arguments.iter().map(|text| reader.argument(text)).collect()
}

/// A secret's name may stand in one argument and the secret in the next: the reader remembers.
struct Reader {
    /// The next word is a secret.
    announced: bool,
    /// The last word was the name of a secret; a colon or an equals sign announces its value.
    named: bool,
    password_p: bool,
}

impl Reader {
    fn argument(&mut self, text: &str) -> String {
        if self.announced && !is_scheme(text) && !text.is_empty() {
            self.announced = false;
            return HIDDEN.to_owned();
        }
        match split_whole(text) {
            Some(name) => format!("{name}{HIDDEN}"),
            None => self.script(text),
        }
    }

    /// An argument may be a whole script (`sh -c "…"`), so it is read word by word.
    fn script(&mut self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let (word, tail) = rest.split_at(rest.find(is_separator).unwrap_or(rest.len()));
            rest = tail;
            if !word.is_empty() {
                shown.push_str(&self.word(word));
            }
            if shown.ends_with(HIDDEN) {
                // A comma or a brace may be part of the secret.
                rest = &rest[rest.find(ends_secret).unwrap_or(rest.len())..];
            }
            let Some(separator) = rest.chars().next() else {
                break;
            };
            shown.push(separator);
            rest = &rest[separator.len_utf8()..];
            if self.announced && matches!(separator, '"' | '\'') && !rest.starts_with(separator) {
                rest = self.quoted(rest, separator, &mut shown);
            }
        }
        shown
    }

    /// Hides all that stands in quotes behind an announcement; a scheme is no secret itself.
    fn quoted<'a>(&mut self, rest: &'a str, quote: char, shown: &mut String) -> &'a str {
        let (content, tail) = rest.split_at(rest.find(quote).unwrap_or(rest.len()));
        // The quote that ends the name (`"password": "x"`) is followed by no content yet.
        if content.trim_start().starts_with(':') {
            return rest;
        }
        self.announced = false;
        shown.push_str(if content.trim().is_empty() {
            content
        } else {
            HIDDEN
        });
        tail
    }

    fn word(&mut self, word: &str) -> String {
        let named = std::mem::replace(&mut self.named, names_secret(word));
        if named && matches!(word, ":" | "=") {
            self.announced = true;
            return word.to_owned();
        }
        if std::mem::take(&mut self.announced) {
            // `Authorization: Bearer …`: the scheme announces the secret that follows it.
            if is_scheme(word) {
                self.announced = true;
                return word.to_owned();
            }
            return HIDDEN.to_owned();
        }
        if let Some((name, value)) = split_assignment(word) {
            return self.assignment(name, value);
        }
        if self.password_p && word.starts_with("-p") && !word.starts_with("--") {
            self.announced = word.len() == 2;
            return if self.announced {
                word.to_owned()
            } else {
                format!("-p{HIDDEN}")
            };
        }
        if is_announcing(word) {
            self.announced = true;
            return word.to_owned();
        }
        value(word)
    }

    /// `NAME=value`, `--name=value`.
    fn assignment(&mut self, name: &str, value_text: &str) -> String {
        if !names_secret(name) {
            return format!("{}={}", value(name), value(value_text));
        }
        // `TOKEN="…"` and `TOKEN= …`: the value is the next word.
        if value_text.is_empty() {
            self.announced = true;
            return format!("{name}=");
        }
        format!("{name}={HIDDEN}")
    }
}

fn is_separator(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '"' | '\'' | '`' | ';' | '&' | '?' | ',' | '|' | '(' | ')' | '{' | '}'
        )
}

/// What ends a secret that stands in a script without quotes.
fn ends_secret(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ';' | '&' | '|')
}

/// The name with its sign, of an argument that is one secret with its name and nothing else:
/// `--token=…`, `API_KEY=…`, `X-Api-Key: …`.
fn split_whole(text: &str) -> Option<&str> {
    let end = text.find(['=', ':'])?;
    let (name, value) = text.split_at(end + 1);
    let plain = !name.contains(is_separator) && names_secret(name);
    // `TOKEN="…"; …` is a script; `name://` begins a URL.
    let whole = !value.is_empty() && !value.starts_with(['"', '\'', '/']);
    let header = if value.starts_with(' ') { " " } else { "" };
    (plain && whole).then(|| &text[..=end + header.len()])
}

fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "digest", "token"]
        .iter()
        .any(|scheme| word.eq_ignore_ascii_case(scheme))
}

fn split_assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    // `dGVzdA==` is a value with padding, not an assignment.
    (!name.is_empty() && !value.chars().all(|c| c == '=') || value.is_empty() && names_secret(name))
        .then_some((name, value))
}

/// `--token`, `-password`, `X-Api-Key:`, and the word `Bearer` alone.
fn is_announcing(word: &str) -> bool {
    let flag = word.starts_with('-') && names_secret(word);
    let header = word.strip_suffix(':').is_some_and(names_secret);
    flag || header || word.eq_ignore_ascii_case("bearer")
}

fn names_secret(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    // `--author` and `--authority` are not `--auth`.
    let plain = plain.replace("authority", "").replace("author", "");
    let plain = if name.to_ascii_lowercase().contains("authoriz") {
        "auth".to_owned()
    } else {
        plain
    };
    NAMES.iter().any(|secret| plain.contains(secret))
}

/// A word that stands for itself: hidden whole, in part, or not.
fn value(word: &str) -> String {
    if let Some((scheme, rest)) = word.split_once("://") {
        return format!("{scheme}://{}", without_user(rest));
    }
    if PREFIXES.iter().any(|prefix| word.starts_with(prefix)) || is_random(word) {
        return HIDDEN.to_owned();
    }
    match word.split_once(':') {
        // `sha256:…` is a digest, `name:tag` an image; `user:password` cannot be told from these
        // unless its second part is random.
        Some((name, rest)) if !name.starts_with("sha") && is_random(rest) => {
            format!("{name}:{HIDDEN}")
        }
        _ => word.to_owned(),
    }
}

/// `user:password@host/path` without what stands before the `@` of the authority.
fn without_user(rest: &str) -> String {
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // A password may hold an unescaped `/`; then the `@` stands behind it.
    match authority.rsplit_once('@').or_else(|| rest.rsplit_once('@')) {
        Some((user, host)) if user.len() + host.len() + 1 == rest.len() => {
            format!("{HIDDEN}@{host}")
        }
        Some((_, host)) => format!("{HIDDEN}@{host}{path}"),
        None => rest.to_owned(),
    }
}

/// Long words that no person and no file system made: hexadecimal from 32 characters, or upper
/// case, lower case and digits mixed from 20.
fn is_random(word: &str) -> bool {
    let word = word.trim_end_matches('=');
    let alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '_' | '-' | '.');
    if word.len() < 20 || !word.chars().all(alphabet) {
        return false;
    }
    let has = |test: fn(&char) -> bool| word.chars().any(|c| test(&c));
    let hex = word.len() >= 32 && word.chars().all(|c| c.is_ascii_hexdigit());
    let mixed =
        has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit);
    hex || mixed
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &[&str], expected: &[&str]) {
        let arguments: Vec<String> = command.iter().map(|&a| a.to_owned()).collect();
        assert_eq!(redact(&arguments), expected);
    }

    #[test]
    fn ordinary_command_lines_stay_as_they_are() {
        for command in [
            &["/usr/sbin/nginx", "-g", "daemon off;"][..],
            &["cargo", "build", "--release", "--package=core", "-j2"],
            &["git", "commit", "--author=Ann <ann@example.org>"],
            &[
                "postgres",
                "-D",
                "/var/lib/postgresql/15/main",
                "-c",
                "config_file=/etc/x.conf",
            ],
            &[
                "run",
                "registry.example/app:deploy-1705329622-a1b2c3d",
                "http://127.0.0.1:80/a",
            ],
            &["sh", "-c", "for i in 1 2 3; do echo \"$i\"; done"],
            &["-p", "8080:80"],
        ] {
            check(command, command);
        }
    }

    #[test]
    fn named_secrets_are_hidden() {
        check(
            &[
                "app",
                "--token",
                "abc",
                "--password=abc",
                "API_KEY=abc",
                "--port",
                "1",
            ],
            &[
                "app",
                "--token",
                HIDDEN,
                "--password=[redacted]",
                "API_KEY=[redacted]",
                "--port",
                "1",
            ],
        );
        check(
            &["app", "--db-password", "x y"],
            &["app", "--db-password", HIDDEN],
        );
        check(&["app", "TOKEN=\"abc\""], &["app", "TOKEN=\"[redacted]\""]);
    }

    #[test]
    fn headers_are_hidden() {
        check(
            &[
                "curl",
                "-H",
                "Authorization: Bearer abc",
                "-H",
                "X-Api-Key: abc",
            ],
            &[
                "curl",
                "-H",
                "Authorization: [redacted]",
                "-H",
                "X-Api-Key: [redacted]",
            ],
        );
    }

    #[test]
    fn urls_lose_their_user_and_their_secret_parameters() {
        check(
            &[
                "psql",
                "postgres://app:pw@db.example:5432/app?sslmode=require&password=pw",
            ],
            &[
                "psql",
                "postgres://[redacted]@db.example:5432/app?sslmode=require&password=[redacted]",
            ],
        );
        check(
            &["x", "redis://:p/w@host"],
            &["x", "redis://[redacted]@host"],
        );
    }

    #[test]
    fn scripts_are_read_word_by_word() {
        check(
            &[
                "sh",
                "-c",
                "export DB_PASSWORD=abc; curl --oauth2-bearer abc 'https://a.example'",
            ],
            &[
                "sh",
                "-c",
                "export DB_PASSWORD=[redacted]; curl --oauth2-bearer [redacted] 'https://a.example'",
            ],
        );
    }

    #[test]
    fn what_looks_random_is_hidden() {
        for secret in [
            "eyJhbGciOiJIUzI1NiJ9.e30.abc",
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "0123456789abcdef0123456789abcdef",
            "dGhpcyBpcyBhIHNlY3JldDE5OTk=",
            "dGhpcyBpcyBhIHNlY3JldDE5OTk=x",
        ] {
            let shown = redact(&["x".to_owned(), secret.to_owned()]);
            assert!(!shown[1].contains(&secret[4..16]), "{shown:?}");
        }
        check(
            &[
                "x",
                "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ],
            &[
                "x",
                "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ],
        );
    }

    #[test]
    fn no_part_of_a_secret_stays_behind() {
        check(
            &["x", "--password=a,b&c d"],
            &["x", "--password=[redacted]"],
        );
        check(
            &["x", "-H", "Cookie: a=b; c=d"],
            &["x", "-H", "Cookie: [redacted]"],
        );
        check(
            &["sh", "-c", "app --password 'a b' --user c"],
            &["sh", "-c", "app --password '[redacted]' --user c"],
        );
        check(
            &["sh", "-c", "mount -o user=a,password=b,c /d"],
            &["sh", "-c", "mount -o user=a,password=[redacted] /d"],
        );
        check(
            &["curl", "-d", r#"{"user": "a", "password": "b c", "n": 1}"#],
            &[
                "curl",
                "-d",
                r#"{"user": "a", "password": "[redacted]", "n": 1}"#,
            ],
        );
        check(
            &["x", "Authorization:", "Bearer", "abc"],
            &["x", "Authorization:", "Bearer", HIDDEN],
        );
    }

    #[test]
    fn a_password_behind_p_is_hidden_for_the_programs_that_take_one() {
        check(
            &["/usr/bin/mysql", "-uroot", "-phunter2"],
            &["/usr/bin/mysql", "-uroot", "-p[redacted]"],
        );
        check(
            &["sshpass", "-p", "hunter2", "ssh"],
            &["sshpass", "-p", HIDDEN, "ssh"],
        );
        check(&["cargo", "-p", "oci"], &["cargo", "-p", "oci"]);
    }

    proptest::proptest! {
        #[test]
        fn any_command_line_is_read(arguments in proptest::collection::vec(".{0,40}", 0..8)) {
            let shown = redact(&arguments);
            proptest::prop_assert_eq!(shown.len(), arguments.len());
        }

        #[test]
        fn a_named_secret_never_shows(secret in "[!-~]{6,40}") {
            // What is shown anyway cannot tell whether the secret was.
            proptest::prop_assume!(!HIDDEN.contains(&secret) && !is_scheme(&secret));
            for command in [
                vec!["app".to_owned(), "--token".to_owned(), secret.clone()],
                vec!["app".to_owned(), format!("--db-password={secret}")],
                vec!["app".to_owned(), format!("X-Api-Key: {secret}")],
                vec!["app".to_owned(), format!("API_TOKEN={secret}")],
            ] {
                let shown = redact(&command).join(" ");
                proptest::prop_assert!(!shown.contains(&secret), "{}", shown);
            }
        }
    }
}
