//! Names of user ids, from `/etc/passwd` only: a directory service could block.

use std::collections::HashMap;

pub(crate) struct Users(HashMap<u32, String>);

impl Users {
    pub(crate) fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/passwd").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let id = fields.nth(1)?.parse().ok()?;
            Some((id, name))
        };
        Self(text.lines().filter_map(entry).collect())
    }

    pub(crate) fn name(&self, id: u32) -> Option<String> {
        self.0.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_broken_lines_passed_over() {
        let users = Users::parse("root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1000::/:/x\n");
        assert_eq!(users.name(1000).as_deref(), Some("app"));
        assert_eq!(users.name(7), None);
    }
}
