//! Names and numbers of users and groups: `--chown`, `USER`, and the passwd and group files that
//! give the names a meaning.

use crate::files::Owner;

/// Why an owner is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// A user's name, and no passwd file that has it.
    #[error("the user {0} is not in the image's /etc/passwd, as far as that is known here")]
    User(String),
    /// A group's name, and no group file that has it.
    #[error("the group {0} is not in the image's /etc/group, as far as that is known here")]
    Group(String),
    /// A name, and an image that cannot be looked into.
    #[error("whether {0} is a user of the base image cannot be told: {1}")]
    Unreadable(String, String),
}

/// The contents of `/etc/passwd` and `/etc/group`, empty where they are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// `/etc/passwd`
    pub passwd: String,
    /// `/etc/group`
    pub group: String,
}

impl Accounts {
    /// The numbers behind `user[:group]`. As in `BuildKit`: a number without a group is the group's
    /// number too, a name without a group brings the group of its passwd entry.
    pub fn owner(&self, text: &str) -> Result<Owner, OwnerError> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let mut owner = self.user(user)?;
        if !group.is_empty() {
            owner.group = self.group(group)?;
        }
        Ok(owner)
    }

    fn user(&self, name: &str) -> Result<Owner, OwnerError> {
        if name.is_empty() {
            return Ok(Owner::default());
        }
        if let Ok(number) = name.parse() {
            return Ok(Owner {
                user: number,
                group: number,
            });
        }
        let entry = entry(&self.passwd, name);
        let numbers = entry.and_then(|fields| Some((number(&fields, 2)?, number(&fields, 3)?)));
        let (user, group) = numbers.ok_or_else(|| OwnerError::User(name.to_owned()))?;
        Ok(Owner { user, group })
    }

    fn group(&self, name: &str) -> Result<u32, OwnerError> {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        let found = entry(&self.group, name).and_then(|fields| number(&fields, 2));
        found.ok_or_else(|| OwnerError::Group(name.to_owned()))
    }
}

fn entry<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let fields = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields
        .into_iter()
        .find(|fields| fields.first() == Some(&name))
}

fn number(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        let accounts = Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/app:/bin/false\n".into(),
            group: "root:x:0:\nstaff:x:50:\n".into(),
        };
        let check = |text: &str, user: u32, group: u32| {
            assert_eq!(accounts.owner(text), Ok(Owner { user, group }), "{text}");
        };
        check("1000", 1000, 1000);
        check("1000:50", 1000, 50);
        check("app", 1000, 1001);
        check("app:staff", 1000, 50);
        check("app:7", 1000, 7);
        check("0:0", 0, 0);
        check(":50", 0, 50);
        check("1000:", 1000, 1000);
        assert_eq!(accounts.owner("bob"), Err(OwnerError::User("bob".into())));
        assert_eq!(
            accounts.owner("app:bob"),
            Err(OwnerError::Group("bob".into()))
        );
    }
}
