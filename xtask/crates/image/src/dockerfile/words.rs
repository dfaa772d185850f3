//! How an instruction's line is cut: the instruction, its flags, its arguments.

use super::error::Problem;

/// A line cut into instruction, flags and the rest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// In upper case.
    pub(super) name: String,
    /// `--name=value` or `--name`, without the dashes.
    pub(super) flags: Vec<(String, Option<String>)>,
    pub(super) rest: String,
}

/// Cuts a logical line.
pub(super) fn command(line: &str) -> Command {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (flags, rest) = flags(rest);
    Command {
        name: name.to_ascii_uppercase(),
        flags,
        rest: rest.trim().to_owned(),
    }
}

/// Takes leading words that start with `--` off. A lone `--` ends them.
fn flags(mut rest: &str) -> (Vec<(String, Option<String>)>, &str) {
    let mut flags = Vec::new();
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, after) = flag_word(rest);
        rest = after;
        if word == "--" {
            return (flags, rest);
        }
        let word = &word[2..];
        flags.push(match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.to_owned(), None),
        });
    }
}

/// One word with its quotes and escapes taken off, and what follows it.
fn flag_word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, ch)) = chars.next() {
        match (quote, ch) {
            (None, ch) if ch.is_whitespace() => return (word, &text[at..]),
            (None, '\'' | '"') => quote = Some(ch),
            (Some(open), ch) if ch == open => quote = None,
            (_, '\\') => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, ch) => word.push(ch),
        }
    }
    (word, "")
}

/// Splits at spaces outside quotes; quotes and escapes stay in the words.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(ch) = chars.next() {
        if quote.is_none() && ch.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let current = word.get_or_insert_default();
        if ch == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            if let Some(escaped) = chars.next() {
                current.push(ch);
                current.push(escaped);
            }
            continue;
        }
        match quote {
            None if ch == '\'' || ch == '"' => quote = Some(ch),
            Some(open) if ch == open => quote = None,
            _ => {}
        }
        current.push(ch);
    }
    words.extend(word.filter(|word| !word.is_empty()));
    words
}

/// `KEY=value KEY2=value2`, or the old form `KEY value with spaces`.
pub(super) fn pairs(
    instruction: &'static str,
    text: &str,
    escape: char,
) -> Result<Vec<(String, String)>, Problem> {
    let words = quoted_words(text, escape);
    let arguments = Problem::Arguments {
        instruction,
        expected: "NAME=value",
    };
    let Some(first) = words.first() else {
        return Err(arguments);
    };
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or(arguments)?;
        return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
    }
    words.iter().map(|word| pair(instruction, word)).collect()
}

fn pair(instruction: &'static str, word: &str) -> Result<(String, String), Problem> {
    let (name, value) = word
        .split_once('=')
        .ok_or_else(|| Problem::NoEquals(word.to_owned()))?;
    if name.is_empty() {
        return Err(Problem::Arguments {
            instruction,
            expected: "a name before each `=`",
        });
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The elements of a JSON list, `None` where the text is not a JSON list at all.
pub(super) fn json_list(text: &str) -> Result<Option<Vec<String>>, Problem> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(None);
    };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(Problem::JsonNotStrings),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

/// A JSON list, or the words between spaces.
pub(super) fn list(text: &str) -> Result<Vec<String>, Problem> {
    let words = || text.split_whitespace().map(str::to_owned).collect();
    Ok(json_list(text)?.unwrap_or_else(words))
}
