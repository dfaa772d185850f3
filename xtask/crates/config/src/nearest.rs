//! The word that somebody most likely meant.

use strsim::osa_distance;

/// The known word closest to `word`, if one is close enough to be a slip of the fingers: at most a
/// third of its letters inserted, left out, replaced or swapped with their neighbour.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    let word = folded(word);
    known
        .into_iter()
        .map(|candidate| (osa_distance(&word, &folded(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters are compared without regard to case, and `-` is equal to `_`.
fn folded(word: &str) -> String {
    word.to_ascii_lowercase().replace('-', "_")
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
