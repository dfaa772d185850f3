//! Who a program of an image runs as: `USER` looked up in the accounts of the image itself.

use std::fs;
use std::io;
use std::path::Path;

use super::rootpath;

/// The largest account file that is read.
const MAX_ACCOUNTS: u64 = 1 << 20;

/// A user in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Further groups that `/etc/group` puts the user in.
    pub(crate) groups: Vec<u32>,
    /// The home directory, when the account has one.
    pub(crate) home: Option<String>,
}

/// No account of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user `{user}` not found in the image")]
pub(crate) struct UserNotFound {
    pub(crate) user: String,
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves `name`, `uid`, `name:group` and `uid:gid` as Docker does; empty is root. A number
/// needs no account; a user without one has group 0. A group that is given replaces all others.
pub(crate) fn resolve(root: &Path, user: &str) -> Result<User, UserNotFound> {
    let not_found = || UserNotFound {
        user: user.to_owned(),
    };
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let groups = groups(root);
    let mut found = match (account(root, name), name.parse().ok().and_then(usable)) {
        (Some(account), _) => with_account(&account, &groups),
        (None, Some(uid)) => User {
            uid,
            gid: 0,
            groups: Vec::new(),
            home: None,
        },
        (None, None) => return Err(not_found()),
    };
    if let Some(group) = group {
        let named = groups
            .iter()
            .find(|entry| entry.name == group)
            .map(|entry| entry.gid);
        let gid = named.or_else(|| group.parse().ok().and_then(usable));
        found.gid = gid.ok_or_else(not_found)?;
        found.groups.clear();
    }
    Ok(found)
}

/// `u32::MAX` means "leave as it is" to the system, never a user.
fn usable(id: u32) -> Option<u32> {
    (id != u32::MAX).then_some(id)
}

fn with_account(account: &Account, groups: &[Group]) -> User {
    let of_user = groups
        .iter()
        .filter(|group| group.members.contains(&account.name));
    let further = of_user
        .map(|group| group.gid)
        .filter(|gid| *gid != account.gid);
    User {
        uid: account.uid,
        gid: account.gid,
        groups: further.collect(),
        home: Some(account.home.clone()).filter(|home| home.starts_with('/')),
    }
}

/// By name first, then by number, as Docker looks: an account may be named `1000`.
fn account(root: &Path, name: &str) -> Option<Account> {
    let text = read(root, "/etc/passwd").unwrap_or_default();
    let accounts: Vec<Account> = text.lines().filter_map(parse_account).collect();
    let number: Option<u32> = name.parse().ok();
    let position = accounts
        .iter()
        .position(|account| account.name == name)
        .or_else(|| {
            accounts
                .iter()
                .position(|account| Some(account.uid) == number)
        })?;
    accounts.into_iter().nth(position)
}

fn parse_account(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else {
        return None;
    };
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok().and_then(usable)?,
        gid: gid.parse().ok().and_then(usable)?,
        home: home.to_owned(),
    })
}

fn groups(root: &Path) -> Vec<Group> {
    let text = read(root, "/etc/group").unwrap_or_default();
    text.lines().filter_map(parse_group).collect()
}

fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else {
        return None;
    };
    Some(Group {
        name: name.to_owned(),
        gid: gid.parse().ok().and_then(usable)?,
        members: members
            .split(',')
            .map(|member| member.trim().to_owned())
            .collect(),
    })
}

fn read(root: &Path, path: &str) -> io::Result<String> {
    let place = rootpath::existing(root, Path::new(path)).ok_or(io::ErrorKind::NotFound)?;
    let found = fs::metadata(&place)?;
    if !found.is_file() || found.len() > MAX_ACCOUNTS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(String::from_utf8_lossy(&fs::read(&place)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002::/home/app:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\napp:x:1002:app\n";

    fn check(user: &str, expected: Option<(u32, u32, &[u32], Option<&str>)>) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), PASSWD).unwrap();
        fs::write(root.path().join("etc/group"), GROUP).unwrap();
        let found = resolve(root.path(), user).ok();
        let found = found.as_ref().map(|user| {
            (
                user.uid,
                user.gid,
                user.groups.as_slice(),
                user.home.as_deref(),
            )
        });
        assert_eq!(found, expected, "{user}");
    }

    #[test]
    fn users_are_looked_up_in_the_image() {
        check("", Some((0, 0, &[], Some("/root"))));
        check("app", Some((1001, 1002, &[50], Some("/home/app"))));
        check("1001", Some((1001, 1002, &[50], Some("/home/app"))));
        check("app:staff", Some((1001, 50, &[], Some("/home/app"))));
        check("4000", Some((4000, 0, &[], None)));
        check("4000:4001", Some((4000, 4001, &[], None)));
        check("nobody-here", None);
        check("app:no-group", None);
        check("4294967295", None);
    }

    #[test]
    fn an_image_without_accounts_has_numbers_only() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(resolve(root.path(), "7").unwrap().uid, 7);
        assert_eq!(resolve(root.path(), "").unwrap().home, None);
        assert!(resolve(root.path(), "app").is_err());
    }
}
