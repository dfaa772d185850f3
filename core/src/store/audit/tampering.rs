//! Whatever is done to one row of a chain, the check names the first row that is not as it was written.

use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::json;

use super::{Action, Actor, Broken, Entry, append, check};
use crate::store::lease::Fence;
use crate::store::migrations;
use crate::store::sql::{Connection, Mode, Transaction};

/// Every column but the number, and a value that no row has.
const CHANGES: [(&str, &str); 11] = [
    ("at", "at + 1"),
    ("action", "action || 'x'"),
    ("tenant", "CASE WHEN tenant IS NULL THEN '' ELSE NULL END"),
    ("deployment", "COALESCE(deployment, -1) + 1"),
    ("actor", "''"),
    (
        "token",
        "CASE WHEN token IS NULL THEN 'x' ELSE token || 'x' END",
    ),
    ("role", "COALESCE(role, '') || 'x'"),
    ("address", "COALESCE(address, '') || '1'"),
    ("details", "replace(details, '{', '{ ')"),
    ("previous", "randomblob(32)"),
    ("hash", "randomblob(32)"),
];

#[derive(Debug, Clone)]
enum Tampering {
    Change {
        row: u64,
        column: usize,
    },
    Remove {
        row: u64,
    },
    Swap {
        row: u64,
        with: u64,
    },
    /// A copy of another row is put before a row, with the hash that it should have there or as it was.
    PutIn {
        before: u64,
        copy: u64,
        is_forged: bool,
    },
}

fn tampering(rows: u64) -> impl Strategy<Value = Tampering> {
    let row = 1..=rows;
    prop_oneof![
        (row.clone(), 0..CHANGES.len()).prop_map(|(row, column)| Tampering::Change { row, column }),
        // The last one leaves a chain that is whole.
        (1..rows).prop_map(|row| Tampering::Remove { row }),
        (1..rows, row.clone()).prop_map(|(row, with)| Tampering::Swap { row, with }),
        (row.clone(), row, any::<bool>()).prop_map(|(before, copy, is_forged)| {
            Tampering::PutIn {
                before,
                copy,
                is_forged,
            }
        }),
    ]
}

fn chain(rows: u64) -> Connection {
    let mut connection = Connection::open(":memory:".as_ref()).unwrap();
    migrations::apply(&mut connection, &Fence::default()).unwrap();
    let transaction = connection.begin(Mode::Write).unwrap();
    for number in 1..=rows {
        let odd = number % 2 == 1;
        let actor = Actor {
            token: odd.then(|| format!("t{number}")),
            address: odd.then(|| [127, 0, 0, 1].into()),
            ..Actor::named("ci")
        };
        let entry = Entry {
            deployment: odd.then_some(number),
            ..Entry::of(
                Action::Deploy,
                odd.then_some("a"),
                json!({ "number": number }),
            )
        };
        append(&transaction, &actor, &entry).unwrap();
    }
    let drop_all = "DROP TRIGGER audit_continues; DROP TRIGGER audit_is_append_only_update;
        DROP TRIGGER audit_is_append_only_delete;";
    transaction.batch(drop_all).unwrap();
    transaction.commit().unwrap();
    connection
}

/// Does it; says which row is the first that is not as it was written, if any is.
fn tamper(transaction: &Transaction<'_>, rows: u64, tampering: &Tampering) -> Option<u64> {
    let sql = |text: &str| transaction.batch(text).unwrap();
    match *tampering {
        Tampering::Change { row, column } => {
            let (column, value) = CHANGES[column];
            sql(&format!(
                "UPDATE audit SET {column} = {value} WHERE seq = {row}"
            ));
            Some(row)
        }
        Tampering::Remove { row } => {
            sql(&format!("DELETE FROM audit WHERE seq = {row}"));
            Some(row)
        }
        Tampering::Swap { row, with } if row == with => None,
        Tampering::Swap { row, with } => {
            sql(&format!(
                "UPDATE audit SET seq = 0 WHERE seq = {row}; UPDATE audit SET seq = {row} WHERE seq = {with};
                 UPDATE audit SET seq = {with} WHERE seq = 0;"
            ));
            Some(row.min(with))
        }
        Tampering::PutIn {
            before,
            copy,
            is_forged,
        } => {
            let columns = super::chain::COLUMNS;
            let read = |seq: u64| {
                let text = format!("SELECT {columns} FROM audit WHERE seq = {seq}");
                transaction.one(&text, &[], |row| Ok(super::chain::read(row)?))
            };
            let mut forged = read(copy).unwrap();
            forged.seq = before;
            forged.previous =
                read(before.wrapping_sub(1)).map_or(super::chain::GENESIS, |row| row.hash);
            if is_forged {
                forged.hash = forged.due();
            }
            sql(&format!(
                "UPDATE audit SET seq = -seq WHERE seq >= {before}; UPDATE audit SET seq = 1 - seq WHERE seq < 0;"
            ));
            super::chain::insert(transaction, &forged).unwrap();
            assert!(before <= rows);
            // What is as it would have been written stands; the next one is not where it was.
            let stands = is_forged || copy == before;
            Some(if stands { before + 1 } else { before })
        }
    }
}

fn named(broken: &Broken) -> Option<u64> {
    match broken {
        Broken::Removed { seq } | Broken::Changed { seq } | Broken::Moved { seq } => Some(*seq),
        _ => None,
    }
}

proptest! {
    #![proptest_config(Config { cases: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_first_row_that_was_touched_is_named(
        (rows, tampering) in (2..12_u64).prop_flat_map(|rows| (Just(rows), tampering(rows)))
    ) {
        let mut connection = chain(rows);
        let transaction = connection.begin(Mode::Write).unwrap();
        let head = check(&transaction, None).unwrap();
        let expected = tamper(&transaction, rows, &tampering);
        match check(&transaction, None) {
            Ok(found) => prop_assert_eq!((found, expected), (head, None)),
            Err(broken) => prop_assert_eq!(named(&broken), expected, "{}", broken),
        }
        prop_assert_eq!(check(&transaction, Some(head)).is_ok(), expected.is_none());
    }
}
