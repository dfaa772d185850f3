//! Words, quotes and variables, as Docker reads them outside of a shell: `$X`, `${X}`, `${X:-d}`,
//! `${X:+a}`, `${X:?m}`, `${X#p}`, `${X%p}`, `${X/a/b}` and their doubled forms.
//!
//! Follows `frontend/dockerfile/shell/lex.go` of `BuildKit`, whose treatment of quotes and escapes
//! differs in places from any shell's.

use super::pattern;

/// Each level takes its share of the stack; nobody writes so many.
const DEEPEST: usize = 100;

/// Looks a variable up; `None` is unset.
pub(crate) type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Expands one word or splits a line into words.
pub(crate) struct Lexer<'a> {
    escape: char,
    lookup: &'a Lookup<'a>,
    keep_quotes: bool,
    keep_unset: bool,
    ignore_quotes: bool,
}

/// Why a word cannot be expanded.
pub(crate) type Fault = String;

/// What a stretch of input comes to: as one text, and split at unquoted spaces.
#[derive(Default)]
struct Output {
    text: String,
    word: String,
    words: Vec<String>,
    in_word: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(escape: char, lookup: &'a Lookup<'a>) -> Self {
        Self {
            escape,
            lookup,
            keep_quotes: false,
            keep_unset: false,
            ignore_quotes: false,
        }
    }

    /// Leaves quote characters in the result.
    pub(super) fn keep_quotes(mut self) -> Self {
        self.keep_quotes = true;
        self
    }

    /// Leaves `$X` as it is where X is unset.
    pub(super) fn keep_unset(mut self) -> Self {
        self.keep_unset = true;
        self
    }

    /// Takes quotes for ordinary characters, as in a heredoc.
    pub(crate) fn ignore_quotes(mut self) -> Self {
        self.ignore_quotes = true;
        self
    }

    /// Expands `input` and takes its quotes off; spaces stay.
    pub(crate) fn word(&self, input: &str) -> Result<String, Fault> {
        self.run(input).map(|output| output.text)
    }

    /// Expands `input`, then splits it at spaces that are not quoted.
    pub(crate) fn words(&self, input: &str) -> Result<Vec<String>, Fault> {
        self.run(input).map(Output::into_words)
    }

    fn run(&self, input: &str) -> Result<Output, Fault> {
        let mut cursor = Cursor {
            chars: input.chars().collect(),
            at: 0,
            depth: 0,
            lexer: self,
        };
        cursor.until(None, false)
    }
}

impl Output {
    fn plain(&mut self, ch: char) {
        self.text.push(ch);
        self.splittable(ch);
    }

    fn splittable(&mut self, ch: char) {
        if !ch.is_whitespace() {
            self.word.push(ch);
            self.in_word = true;
        } else if self.in_word && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
            self.in_word = false;
        }
    }

    fn raw(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
        self.in_word = true;
    }

    fn expanded(&mut self, text: &str) {
        self.text.push_str(text);
        text.chars().for_each(|ch| self.splittable(ch));
    }

    fn into_words(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Cursor<'l, 'a> {
    chars: Vec<char>,
    at: usize,
    /// `${` around what is read now.
    depth: usize,
    lexer: &'l Lexer<'a>,
}

impl Cursor<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let ch = self.peek()?;
        self.at += 1;
        Some(ch)
    }

    /// Reads to `stop` or, without one, to the end of the input.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<Output, Fault> {
        let mut output = Output::default();
        while let Some(ch) = self.peek() {
            if Some(ch) == stop {
                self.at += 1;
                return Ok(output);
            }
            match ch {
                '$' => output.expanded(&self.dollar()?),
                '\'' | '"' if self.lexer.ignore_quotes => self.unquoted(keep_escapes, &mut output),
                '\'' => output.raw(&self.single_quoted()?),
                '"' => output.raw(&self.double_quoted()?),
                _ => self.unquoted(keep_escapes, &mut output),
            }
        }
        match stop {
            Some(stop) => Err(format!("nothing closes it: `{stop}` is missing")),
            None => Ok(output),
        }
    }

    fn unquoted(&mut self, keep_escapes: bool, output: &mut Output) {
        let Some(ch) = self.next() else { return };
        if ch != self.lexer.escape {
            output.plain(ch);
            return;
        }
        if keep_escapes {
            output.raw(ch.encode_utf8(&mut [0; 4]));
        }
        if let Some(escaped) = self.next() {
            output.raw(escaped.encode_utf8(&mut [0; 4]));
        }
    }

    /// Everything up to the next single quote, as it stands.
    fn single_quoted(&mut self) -> Result<String, Fault> {
        let mut result = self.open_quote();
        loop {
            match self.next() {
                None => return Err("a single quote is not closed".into()),
                Some('\'') => return Ok(self.close_quote(result, '\'')),
                Some(ch) => result.push(ch),
            }
        }
    }

    /// Up to the next double quote: variables are expanded, only `"`, `$` and the escape character
    /// itself can be escaped.
    fn double_quoted(&mut self) -> Result<String, Fault> {
        let mut result = self.open_quote();
        loop {
            match self.peek() {
                None => return Err("a double quote is not closed".into()),
                Some('"') => {
                    self.at += 1;
                    return Ok(self.close_quote(result, '"'));
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(ch) => {
                    self.at += 1;
                    self.maybe_escaped(ch, &mut result);
                }
            }
        }
    }

    fn maybe_escaped(&mut self, ch: char, result: &mut String) {
        let escape = self.lexer.escape;
        if ch != escape {
            result.push(ch);
            return;
        }
        match self.peek() {
            None => {}
            Some(next) if next == '"' || next == '$' || next == escape => {
                self.at += 1;
                result.push(next);
            }
            Some(_) => result.push(ch),
        }
    }

    fn open_quote(&mut self) -> String {
        let quote = self.next();
        quote
            .filter(|_| self.lexer.keep_quotes)
            .map(String::from)
            .unwrap_or_default()
    }

    fn close_quote(&self, mut text: String, quote: char) -> String {
        if self.lexer.keep_quotes {
            text.push(quote);
        }
        text
    }

    fn dollar(&mut self) -> Result<String, Fault> {
        self.at += 1;
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        match (self.lexer.lookup)(&name) {
            None if self.lexer.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    /// A name, a positional parameter or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(ch) if ch.is_ascii_digit() => {
                while self.peek().is_some_and(|ch| ch.is_ascii_digit()) {
                    self.at += 1;
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.at += 1,
            _ => {
                while self
                    .peek()
                    .is_some_and(|ch| ch.is_alphanumeric() || ch == '_')
                {
                    self.at += 1;
                }
            }
        }
        self.chars[start..self.at].iter().collect()
    }

    fn braced(&mut self) -> Result<String, Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} `${{` stand in each other"));
        }
        let value = self.braced_value();
        self.depth -= 1;
        value
    }

    fn braced_value(&mut self) -> Result<String, Fault> {
        match self.peek() {
            None => return Err("`${` has no `}`".into()),
            Some('{' | '}' | ':') => return Err("`${` has no name".into()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(self.value_or_text(&name, &format!("${{{name}}}"))),
            Some(':') => {
                let operator = self.next();
                self.modified(&name, operator, true)
            }
            Some('/') => self.replaced(&name),
            operator => self.modified(&name, operator, false),
        }
    }

    fn value_or_text(&self, name: &str, text: &str) -> String {
        match (self.lexer.lookup)(name) {
            None if self.lexer.keep_unset => text.to_owned(),
            value => value.unwrap_or_default(),
        }
    }

    fn modified(
        &mut self,
        name: &str,
        operator: Option<char>,
        empty_is_unset: bool,
    ) -> Result<String, Fault> {
        let Some(operator @ ('+' | '-' | '?' | '#' | '%')) = operator else {
            return Err(format!(
                "`${{{name}` is followed by a modifier that does not exist"
            ));
        };
        let word = self.until(Some('}'), matches!(operator, '#' | '%'))?.text;
        let value = (self.lexer.lookup)(name);
        if value.is_none() && self.lexer.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let present = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match operator {
            '-' => Ok(present.unwrap_or(word)),
            '+' => Ok(present.map(|_| word).unwrap_or_default()),
            '?' => present.ok_or_else(|| required(name, &word)),
            '#' => pattern::trim_prefix(&word, present.as_deref().unwrap_or_default()),
            _ => pattern::trim_suffix(&word, present.as_deref().unwrap_or_default()),
        }
    }

    fn replaced(&mut self, name: &str) -> Result<String, Fault> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let pattern = self.until(Some('/'), true)?.text;
        let replacement = self.until(Some('}'), true)?.text;
        let text = format!("${{{name}/{pattern}/{replacement}}}");
        if (self.lexer.lookup)(name).is_none() && self.lexer.keep_unset {
            return Ok(text);
        }
        let value = self.value_or_text(name, "");
        pattern::replace(&pattern, &value, &replacement, all)
    }
}

fn required(name: &str, message: &str) -> Fault {
    if message.is_empty() {
        format!("{name} has no value")
    } else {
        format!("{name}: {message}")
    }
}
