//! Which of a repository's tags are the latest ones. A tag has no time of its own; its numbers tell.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::reference::Tag;

/// The last `count` tags that are wanted, newest first; `wanted` is asked of each, and is shown all of them. Numbers
/// within tags compare as numbers, so that `deploy-<unix time>-<sha>` and `v1.10` sort by age.
pub fn latest_tags(
    all: &[Tag],
    count: usize,
    wanted: impl Fn(&str, &HashSet<&str>) -> bool,
) -> impl Iterator<Item = &Tag> {
    let names: HashSet<&str> = all.iter().map(Tag::as_str).collect();
    let wanted = all.iter().filter(|tag| wanted(tag.as_str(), &names));
    let mut tags: Vec<&Tag> = wanted.collect();
    tags.sort_by_cached_key(|tag| Reverse(natural_key(tag.as_str())));
    tags.into_iter().take(count)
}

/// Splits into words and numbers; a number is compared by its length without zeros, then its digits.
fn natural_key(text: &str) -> Vec<(usize, String)> {
    let mut parts: Vec<(usize, String)> = Vec::new();
    let mut digits = false;
    for character in text.chars() {
        if parts.is_empty() || digits != character.is_ascii_digit() {
            parts.push((0, String::new()));
        }
        digits = character.is_ascii_digit();
        if let Some((length, part)) = parts.last_mut() {
            if digits && part == "0" {
                part.clear();
            }
            part.push(character);
            *length = if digits { part.len() } else { 0 };
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_sort_by_their_numbers() {
        let mut tags = vec![
            "v1.10",
            "v1.9",
            "deploy-1700000000-a",
            "v1.2",
            "deploy-999999999-b",
        ];
        tags.sort_by_key(|tag| natural_key(tag));
        assert_eq!(
            tags,
            [
                "deploy-999999999-b",
                "deploy-1700000000-a",
                "v1.2",
                "v1.9",
                "v1.10"
            ]
        );
        assert!(natural_key("a007") < natural_key("a8"));
    }

    #[test]
    fn the_latest_come_first_and_only_what_is_wanted() {
        let all = ["v9", "v10", "v8", "x11"].map(|tag| tag.parse::<Tag>().unwrap());
        let wanted = |tag: &str, all: &HashSet<&str>| tag.starts_with('v') && all.contains("x11");
        let latest: Vec<&str> = latest_tags(&all, 2, wanted).map(Tag::as_str).collect();
        assert_eq!(latest, ["v10", "v9"]);
    }
}
