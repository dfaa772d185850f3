//! The word that somebody most likely meant.

/// The known word closest to `word`, if one is close enough to be a slip of the fingers: at most a
/// third of its letters inserted, left out, replaced or swapped with their neighbour.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Damerau's distance in its restricted form (optimal string alignment), letters compared without
/// regard to case and `-` equal to `_`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().map(fold).collect();
    let b: Vec<char> = b.chars().map(fold).collect();
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

fn fold(letter: char) -> char {
    match letter {
        '-' => '_',
        _ => letter.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, expected: Option<&str>) {
        let known = ["timeout", "strategy", "require_env", "url", "wait"];
        assert_eq!(nearest(word, known), expected, "{word}");
    }

    #[test]
    fn slips() {
        check("timout", Some("timeout"));
        check("tiemout", Some("timeout"));
        check("Require-Env", Some("require_env"));
        check("ulr", Some("url"));
        check("wiat", Some("wait"));
        check("kubernetes", None);
        check("", None);
    }

    #[test]
    fn the_closest_of_several() {
        assert_eq!(nearest("pord", ["port", "prod", "word"]), Some("port"));
        assert_eq!(nearest("prodd", ["port", "prod"]), Some("prod"));
    }
}
