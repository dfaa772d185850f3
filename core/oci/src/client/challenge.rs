//! Reading `WWW-Authenticate`: RFC 9110 section 11.6.1, as registries use it.

use std::collections::BTreeMap;

/// One way a server offers to be convinced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Lower case.
    pub(super) scheme: String,
    /// Names in lower case.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Challenge {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// Reads all challenges of one header value. What makes no sense is skipped, never guessed at.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = Cursor { rest: header };
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        let word = rest.take(is_token);
        if word.is_empty() {
            // A byte that begins nothing: leave it behind, so that the loop always ends.
            if !rest.skip_one() {
                return challenges;
            }
            continue;
        }
        match (rest.parameter_value(), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                challenge
                    .parameters
                    .insert(word.to_ascii_lowercase(), value);
            }
            (Some(_), None) => {}
            (None, _) => challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: BTreeMap::new(),
            }),
        }
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn skip(&mut self, wanted: fn(char) -> bool) {
        self.rest = self.rest.trim_start_matches(wanted);
    }

    fn skip_one(&mut self) -> bool {
        let mut characters = self.rest.chars();
        let skipped = characters.next().is_some();
        self.rest = characters.as_str();
        skipped
    }

    fn take(&mut self, wanted: fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// After a name: the value, if an equals sign follows.
    fn parameter_value(&mut self) -> Option<String> {
        let after = self.rest.trim_start();
        let after = after.strip_prefix('=')?;
        self.rest = after.trim_start();
        match self.rest.strip_prefix('"') {
            Some(quoted) => {
                self.rest = quoted;
                Some(self.quoted())
            }
            None => Some(self.take(is_token).to_owned()),
        }
    }

    /// The rest of a quoted string; a missing closing quote ends it at the end.
    fn quoted(&mut self) -> String {
        let mut value = String::new();
        let mut characters = self.rest.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => value.extend(characters.next()),
                _ => value.push(character),
            }
        }
        self.rest = characters.as_str();
        value
    }
}

fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dockers_challenge_reads() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="invalid_token""#;
        let challenges = parse(header);
        assert_eq!(challenges.len(), 1);
        assert_eq!(challenges[0].scheme, "bearer");
        assert_eq!(
            challenges[0].parameter("realm"),
            Some("https://auth.docker.io/token")
        );
        assert_eq!(
            challenges[0].parameter("service"),
            Some("registry.docker.io")
        );
        assert_eq!(
            challenges[0].parameter("scope"),
            Some("repository:a/b:pull,push")
        );
    }

    #[test]
    fn several_challenges_stand_in_one_header() {
        let challenges =
            parse(r#"Negotiate abc==, Basic realm="a \"b\"", BEARER Realm=x , service = y"#);
        let schemes: Vec<_> = challenges.iter().map(|c| c.scheme.as_str()).collect();
        assert!(
            schemes.contains(&"basic") && schemes.contains(&"bearer"),
            "{schemes:?}"
        );
        let basic = challenges.iter().find(|c| c.scheme == "basic").unwrap();
        assert_eq!(basic.parameter("realm"), Some("a \"b\""));
        let bearer = challenges.iter().find(|c| c.scheme == "bearer").unwrap();
        assert_eq!(bearer.parameter("realm"), Some("x"));
        assert_eq!(bearer.parameter("service"), Some("y"));
    }

    #[test]
    fn a_missing_quote_ends_at_the_end() {
        let challenges = parse(r#"Basic realm="open"#);
        assert_eq!(challenges[0].parameter("realm"), Some("open"));
        assert!(parse("").is_empty());
        assert!(parse("= , \"").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_reads_without_panic(text in ".{0,120}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_reads_back(
            realm in "https://[a-z]{1,8}/[a-z]{0,8}",
            service in "[ -~]{0,20}",
        ) {
            let escaped = service.replace('\\', "\\\\").replace('"', "\\\"");
            let challenges = parse(&format!("Bearer realm=\"{realm}\", service=\"{escaped}\""));
            prop_assert_eq!(challenges.len(), 1);
            prop_assert_eq!(challenges[0].parameter("realm"), Some(realm.as_str()));
            prop_assert_eq!(challenges[0].parameter("service"), Some(service.as_str()));
        }
    }
}
