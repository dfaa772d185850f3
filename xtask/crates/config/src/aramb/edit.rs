//! Changes single values and nothing else: the text between them stays as it is, byte for byte.

use std::fmt::Write as _;

use deploy_plan::aramb::Value;

/// A value cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text is not the one that the value was read from.
    #[error("the file is not the one that was read")]
    OtherFile,
    /// Two changes of one value.
    #[error("one value is to be changed twice")]
    Twice,
}

/// The text with each of these values replaced by a text of its own. Quotes stay what they are where they can.
///
/// # Errors
///
/// When the values are not of this text, or one is changed twice.
pub fn replace(source: &str, changes: &[(&Value, &str)]) -> Result<String, EditError> {
    let mut changes: Vec<_> = changes.iter().collect();
    changes.sort_by_key(|(value, _)| value.span.start);
    let mut out = String::with_capacity(source.len());
    let mut copied = 0;
    for (value, text) in changes {
        if value.span.start < copied {
            return Err(EditError::Twice);
        }
        let written = source.get(value.span.clone()).ok_or(EditError::OtherFile)?;
        if !written.starts_with(['"', '\'']) {
            return Err(EditError::OtherFile);
        }
        out.push_str(&source[copied..value.span.start]);
        write_text(&mut out, text, written.starts_with('\''));
        copied = value.span.end;
    }
    out.push_str(&source[copied..]);
    Ok(out)
}

fn write_text(out: &mut String, text: &str, is_literal: bool) {
    let fits = !text.contains('\'') && !text.contains(|c: char| c.is_control() && c != '\t');
    if is_literal && fits {
        out.extend(["'", text, "'"]);
        return;
    }
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other if other.is_control() => {
                // Writing to a text cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(other));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
