//! Path patterns: those of Go's `filepath.Match`, which `COPY` uses, and the extension with `**`
//! that `.dockerignore`, `--exclude` and `--parents` use.
//!
//! Names need not be UTF-8: a byte that is no part of a character counts as one of its own.

/// A pattern that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{0}` is malformed: a `[` without its `]`, or a `\\` at the end")]
pub struct BadPattern(pub String);

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone)]
enum Token {
    /// One character.
    Literal(u32),
    /// `?`: one character but `/`.
    One,
    /// `*`: any characters but `/`.
    Star,
    /// `**` in the middle: nothing, or anything up to and with a `/`.
    Directories,
    /// `**` at the end, or in front of a plain ending: anything.
    Everything,
    /// `[…]`
    Class {
        negated: bool,
        ranges: Vec<(u32, u32)>,
        slash: bool,
    },
}

const SLASH: u32 = '/' as u32;

impl Glob {
    /// A pattern of one path segment, or of several: `*` and `**` alike stop at `/`.
    pub(crate) fn segment(pattern: &str) -> Result<Self, BadPattern> {
        Self::compile(pattern, false)
    }

    /// A pattern in which `**` stands for any number of directories.
    pub(crate) fn path(pattern: &str) -> Result<Self, BadPattern> {
        Self::compile(pattern, true)
    }

    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        matches(&self.tokens, &units(name))
    }

    fn compile(pattern: &str, double_star: bool) -> Result<Self, BadPattern> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        // Docker matches `**` and a plain ending as a suffix, so that `**rc` finds `.bashrc`.
        let plain_suffix = pattern.strip_prefix("**").is_some_and(|rest| {
            !rest.starts_with('/') && !rest.contains(['*', '?', '[', ']', '\\'])
        });
        while let Some(ch) = chars.next() {
            tokens.push(match ch {
                '*' if double_star && chars.peek() == Some(&'*') => {
                    chars.next();
                    chars.next_if_eq(&'/');
                    let last = chars.peek().is_none();
                    if last || plain_suffix {
                        Token::Everything
                    } else {
                        Token::Directories
                    }
                }
                '*' => Token::Star,
                '?' => Token::One,
                '[' => class(&mut chars, double_star).ok_or_else(|| BadPattern(pattern.into()))?,
                '\\' => {
                    let escaped = chars.next().ok_or_else(|| BadPattern(pattern.into()))?;
                    Token::Literal(u32::from(escaped))
                }
                other => Token::Literal(u32::from(other)),
            });
        }
        Ok(Self { tokens })
    }
}

/// Whether a path holds anything that makes it a pattern.
pub(crate) fn has_wildcard(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// Takes the escapes out of a path that is no pattern.
pub(crate) fn unescape(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '\\' => plain.extend(chars.next()),
            other => plain.push(other),
        }
    }
    plain
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, slash: bool) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        match chars.next()? {
            ']' if !ranges.is_empty() => {
                return Some(Token::Class {
                    negated,
                    ranges,
                    slash,
                });
            }
            ']' | '-' => return None,
            first => {
                let low = escaped(first, chars)?;
                let high = match chars.next_if_eq(&'-') {
                    Some(_) => chars.next().and_then(|next| escaped(next, chars))?,
                    None => low,
                };
                ranges.push((u32::from(low), u32::from(high)));
            }
        }
    }
}

fn escaped(ch: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    if ch == '\\' { chars.next() } else { Some(ch) }
}

/// Follows all ways of matching at once: trying them one after the other takes time that doubles
/// with every star.
fn matches(tokens: &[Token], name: &[u32]) -> bool {
    // Up to where in the name the tokens so far can have come; sorted.
    let mut reached = vec![0];
    for token in tokens {
        reached = token.from(&reached, name);
        if reached.is_empty() {
            return false;
        }
    }
    reached.last() == Some(&name.len())
}

impl Token {
    /// Where this token can end when it begins at one of these places.
    fn from(&self, begins: &[usize], name: &[u32]) -> Vec<usize> {
        let first = begins.first().copied().unwrap_or(0);
        let begins_at = |at: &usize| begins.binary_search(at).is_ok();
        match self {
            Self::Star => {
                let mut inside = false;
                let mut ends = |at: &usize| {
                    inside &= *at == first || name[at - 1] != SLASH;
                    inside |= begins_at(at);
                    inside
                };
                (first..=name.len()).filter(|at| ends(at)).collect()
            }
            Self::Everything => (first..=name.len()).collect(),
            Self::Directories => {
                let ends = |at: &usize| begins_at(at) || (*at > first && name[at - 1] == SLASH);
                (first..=name.len()).filter(ends).collect()
            }
            single => {
                let ends = |at: &usize| name.get(*at).is_some_and(|unit| single.takes(*unit));
                let taken = begins.iter().copied().filter(ends);
                taken.map(|at| at + 1).collect()
            }
        }
    }

    fn takes(&self, unit: u32) -> bool {
        match self {
            Self::Literal(wanted) => *wanted == unit,
            Self::One => unit != SLASH,
            Self::Class {
                negated,
                ranges,
                slash,
            } => {
                let inside = ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&unit));
                inside != *negated && (*slash || unit != SLASH)
            }
            Self::Star | Self::Directories | Self::Everything => false,
        }
    }
}

fn units(name: &[u8]) -> Vec<u32> {
    const STRAY: u32 = 0x11_0000;
    let mut units = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        units.extend(chunk.valid().chars().map(u32::from));
        units.extend(chunk.invalid().iter().map(|byte| STRAY + u32::from(*byte)));
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_match_as_go_matches_them() {
        let check = |pattern: &str, name: &str, expected: bool| {
            let found = Glob::segment(pattern).unwrap().matches(name.as_bytes());
            assert_eq!(found, expected, "{pattern} and {name}");
        };
        check("abc", "abc", true);
        check("*", "abc", true);
        check("*c", "abc", true);
        check("a*", "ab/c", false);
        check("a*/b", "abc/b", true);
        check("a*b*c*d*e*/f", "axbxcxdxe/f", true);
        check("ab[c]", "abc", true);
        check("ab[b-d]", "abc", true);
        check("ab[^c]", "abc", false);
        check("ab[^e-g]", "abc", true);
        check("a\\*b", "a*b", true);
        check("a\\*b", "ab", false);
        check("a?b", "aéb", true);
        check("a[^a]b", "aéb", true);
        check("a?b", "a/b", false);
        check("[\\]a]", "]", true);
        check("[x\\-]", "-", true);
        check("**", "a/b", false);
        check("*x", "xxx", true);
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in ["[", "[]a]", "[-]", "[x-]", "a[", "a\\", "[a-b-c]", "[^"] {
            assert!(Glob::segment(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_they_are_many() {
        let name = "a".repeat(200);
        let glob = Glob::path(&"*a".repeat(60)).unwrap();
        assert!(glob.matches(name.as_bytes()));
        let glob = Glob::path(&("**/a*".repeat(40) + "b")).unwrap();
        assert!(!glob.matches(name.as_bytes()));
    }

    #[test]
    fn names_need_not_be_utf8() {
        assert!(Glob::segment("a?b").unwrap().matches(b"a\xffb"));
        assert!(!Glob::segment("a?b").unwrap().matches(b"a\xff\xfeb"));
    }
}
