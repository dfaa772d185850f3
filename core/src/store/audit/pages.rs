//! Pages of the log are read by an index, however many rows are not in them.

use super::page;
use crate::store::lease::Fence;
use crate::store::migrations;
use crate::store::sql::{Connection, Mode, params};

/// How the database answers a question.
fn plan(of_tenant: bool) -> Vec<String> {
    let mut connection = Connection::open(":memory:".as_ref()).unwrap();
    migrations::apply(&mut connection, &Fence::default()).unwrap();
    let transaction = connection.begin(Mode::Read).unwrap();
    let sql = format!("EXPLAIN QUERY PLAN {}", page(of_tenant));
    let mut values = params![i64::MAX, 100_u32].to_vec();
    if of_tenant {
        values.extend_from_slice(params!["shop"]);
    }
    transaction
        .all(&sql, &values, |row| Ok(row.get(3)?))
        .unwrap()
}

#[test]
fn a_page_of_one_tenant_reads_no_row_of_others() {
    // One step: the order is the index's, so nothing is sorted either.
    assert_eq!(
        plan(true),
        ["SEARCH audit USING INDEX audit_of_tenant (tenant=? AND seq<?)"]
    );
    assert_eq!(
        plan(false),
        ["SEARCH audit USING INTEGER PRIMARY KEY (rowid<?)"]
    );
}
