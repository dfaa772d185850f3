//! Which beginnings are looked for, and who decides about what follows them.
//!
//! A beginning is found by a search with vector instructions; the rest, which is rare, is plain
//! code. Binaries are only searched for what cannot stand there by accident and is worth the
//! time: every beginning costs a pass over what may be a hundred megabytes.

use memchr::memmem::{FindIter, Finder};

use super::pem;
use super::tokens::{self, Place};

/// Raised whenever a file could be judged otherwise than before: what was remembered is void then.
pub(super) const VERSION: u32 = 1;

type Judge = fn(Place<'_>) -> Option<&'static str>;

struct Rule {
    beginning: &'static str,
    in_binaries: bool,
    judge: Judge,
}

const fn everywhere(beginning: &'static str, judge: Judge) -> Rule {
    Rule {
        beginning,
        in_binaries: true,
        judge,
    }
}

const fn in_texts(beginning: &'static str, judge: Judge) -> Rule {
    Rule {
        beginning,
        in_binaries: false,
        judge,
    }
}

const GITHUB: &str = "token of GitHub";
const AWS: &str = "access key of AWS";
const AZURE: &str = "key of Azure";
const SLACK: &str = "token of Slack";

const RULES: [Rule; 24] = [
    everywhere("-----BEGIN ", |place| pem::private_key(place.rest())),
    everywhere("AKIA", |place| tokens::aws_pair(place).then_some(AWS)),
    in_texts("ASIA", |place| tokens::aws_pair(place).then_some(AWS)),
    everywhere("ghp_", |place| {
        tokens::exactly(place, 4, 36).then_some(GITHUB)
    }),
    in_texts("gho_", |place| {
        tokens::exactly(place, 4, 36).then_some(GITHUB)
    }),
    in_texts("ghu_", |place| {
        tokens::exactly(place, 4, 36).then_some(GITHUB)
    }),
    everywhere("ghs_", |place| {
        tokens::exactly(place, 4, 36).then_some(GITHUB)
    }),
    in_texts("ghr_", |place| {
        tokens::exactly(place, 4, 36).then_some(GITHUB)
    }),
    everywhere("github_pat_", |place| {
        tokens::github_fine_grained(place).then_some(GITHUB)
    }),
    everywhere("glpat-", |place| {
        tokens::at_least(place, 6, 20).then_some("token of GitLab")
    }),
    everywhere("xox", |place| tokens::slack(place).then_some(SLACK)),
    in_texts("xapp-", |place| {
        tokens::at_least(place, 5, 40).then_some(SLACK)
    }),
    everywhere("sk_live_", |place| {
        tokens::at_least(place, 8, 24).then_some("key of Stripe")
    }),
    in_texts("rk_live_", |place| {
        tokens::at_least(place, 8, 24).then_some("key of Stripe")
    }),
    in_texts("npm_", |place| {
        tokens::exactly(place, 4, 36).then_some("token of npm")
    }),
    everywhere("AccountKey=", |place| {
        tokens::azure_key(place, 11, 64).then_some(AZURE)
    }),
    everywhere("sp_", |place| {
        tokens::own(place).then_some("token of this platform")
    }),
    everywhere("eyJ", |place| {
        tokens::json_web_token(place).then_some("bearer token (JWT)")
    }),
    in_texts("SharedAccessKey=", |place| {
        tokens::azure_key(place, 16, 32).then_some(AZURE)
    }),
    in_texts("Q~", |place| tokens::azure_secret(place).then_some(AZURE)),
    in_texts("hooks.slack.com/services/", |place| {
        tokens::slack_webhook(place).then_some(SLACK)
    }),
    in_texts("secret_access_key", |place| {
        tokens::aws_secret(place, 17).then_some(AWS)
    }),
    in_texts("SECRET_ACCESS_KEY", |place| {
        tokens::aws_secret(place, 17).then_some(AWS)
    }),
    in_texts("secretAccessKey", |place| {
        tokens::aws_secret(place, 15).then_some(AWS)
    }),
];

/// All rules, ready for searching.
pub(super) struct Rules(Vec<(Finder<'static>, &'static Rule)>);

impl Rules {
    pub(super) fn new() -> Self {
        let prepared = RULES.iter().map(|rule| (Finder::new(rule.beginning), rule));
        Self(prepared.collect())
    }

    /// Calls `found` with every secret that begins in `bytes[start..end]`.
    pub(super) fn search(
        &self,
        bytes: &[u8],
        start: usize,
        end: usize,
        binary: bool,
        mut found: impl FnMut(usize, &'static str),
    ) {
        let rules = self
            .0
            .iter()
            .filter(|(_, rule)| rule.in_binaries || !binary);
        for (finder, rule) in rules {
            // A beginning that ends behind the stretch still begins within it.
            let reach = bytes.len().min(end + rule.beginning.len() - 1);
            let beginnings: FindIter<'_, '_> = finder.find_iter(&bytes[start..reach]);
            for at in beginnings.map(|at| start + at) {
                if let Some(kind) = (rule.judge)(Place { bytes, at }) {
                    found(at, kind);
                }
            }
        }
    }
}
