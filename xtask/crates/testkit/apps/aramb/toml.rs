//! Reads TOML, as far as a control plane has to: which services a file has.
//!
//! A reader of its own: that of the program under test would make the same mistakes on both sides.

use std::iter::Peekable;
use std::str::CharIndices;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    /// A number, a date, `true`, `false`: as it is written.
    Plain(String),
    List(Vec<Value>),
    Table(Table),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table(pub Vec<(String, Value)>);

impl Table {
    pub fn get(&self, key: &str) -> Option<&Value> {
        let mut entries = self.0.iter();
        entries
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// The value at the end of a path of tables.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        let (last, above) = path.split_last()?;
        let mut table = self;
        for key in above {
            let Some(Value::Table(inner)) = table.get(key) else {
                return None;
            };
            table = inner;
        }
        table.get(last)
    }

    fn entry(&mut self, key: &str, new: Value) -> &mut Value {
        let at = self.0.iter().position(|(name, _)| name == key);
        let at = at.unwrap_or_else(|| {
            self.0.push((key.to_owned(), new));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

impl Value {
    /// The text, or what is written where no text stands.
    pub fn words(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Plain(text) => Some(text),
            _ => None,
        }
    }
}

/// The whole file, or in which line it is no TOML and why.
pub fn read(source: &str) -> Result<Table, String> {
    let mut reader = Reader {
        source,
        rest: source.char_indices().peekable(),
    };
    let mut root = Table::default();
    match reader.document(&mut root) {
        Ok(()) => Ok(root),
        Err(reason) => {
            let at = reader.rest.peek().map_or(source.len(), |(at, _)| *at);
            let line = source[..at].matches('\n').count() + 1;
            Err(format!("line {line}: {reason}"))
        }
    }
}

struct Reader<'a> {
    source: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

type Read<T> = Result<T, String>;

impl Reader<'_> {
    fn document(&mut self, root: &mut Table) -> Read<()> {
        let mut path = Vec::new();
        loop {
            self.blank_lines();
            match self.peek() {
                None => return Ok(()),
                Some('[') => path = self.header(root)?,
                Some(_) => {
                    let table = descend(root, &path)?;
                    self.pair(table)?;
                }
            }
            self.end_of_line()?;
        }
    }

    /// `[a.b]` or `[[a.b]]`; where what follows belongs.
    fn header(&mut self, root: &mut Table) -> Read<Vec<String>> {
        self.expect('[')?;
        let is_list = self.take_if('[');
        let path = self.key()?;
        self.expect(']')?;
        if !is_list {
            descend(root, &path)?;
            return Ok(path);
        }
        self.expect(']')?;
        let (last, above) = path.split_last().ok_or("a header without a name")?;
        let table = descend(root, above)?;
        match table.entry(last, Value::List(Vec::new())) {
            Value::List(list) => list.push(Value::Table(Table::default())),
            _ => return Err(format!("`{last}` is no list")),
        }
        Ok(path)
    }

    fn pair(&mut self, table: &mut Table) -> Read<()> {
        let path = self.key()?;
        self.expect('=')?;
        self.blanks();
        let value = self.value()?;
        let (last, above) = path.split_last().ok_or("a value without a name")?;
        let table = descend(table, above)?;
        if table.get(last).is_some() {
            return Err(format!("`{last}` is there twice"));
        }
        table.0.push((last.clone(), value));
        Ok(())
    }

    /// `a."b c".d`
    fn key(&mut self) -> Read<Vec<String>> {
        let mut path = Vec::new();
        loop {
            self.blanks();
            path.push(match self.peek() {
                Some('"') => self.basic()?,
                Some('\'') => self.literal()?,
                _ => {
                    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    self.while_some(is_bare)
                }
            });
            if path.last().is_some_and(String::is_empty) {
                return Err("a name is expected".to_owned());
            }
            self.blanks();
            if !self.take_if('.') {
                return Ok(path);
            }
        }
    }

    fn value(&mut self) -> Read<Value> {
        match self.peek() {
            Some('"') if self.ahead("\"\"\"") => self.basic_lines().map(Value::Text),
            Some('\'') if self.ahead("'''") => self.literal_lines().map(Value::Text),
            Some('"') => self.basic().map(Value::Text),
            Some('\'') => self.literal().map(Value::Text),
            Some('[') => self.list(),
            Some('{') => self.inline_table(),
            _ => self.plain(),
        }
    }

    fn plain(&mut self) -> Read<Value> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+-_.:".contains(c);
        let text = self.while_some(is_part);
        let is_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-');
        if is_number || ["true", "false", "inf", "nan"].contains(&&*text) {
            return Ok(Value::Plain(text));
        }
        Err("a value is expected".to_owned())
    }

    fn list(&mut self) -> Read<Value> {
        self.expect('[')?;
        let mut list = Vec::new();
        loop {
            self.blank_lines();
            if self.take_if(']') {
                return Ok(Value::List(list));
            }
            list.push(self.value()?);
            self.blank_lines();
            if !self.take_if(',') && self.peek() != Some(']') {
                return Err("a comma or the end of a list is expected".to_owned());
            }
        }
    }

    fn inline_table(&mut self) -> Read<Value> {
        self.expect('{')?;
        let mut table = Table::default();
        loop {
            self.blank_lines();
            if self.take_if('}') {
                return Ok(Value::Table(table));
            }
            self.pair(&mut table)?;
            self.blank_lines();
            if !self.take_if(',') && self.peek() != Some('}') {
                return Err("a comma or the end of a table is expected".to_owned());
            }
        }
    }

    fn literal(&mut self) -> Read<String> {
        self.expect('\'')?;
        let text = self.while_some(|c| c != '\'' && c != '\n');
        self.expect('\'')?;
        Ok(text)
    }

    fn literal_lines(&mut self) -> Read<String> {
        self.quotes(3);
        self.first_line_end();
        let mut text = String::new();
        loop {
            if self.ahead("'''") {
                return Ok(self.closing('\'', text));
            }
            text.push(self.next().ok_or("a text has no end")?);
        }
    }

    fn basic(&mut self) -> Read<String> {
        self.expect('"')?;
        let mut text = String::new();
        while let Some(c) = self.rest.next_if(|(_, c)| *c != '\n').map(|(_, c)| c) {
            match c {
                '"' => return Ok(text),
                '\\' => text.extend(self.escape()?),
                other => text.push(other),
            }
        }
        Err("a text has no end".to_owned())
    }

    fn basic_lines(&mut self) -> Read<String> {
        self.quotes(3);
        self.first_line_end();
        let mut text = String::new();
        loop {
            if self.ahead("\"\"\"") {
                return Ok(self.closing('"', text));
            }
            match self.next().ok_or("a text has no end")? {
                '\\' => text.extend(self.escape()?),
                other => text.push(other),
            }
        }
    }

    /// What stands behind a backslash; nothing where it joins two lines.
    fn escape(&mut self) -> Read<Option<char>> {
        let character = match self.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('e') => '\u{1b}',
            Some('x') => self.code(2)?,
            Some('u') => self.code(4)?,
            Some('U') => self.code(8)?,
            Some(same @ ('"' | '\\')) => same,
            Some(blank) if blank.is_whitespace() => {
                self.while_some(char::is_whitespace);
                return Ok(None);
            }
            _ => return Err("an unknown escape".to_owned()),
        };
        Ok(Some(character))
    }

    fn code(&mut self, digits: usize) -> Read<char> {
        let text: String = (0..digits).filter_map(|_| self.next()).collect();
        let number = u32::from_str_radix(&text, 16).ok();
        number
            .and_then(char::from_u32)
            .ok_or_else(|| "no such character".to_owned())
    }

    /// Up to two quotes may stand before the three that close a text.
    fn closing(&mut self, quote: char, mut text: String) -> String {
        let run = self.while_some(|c| c == quote);
        text.push_str(&run[3.min(run.len())..]);
        text
    }

    fn first_line_end(&mut self) {
        self.take_if('\r');
        self.take_if('\n');
    }

    fn quotes(&mut self, count: usize) {
        for _ in 0..count {
            self.next();
        }
    }

    fn end_of_line(&mut self) -> Read<()> {
        self.blanks();
        self.comment();
        self.take_if('\r');
        match self.next() {
            None | Some('\n') => Ok(()),
            Some(other) => Err(format!("{other:?} behind a value")),
        }
    }

    fn blank_lines(&mut self) {
        loop {
            let blanks = self.while_some(char::is_whitespace);
            if blanks.is_empty() && self.peek() != Some('#') {
                return;
            }
            self.comment();
        }
    }

    fn comment(&mut self) {
        if self.peek() == Some('#') {
            self.while_some(|c| c != '\n' && c != '\r');
        }
    }

    fn blanks(&mut self) {
        self.while_some(|c| c == ' ' || c == '\t');
    }

    fn while_some(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|&c| wanted(c)) {
            text.push(c);
            self.next();
        }
        text
    }

    fn expect(&mut self, wanted: char) -> Read<()> {
        if self.take_if(wanted) {
            return Ok(());
        }
        Err(format!("{wanted:?} is expected"))
    }

    fn take_if(&mut self, wanted: char) -> bool {
        self.rest.next_if(|(_, c)| *c == wanted).is_some()
    }

    fn ahead(&mut self, text: &str) -> bool {
        let at = self.rest.peek().map_or(self.source.len(), |(at, _)| *at);
        self.source[at..].starts_with(text)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        self.rest.next().map(|(_, c)| c)
    }
}

/// The table at a path, made where it is not there; of a list of tables the last one.
fn descend<'a>(root: &'a mut Table, path: &[String]) -> Read<&'a mut Table> {
    let mut table = root;
    for key in path {
        table = match table.entry(key, Value::Table(Table::default())) {
            Value::Table(inner) => inner,
            Value::List(list) => match list.last_mut() {
                Some(Value::Table(inner)) => inner,
                _ => return Err(format!("`{key}` holds no tables")),
            },
            _ => return Err(format!("`{key}` is no table")),
        };
    }
    Ok(table)
}
