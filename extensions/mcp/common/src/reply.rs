//! What a tool answers: structured content with a text beside it, or an error that says what to
//! do now.

use std::fmt::Display;
use std::sync::Arc;

use rmcp::ErrorData;
use rmcp::handler::server::tool::{IntoCallToolResult, schema_for_output};
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, JsonObject};
use schemars::JsonSchema;
use serde::Serialize;

/// A successful answer. The text says the same as the value, for clients that show only text.
#[derive(Debug, Clone)]
pub struct Reply<T> {
    /// For people and models.
    pub text: String,
    /// For programs; its schema is announced with the tool.
    pub value: T,
}

impl<T> Reply<T> {
    /// An answer of a text and the value it describes.
    pub fn new(text: impl Into<String>, value: T) -> Self {
        Self {
            text: text.into(),
            value,
        }
    }
}

impl<T: Serialize> IntoCallToolResult for Reply<T> {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        let value = serde_json::to_value(self.value).map_err(|e| {
            ErrorData::internal_error(format!("cannot write the answer: {e}"), None)
        })?;
        let mut result = CallToolResult::structured(value);
        result.content = vec![ContentBlock::text(self.text)];
        Ok(result.into())
    }
}

/// The schema of a tool's structured answer, for `#[tool(output_schema = …)]`.
#[must_use]
pub fn output_schema<T: JsonSchema + 'static>() -> Arc<JsonObject> {
    schema_for_output::<T>()
}

/// A failed call: what failed, and what to do now. It reaches the model as a tool error (not as a
/// protocol error), so that it can correct itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolError {
    what: String,
    next: Option<String>,
}

impl ToolError {
    /// An error that speaks for itself.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            next: None,
        }
    }

    /// An argument that cannot be used.
    pub fn argument(name: &str, why: impl Display) -> Self {
        Self::new(format!("`{name}` {why}"))
    }

    /// Adds what to do now: one call, one command or one setting.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }
}

impl Display for ToolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        match &self.next {
            Some(next) => write!(f, "\nnext: {next}"),
            None => Ok(()),
        }
    }
}

impl IntoCallToolResult for ToolError {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        Ok(CallToolResult::error(vec![ContentBlock::text(self.to_string())]).into())
    }
}

/// Refuses text that is empty, longer than `max` bytes, or holds control characters: no argument
/// of any tool needs them, and they could forge lines in logs and answers.
pub fn bounded(name: &str, text: &str, max: usize) -> Result<(), ToolError> {
    if text.trim().is_empty() {
        return Err(ToolError::argument(name, "is empty"));
    }
    if text.len() > max {
        return Err(ToolError::argument(
            name,
            format!("is longer than {max} bytes"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(ToolError::argument(name, "holds control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_now() {
        let error = ToolError::argument("pid", "is 0").next("pass a pid of `processes`");
        assert_eq!(
            error.to_string(),
            "`pid` is 0\nnext: pass a pid of `processes`"
        );
    }

    #[test]
    fn text_is_bounded() {
        assert!(bounded("a", "text", 4).is_ok());
        for bad in ["", "  ", "longer", "a\nb", "a\u{1b}"] {
            assert!(bounded("a", bad, 4).is_err(), "{bad:?}");
        }
    }
}
