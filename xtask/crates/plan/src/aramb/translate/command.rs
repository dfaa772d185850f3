//! `cmd` as arguments. A shell runs it only where it needs one: images without any have none.

/// What the platform puts its port in place of.
const PORT: &str = "${PORT}";

/// The words of a command, or a shell that runs it.
pub(super) fn words(cmd: &str) -> Vec<String> {
    plain(cmd).unwrap_or_else(|| ["sh", "-c", cmd.trim()].map(str::to_owned).to_vec())
}

/// The words of a command that means the same without a shell.
pub(super) fn plain(cmd: &str) -> Option<Vec<String>> {
    let words: Vec<String> = cmd.split_ascii_whitespace().map(with_port).collect();
    let first = words.first()?;
    // Before a program, this sets a variable.
    if first.contains('=') || !words.iter().all(|word| is_plain(word)) {
        return None;
    }
    Some(words)
}

/// With `$PORT` in the one spelling that the platform knows.
fn with_port(word: &str) -> String {
    const SHORT: &str = "$PORT";
    let mut whole = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once(SHORT) {
        whole.push_str(before);
        let is_longer = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        whole.push_str(if is_longer { SHORT } else { PORT });
        rest = after;
    }
    whole + rest
}

fn is_plain(word: &str) -> bool {
    let word = word.replace(PORT, "");
    // Not `~`, which a shell replaces at the beginning of words.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:=@%+,-^".contains(c);
    word.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_for_what_needs_one() {
        for (cmd, expected) in [
            ("npm start", &["npm", "start"][..]),
            ("  ./server  --level=2 ", &["./server", "--level=2"]),
            ("serve -p ${PORT}", &["serve", "-p", "${PORT}"]),
            ("serve -p $PORT", &["serve", "-p", "${PORT}"]),
            ("serve 0.0.0.0:$PORT/x", &["serve", "0.0.0.0:${PORT}/x"]),
            ("serve $PORTS", &["sh", "-c", "serve $PORTS"]),
            ("a && b", &["sh", "-c", "a && b"]),
            ("A=1 b", &["sh", "-c", "A=1 b"]),
            ("echo 'x y'", &["sh", "-c", "echo 'x y'"]),
            ("echo $HOME", &["sh", "-c", "echo $HOME"]),
            ("echo ${HOME:-x}", &["sh", "-c", "echo ${HOME:-x}"]),
            ("ls *.txt", &["sh", "-c", "ls *.txt"]),
            ("ls ~", &["sh", "-c", "ls ~"]),
            ("echo é", &["sh", "-c", "echo é"]),
        ] {
            assert_eq!(words(cmd), expected, "{cmd}");
        }
    }
}
