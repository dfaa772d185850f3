//! Tables and times for people.

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};

/// A table without lines, as wide as its content.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    let text: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    format!("{}\n", text.join("\n"))
}

/// How long ago a moment was.
pub(crate) fn ago(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - moment).num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_ago() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        for (seconds, text) in [(5, "5 s ago"), (150, "2 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")] {
            assert_eq!(ago(at(0), at(seconds)), text);
        }
    }

    #[test]
    fn a_table_has_no_trailing_blanks() {
        let text = table(&["a", "long header"], vec![vec!["1".into(), "x".into()]]);
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
    }
}
