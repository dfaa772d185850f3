//! What the command line and the process environment say.

use std::collections::BTreeMap;

use serde_json::Value;

/// Values that are stronger than any file: options of the command line and environment variables.
#[derive(Clone, Default)]
pub struct Overrides {
    /// The option and the name it gives.
    pub(crate) environment: Option<(String, String)>,
    pub(crate) flags: Vec<(String, Flag)>,
    pub(crate) variables: BTreeMap<String, String>,
}

/// An option as it was typed, with its value.
#[derive(Clone)]
pub(crate) struct Flag {
    pub(crate) name: String,
    pub(crate) value: Value,
}

impl Overrides {
    /// Starts with the process environment. Variables whose names do not begin with
    /// `SYSTEMPROMPT_`, or that belong to no key, play no role.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            variables: variables.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The environment chosen by the option `flag`.
    pub fn environment(&mut self, flag: impl Into<String>, name: impl Into<String>) -> &mut Self {
        self.environment = Some((flag.into(), name.into()));
        self
    }

    /// Sets `key` (as in `deploy.timeout`) to what the option `flag` says. A text is read as the
    /// key's type asks: `true`, `3`, `a,b`. The last option that sets a key wins.
    pub fn set(
        &mut self,
        flag: impl Into<String>,
        key: impl Into<String>,
        value: impl Into<Value>,
    ) -> &mut Self {
        let flag = Flag {
            name: flag.into(),
            value: value.into(),
        };
        self.flags.push((key.into(), flag));
        self
    }

    /// As [`set`](Self::set), where the option was given at all.
    pub fn set_some(
        &mut self,
        flag: impl Into<String>,
        key: impl Into<String>,
        value: Option<impl Into<Value>>,
    ) -> &mut Self {
        if let Some(value) = value {
            self.set(flag, key, value);
        }
        self
    }
}
