//! The `--flags` of one instruction, taken one after the other; what is left over is unknown.

use super::error::Problem;

pub(super) struct Flags(Vec<(String, Option<String>)>);

impl Flags {
    pub(super) fn new(flags: Vec<(String, Option<String>)>) -> Self {
        Self(flags)
    }

    /// The value of a flag that may stand once.
    pub(super) fn value(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.values(name)?;
        if values.len() > 1 {
            let reason = "it may stand only once";
            return Err(Problem::Flag {
                flag: name.to_owned(),
                reason,
            });
        }
        Ok(values.pop())
    }

    /// The values of a flag that may stand many times.
    pub(super) fn values(&mut self, name: &str) -> Result<Vec<String>, Problem> {
        let (taken, kept) = self.0.drain(..).partition(|(flag, _)| flag == name);
        self.0 = kept;
        let taken: Vec<(String, Option<String>)> = taken;
        let missing = || Problem::Flag {
            flag: name.to_owned(),
            reason: "it needs a value",
        };
        taken
            .into_iter()
            .map(|(_, value)| value.ok_or_else(missing))
            .collect()
    }

    /// A flag that is set by standing there, or by `=true`.
    pub(super) fn switch(&mut self, name: &str) -> Result<bool, Problem> {
        for (flag, value) in &mut self.0 {
            if flag == name {
                value.get_or_insert_with(|| "true".to_owned());
            }
        }
        match self.value(name)?.as_deref() {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(Problem::Flag {
                flag: name.to_owned(),
                reason: "it is true or false",
            }),
        }
    }

    /// Refuses whatever nobody asked for.
    pub(super) fn finish(self, instruction: &'static str) -> Result<(), Problem> {
        match self.0.into_iter().next() {
            Some((flag, _)) => Err(Problem::UnknownFlag { instruction, flag }),
            None => Ok(()),
        }
    }
}
