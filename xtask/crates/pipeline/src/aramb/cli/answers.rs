//! What the command answers: documents, or documents behind lines of progress, or words.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a call has said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// How it has ended, in words.
    pub(super) ended: String,
    /// It has ended with 0.
    pub(super) is_good: bool,
    /// Its standard output.
    pub(super) output: String,
    /// The last lines of both outputs.
    pub(super) last: Vec<String>,
}

impl Said {
    /// The document that it answers: the last that has a text of this name.
    pub(super) fn json(&self, key: &str) -> Option<Value> {
        let has = |document: &Value| document.get(key).is_some_and(Value::is_string);
        documents(&self.output).into_iter().rfind(has)
    }

    /// Its last words, and how it ended where that is no good.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = self.last.clone();
        if !self.is_good {
            words.push(self.ended.clone());
        }
        words
    }

    /// All that can be known of what it said.
    pub(super) fn everything(&self) -> String {
        // A help may be on either output; what is short is among the last lines whole.
        format!("{}\n{}", self.output, self.last.join("\n"))
    }

    /// It says of any service that it failed, on either output, whatever it ended with.
    pub(super) fn tells_failure(&self) -> bool {
        let lines = self.output.lines();
        let lines = lines.chain(self.last.iter().map(String::as_str));
        lines.filter_map(word_in).any(|word| is_bad(&word))
    }
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It is well, and this is what it tells.
    Healthy(BTreeMap<String, String>),
    /// It is not and will not be: in which word, and what else is said.
    Failed(String, Vec<String>),
    /// It is on its way.
    OnItsWay(String),
    /// Nobody could tell.
    Unknown(Vec<String>),
}

/// Reads an answer about a service.
pub(super) fn status(said: &Result<Said, String>) -> State {
    let said = match said {
        Ok(said) => said,
        Err(error) => return State::Unknown(vec![error.clone()]),
    };
    let document = said.json("status");
    let in_document = document
        .as_ref()
        .and_then(|answer| answer.get("status")?.as_str().map(str::to_owned));
    // Some failures are told in words where a document was asked for.
    let Some(word) = in_document.or_else(|| word_of(&said.output)) else {
        return State::Unknown(said.words());
    };
    let lower = word.to_ascii_lowercase();
    if is_bad(&lower) {
        return State::Failed(word, reasons(document.as_ref(), said));
    }
    if !said.is_good {
        return State::Unknown(said.words());
    }
    if lower == "healthy" || lower == "completed" {
        return State::Healthy(document.as_ref().map(outputs).unwrap_or_default());
    }
    State::OnItsWay(word)
}

fn is_bad(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    [
        "failed",
        "failure",
        "error",
        "unhealthy",
        "crashed",
        "cancelled",
        "canceled",
        "rolled_back",
    ]
    .contains(&word.as_str())
}

/// Why, in the command's own words.
fn reasons(document: Option<&Value>, said: &Said) -> Vec<String> {
    let named = ["message", "error", "reason"]
        .into_iter()
        .filter_map(|key| {
            let value = document?.get(key)?;
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            (!text.is_empty() && !value.is_null()).then_some(text)
        });
    let named: Vec<_> = named.collect();
    if named.is_empty() {
        said.words()
    } else {
        named
    }
}

fn word_of(output: &str) -> Option<String> {
    output.lines().find_map(word_in)
}

/// The word of a line like `Status: Failed`.
fn word_in(line: &str) -> Option<String> {
    let (key, word) = line.split_once(':')?;
    let word = word.split_whitespace().next()?;
    key.trim()
        .eq_ignore_ascii_case("status")
        .then(|| word.trim_matches(['"', ',', '.']).to_owned())
}

fn outputs(document: &Value) -> BTreeMap<String, String> {
    let outputs = document.get("outputs").and_then(Value::as_object);
    let outputs = outputs.into_iter().flatten();
    outputs
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// What a build has called its image, where it tells.
pub(super) fn image_url(output: &str) -> Option<String> {
    let documents = documents(output);
    documents.iter().rev().find_map(|document| {
        let image = document.get("IMAGE_URL");
        let image = image.or_else(|| document.get("outputs")?.get("IMAGE_URL"));
        let image = image?.as_str()?.trim();
        (!image.is_empty()).then(|| image.to_owned())
    })
}

/// The documents in an output: the whole of it, or what begins in a line of its own. Each byte is looked at a bounded number
/// of times, however many braces there are.
fn documents(output: &str) -> Vec<Value> {
    const MOST: usize = 64;
    match serde_json::from_str(output) {
        // A list of what was asked for, which is one.
        Ok(Value::Array(list)) if list.len() == 1 => return list,
        Ok(whole) => return vec![whole],
        Err(_) => {}
    }
    let mut documents = Vec::new();
    let mut begins: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in output.split_inclusive('\n') {
        if line.trim_start().starts_with('{') {
            begins.push(at);
        }
        at += line.len();
    }
    // What is asked for comes last.
    let begins = &begins[begins.len().saturating_sub(MOST)..];
    let mut end = 0;
    for &begin in begins {
        if begin < end {
            continue;
        }
        let mut stream = serde_json::Deserializer::from_str(&output[begin..]).into_iter::<Value>();
        if let Some(Ok(document)) = stream.next() {
            end = begin + stream.byte_offset();
            documents.push(document);
        }
    }
    documents
}

/// Whether a text can be part of an image's name.
pub(super) fn is_slug(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(is_plain)
        && text.ends_with(is_plain)
        && text.chars().all(|c| is_plain(c) || "-._/".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(output: &str) -> Said {
        Said {
            ended: "exit status: 0".to_owned(),
            is_good: true,
            output: output.to_owned(),
            last: output.lines().map(str::to_owned).collect(),
        }
    }

    fn check(output: &str, expected: &str) {
        assert_eq!(
            format!("{:?}", status(&Ok(said(output)))),
            expected,
            "{output}"
        );
    }

    #[test]
    fn states_are_told_in_documents_and_in_words() {
        check(
            r#"{"service":"a","status":"healthy","outputs":{"PUBLIC_URL":"https://a","N":1,"E":""}}"#,
            r#"Healthy({"PUBLIC_URL": "https://a"})"#,
        );
        check(r#"{"status":"Completed"}"#, "Healthy({})");
        check(
            "checking\n{\n \"status\": \"deploying\"\n}\n",
            r#"OnItsWay("deploying")"#,
        );
        check(
            r#"{"status":"failed","message":"no such image","error":null}"#,
            r#"Failed("failed", ["no such image"])"#,
        );
        check(
            "Status: Failed\nReason: it crashed",
            r#"Failed("Failed", ["Status: Failed", "Reason: it crashed"])"#,
        );
        check(
            "{\"status\":\"deploying\"}\n{\"status\":\"failed\"}\n{\"level\":\"info\"}\n{}\n",
            r#"Failed("failed", ["{\"status\":\"deploying\"}", "{\"status\":\"failed\"}", "{\"level\":\"info\"}", "{}"])"#,
        );
        check(
            r#"[{"service":"a","status":"error","message":"no"}]"#,
            r#"Failed("error", ["no"])"#,
        );
        check("{\"status\": \"hea", r#"Unknown(["{\"status\": \"hea"])"#);
        check("null", r#"Unknown(["null"])"#);
        check("", "Unknown([])");
    }

    #[test]
    fn a_bad_end_is_no_answer_unless_it_tells_a_failure() {
        let mut bad = said(r#"{"status":"healthy"}"#);
        bad.is_good = false;
        bad.ended = "exit status: 1".to_owned();
        assert!(matches!(status(&Ok(bad.clone())), State::Unknown(_)));
        bad.output = "Status: Failed".to_owned();
        assert!(matches!(status(&Ok(bad)), State::Failed(..)));
        let error = Err("it did not end within 60 s".to_owned());
        assert!(matches!(status(&error), State::Unknown(_)));
    }

    #[test]
    fn one_service_that_failed_is_a_failure() {
        let first = said("db\n Status: Created\napi\n Status: Failed\n");
        assert!(first.tells_failure());
        let mut second = said("db\n Status: Created\n");
        assert!(!second.tells_failure());
        // On the other output.
        second.last.push("status: failed, no quota".to_owned());
        assert!(second.tells_failure());
    }

    #[test]
    fn an_image_is_found_behind_lines_of_progress() {
        let output = "#1 {x}\n{\"step\":1}\n#2 done\n{\"IMAGE_URL\": \"r/a:1\"}\nbye\n";
        assert_eq!(image_url(output), Some("r/a:1".to_owned()));
        assert_eq!(image_url("{\"IMAGE_URL\": \"\"}"), None);
        assert_eq!(image_url("Built my-app/api:abc"), None);
        let nested = r#"{"outputs":{"IMAGE_URL":"r/b:2"}}"#;
        assert_eq!(image_url(nested), Some("r/b:2".to_owned()));
    }

    #[test]
    fn many_braces_cost_little() {
        let output = "{\n".repeat(200_000);
        assert_eq!(documents(&output), Vec::<Value>::new());
    }

    #[test]
    fn slugs() {
        assert!(is_slug("my-app"));
        assert!(is_slug("org/my.app_1"));
        for bad in ["", "My", "-a", "a b", "a\n", "$(x)"] {
            assert!(!is_slug(bad), "{bad}");
        }
    }
}
