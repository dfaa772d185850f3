//! Which group of instances a request is for, by its host and its path.
//!
//! The host decides first: rules for this very host, then those for a wildcard, then those for any host; among them the one
//! with the longest prefix. Paths are compared as they were sent, by whole segments. What a path means is for the
//! application: nothing is decoded, and nothing of it is cut off.

use std::cmp::Reverse;

/// Requests of some host and path, and who gets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A name without a port, or `*.` and a name: one label before that name. None is for requests to any host.
    pub host: Option<String>,
    /// A path; those below it are meant too. `/` is for all.
    pub prefix: String,
    /// Name of the [`Group`](crate::Group).
    pub group: String,
}

impl Rule {
    /// Whether it is for a path, whatever the host.
    #[must_use]
    pub fn is_for_path(&self, path: &str) -> bool {
        is_below(path, &self.prefix)
    }
}

/// What of a request a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// As the client sent it, a port included.
    pub(crate) host: Option<&'a str>,
    pub(crate) path: &'a str,
}

impl Asked<'_> {
    /// A connection of which nothing is known.
    pub(crate) const NOTHING: Asked<'static> = Asked {
        host: None,
        path: "/",
    };
}

/// Rules, the one that decides first.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    pub(crate) fn of(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| (class(rule), Reverse(trimmed(&rule.prefix).len())));
        Self(rules)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The group that a request is for.
    pub(crate) fn find(&self, asked: Asked<'_>) -> Option<&str> {
        let host = asked.host.map(name_of);
        let found = self
            .0
            .iter()
            .find(|rule| is_for(rule.host.as_deref(), host) && is_below(asked.path, &rule.prefix));
        found.map(|rule| rule.group.as_str())
    }
}

/// Exact hosts come before wildcards, and those before any.
fn class(rule: &Rule) -> u8 {
    match &rule.host {
        Some(host) if host.starts_with("*.") => 1,
        Some(_) => 0,
        None => 2,
    }
}

fn is_for(pattern: Option<&str>, host: Option<&str>) -> bool {
    let Some(pattern) = pattern else { return true };
    let Some(host) = host else { return false };
    match pattern.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(label, name)| !label.is_empty() && name.eq_ignore_ascii_case(rest)),
        None => host.eq_ignore_ascii_case(pattern),
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(trimmed(prefix));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix == "/")
}

fn trimmed(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

/// A host without its port and the dot of the root.
fn name_of(host: &str) -> &str {
    let end = host.find(']').map_or(0, |at| at + 1);
    let name = host[end..].find(':').map_or(host, |at| &host[..end + at]);
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(all: &[(&str, &str)]) -> Rules {
        let rules = all.iter().map(|(host, prefix)| Rule {
            host: (!host.is_empty()).then(|| (*host).to_owned()),
            prefix: (*prefix).to_owned(),
            group: format!("{host}{prefix}"),
        });
        Rules::of(rules.collect())
    }

    fn check(rules: &Rules, host: &str, path: &str, expected: Option<&str>) {
        let host = (!host.is_empty()).then_some(host);
        assert_eq!(
            rules.find(Asked { host, path }),
            expected,
            "{host:?} {path}"
        );
    }

    #[test]
    fn the_longest_prefix_wins_by_whole_segments() {
        let rules = rules(&[("", "/"), ("", "/api/v1/"), ("", "/api")]);
        for (path, expected) in [
            ("/", "/"),
            ("*", "/"),
            ("/apix", "/"),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/api/v1", "/api/v1/"),
            ("/api/v1/x", "/api/v1/"),
            ("/api/v10", "/api"),
        ] {
            check(&rules, "a.example", path, Some(expected));
        }
    }

    #[test]
    fn the_host_decides_before_the_path() {
        let rules = rules(&[
            ("", "/"),
            ("", "/deep/down"),
            ("*.example.com", "/"),
            ("api.example.com", "/v1"),
        ]);
        for (host, path, expected) in [
            ("api.example.com", "/v1/x", "api.example.com/v1"),
            ("API.Example.com.:8443", "/v1", "api.example.com/v1"),
            // What an exact host has no rule for is looked for at the next one.
            ("api.example.com", "/deep/down", "*.example.com/"),
            ("www.example.com:80", "/deep/down", "*.example.com/"),
            ("a.b.example.com", "/deep/down", "/deep/down"),
            ("example.com", "/", "/"),
            (".example.com", "/", "/"),
            ("[::1]:80", "/", "/"),
            ("", "/", "/"),
        ] {
            check(&rules, host, path, Some(expected));
        }
    }

    #[test]
    fn what_no_rule_is_for_is_for_nobody() {
        let rules = rules(&[("a.example", "/"), ("", "/api")]);
        check(&rules, "a.example", "/x", Some("a.example/"));
        check(&rules, "b.example", "/x", None);
        check(&rules, "", "/x", None);
    }

    #[test]
    fn ports_are_no_part_of_a_name() {
        for (host, name) in [
            ("a:80", "a"),
            ("a", "a"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("a.:1", "a"),
            ("", ""),
        ] {
            assert_eq!(name_of(host), name);
        }
    }
}
