//! The shell patterns inside `${X#pattern}`, `${X%pattern}` and `${X/pattern/text}`: `*` and `?`
//! only, `\` takes their meaning away.

use super::expand::Fault;

enum Piece {
    Any,
    One,
    Literal(char),
}

/// `${X#p}`, or `${X##p}` when the pattern starts with another `#`.
pub(super) fn trim_prefix(word: &str, value: &str) -> Result<String, Fault> {
    let (pattern, longest) = greedy(word, '#');
    let pieces = pieces(pattern)?;
    let ends = value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let mut matching = ends.filter(|end| matches(&pieces, &value[..*end]));
    let end = if longest {
        matching.next_back()
    } else {
        matching.next()
    };
    Ok(value[end.unwrap_or(0)..].to_owned())
}

/// `${X%p}`, or `${X%%p}` when the pattern starts with another `%`.
pub(super) fn trim_suffix(word: &str, value: &str) -> Result<String, Fault> {
    let (pattern, longest) = greedy(word, '%');
    let pieces = pieces(pattern)?;
    let starts = value.char_indices().map(|(at, _)| at).chain([value.len()]);
    let mut matching = starts.filter(|start| matches(&pieces, &value[*start..]));
    let start = if longest {
        matching.next()
    } else {
        matching.next_back()
    };
    Ok(value[..start.unwrap_or(value.len())].to_owned())
}

/// `${X/p/text}`: the first and longest match, or every one.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    all: bool,
) -> Result<String, Fault> {
    let pieces = pieces(pattern)?;
    let mut result = String::new();
    let mut rest = value;
    while !rest.is_empty() {
        if let Some(end) = longest_from_start(&pieces, rest) {
            result.push_str(replacement);
            rest = &rest[end..];
            if !all {
                break;
            }
        } else {
            let step = rest.chars().next().map_or(rest.len(), char::len_utf8);
            result.push_str(&rest[..step]);
            rest = &rest[step..];
        }
    }
    result.push_str(rest);
    Ok(result)
}

fn longest_from_start(pieces: &[Piece], text: &str) -> Option<usize> {
    let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    // An empty match would never move on.
    ends.rfind(|end| *end > 0 && matches(pieces, &text[..*end]))
}

fn greedy(word: &str, sign: char) -> (&str, bool) {
    word.strip_prefix(sign)
        .map_or((word, false), |rest| (rest, true))
}

fn pieces(pattern: &str) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(ch) = chars.next() {
        pieces.push(match ch {
            '*' => Piece::Any,
            '?' => Piece::One,
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Piece::Literal(escaped),
                _ => return Err(format!("the pattern `{pattern}` has a bad escape")),
            },
            other => Piece::Literal(other),
        });
    }
    Ok(pieces)
}

/// Goes back to the last `*` alone: an earlier one could reach nothing that this one cannot.
fn matches(pieces: &[Piece], text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let (mut piece, mut at) = (0, 0);
    let mut star = None;
    while let Some(ch) = chars.get(at) {
        match pieces.get(piece) {
            Some(Piece::Any) => {
                piece += 1;
                star = Some((piece, at));
            }
            Some(found) if found.takes(*ch) => {
                piece += 1;
                at += 1;
            }
            _ => {
                let Some((after, from)) = star else {
                    return false;
                };
                star = Some((after, from + 1));
                (piece, at) = (after, from + 1);
            }
        }
    }
    let mut rest = pieces[piece..].iter();
    rest.all(|piece| matches!(piece, Piece::Any))
}

impl Piece {
    /// Whether it stands for this one character.
    fn takes(&self, ch: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Literal(wanted) => *wanted == ch,
        }
    }
}
