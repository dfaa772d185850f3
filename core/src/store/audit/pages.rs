//! Pages of the log, and what a deployment was asked for with, are read by an index, however many rows others have.

use super::{ASKED, page};
use crate::store::lease::Fence;
use crate::store::migrations;
use crate::store::sql::{Connection, Mode, Value, params};

/// How the database answers a question.
fn plan(sql: &str, values: &[Value]) -> Vec<String> {
    let mut connection = Connection::open(":memory:".as_ref()).unwrap();
    migrations::apply(&mut connection, &Fence::default()).unwrap();
    let transaction = connection.begin(Mode::Read).unwrap();
    let sql = format!("EXPLAIN QUERY PLAN {sql}");
    transaction
        .all(&sql, values, |row| Ok(row.get(3)?))
        .unwrap()
}

#[test]
fn a_page_of_one_tenant_reads_no_row_of_others() {
    // One step: the order is the index's, so nothing is sorted either.
    assert_eq!(
        plan(&page(true), params![i64::MAX, 100_u32, "shop"]),
        ["SEARCH audit USING INDEX audit_of_tenant (tenant=? AND seq<?)"]
    );
    assert_eq!(
        plan(&page(false), params![i64::MAX, 100_u32]),
        ["SEARCH audit USING INTEGER PRIMARY KEY (rowid<?)"]
    );
}

/// Else a check of all tenants would read all rows for each.
#[test]
fn what_a_deployment_was_asked_for_with_is_found_without_a_row_of_others() {
    assert_eq!(
        plan(
            ASKED,
            params!["shop", 7_i64, "deployment.deploy", "deployment.rollback"]
        ),
        ["SEARCH audit USING INDEX audit_of_tenant (tenant=?)"]
    );
}
