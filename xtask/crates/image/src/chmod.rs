//! `--chmod`: an octal mode or, as newer `BuildKit` takes it, a symbolic one (`u=rwX,go=rX`).

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    Octal(u32),
    Symbolic(Vec<Clause>),
}

/// `go-w`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    who: u32,
    operator: char,
    permissions: String,
}

impl Chmod {
    /// Reads the value of `--chmod`; `None` when it is neither form.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.starts_with(|ch: char| ch.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok()?;
            return (mode <= 0o7777).then_some(Self::Octal(mode));
        }
        text.split(',')
            .map(clauses)
            .collect::<Option<Vec<_>>>()
            .map(|all| Self::Symbolic(all.concat()))
    }

    /// The mode that a file of this mode gets.
    pub(crate) fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => clauses
                .iter()
                .fold(mode, |mode, clause| clause.apply(mode, directory)),
        }
    }
}

/// One group of `who`, followed by one or more operators with their permissions: `u+r-w`.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let operators = ['+', '-', '='];
    let start = text.find(operators)?;
    let who = text[..start].chars().try_fold(0, |mask, ch| match ch {
        'u' => Some(mask | 0o4700),
        'g' => Some(mask | 0o2070),
        'o' => Some(mask | 0o1007),
        'a' => Some(0o7777),
        _ => None,
    })?;
    let who = if who == 0 { 0o7777 } else { who };
    let mut clauses = Vec::new();
    let mut rest = &text[start..];
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(operators).map_or(rest.len(), |at| at + 1);
        let permissions = rest[1..end].to_owned();
        if !permissions.chars().all(|ch| "rwxXstugo".contains(ch)) {
            return None;
        }
        clauses.push(Clause {
            who,
            operator,
            permissions,
        });
        rest = &rest[end..];
    }
    Some(clauses)
}

impl Clause {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let executable = directory || mode & 0o111 != 0;
        let bits = self
            .permissions
            .chars()
            .fold(0, |bits, ch| bits | bits_of(ch, mode, executable));
        let bits = bits & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !(self.who & 0o777)) | bits,
        }
    }
}

fn bits_of(permission: char, mode: u32, executable: bool) -> u32 {
    let spread = |bits: u32| bits * 0o111;
    match permission {
        'r' => 0o444,
        'w' => 0o222,
        'x' => 0o111,
        'X' if executable => 0o111,
        's' => 0o6000,
        't' => 0o1000,
        'u' => spread(mode >> 6 & 7),
        'g' => spread(mode >> 3 & 7),
        'o' => spread(mode & 7),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let check = |text: &str, mode: u32, directory: bool, expected: u32| {
            let found = Chmod::read(text).map(|chmod| chmod.apply(mode, directory));
            assert_eq!(found, Some(expected), "{text} on {mode:o}");
        };
        check("755", 0o644, false, 0o755);
        check("4755", 0o644, false, 0o4755);
        check("0", 0o644, false, 0);
        check("u=rwX,go=rX", 0o644, false, 0o644);
        check("u=rwX,go=rX", 0o644, true, 0o755);
        check("+x", 0o644, false, 0o755);
        check("go-w", 0o777, false, 0o755);
        check("g=u", 0o740, false, 0o770);
        check("u+s", 0o755, false, 0o4755);
        check("a=r", 0o755, false, 0o444);
        check("u+x-w", 0o644, false, 0o544);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "8", "77777", "rwx", "z+x", "u+z", "0x1"] {
            assert_eq!(Chmod::read(text), None, "{text}");
        }
    }
}
