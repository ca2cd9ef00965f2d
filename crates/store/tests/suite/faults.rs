//! Looks at, and interferes with, the database behind the store's back.

use crate::bench::Bench;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

pub(crate) const TABLES: [&str; 10] = [
    "meta",
    "declarations",
    "plans",
    "plan_passwords",
    "machines",
    "credentials",
    "inventories",
    "facts",
    "gpus",
    "events",
];

/// Every row of every table as text.
pub(crate) async fn dump(bench: &Bench) -> Vec<String> {
    let mut raw = bench.raw().await;
    let mut lines = Vec::new();
    for table in TABLES.into_iter().chain(["tokens"]) {
        let row = if bench.is_postgres() {
            "CAST(t AS TEXT)".to_owned()
        } else {
            let columns = sqlx::query("SELECT name FROM pragma_table_info($1) ORDER BY cid")
                .bind(table)
                .fetch_all(&mut raw)
                .await
                .unwrap();
            let quoted: Vec<_> =
                columns.iter().map(|column| format!("quote({})", column.get::<String, _>("name"))).collect();
            quoted.join(" || ',' || ")
        };
        let rows = raw
            .fetch_all(AssertSqlSafe(format!("SELECT {row} AS line FROM {table} t ORDER BY 1")))
            .await
            .unwrap();
        lines.extend(rows.iter().map(|row| format!("{table}: {}", row.get::<String, _>("line"))));
    }
    lines
}

/// Lets every such statement on a table fail.
pub(crate) async fn fail_on(bench: &Bench, table: &str, statement: &str) {
    fail_with(bench, table, statement, "P0001").await;
}

/// The same, with an SQLSTATE where there are such.
pub(crate) async fn fail_with(bench: &Bench, table: &str, statement: &str, state: &str) {
    let sql = if bench.is_postgres() {
        format!(
            "CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'fault' USING ERRCODE = '{state}'; END; $$;
             CREATE TRIGGER fault BEFORE {statement} ON {table} FOR EACH ROW EXECUTE FUNCTION fault();"
        )
    } else {
        format!("CREATE TRIGGER fault BEFORE {statement} ON {table} BEGIN SELECT RAISE(ABORT, 'fault'); END;")
    };
    bench.raw().await.execute(AssertSqlSafe(sql)).await.unwrap();
}

/// Ends [`fail_on`].
pub(crate) async fn mend(bench: &Bench, table: &str) {
    let sql = if bench.is_postgres() {
        format!("DROP TRIGGER fault ON {table}; DROP FUNCTION fault();")
    } else {
        "DROP TRIGGER fault;".to_owned()
    };
    bench.raw().await.execute(AssertSqlSafe(sql)).await.unwrap();
}

/// How many rows of a table name this machine.
pub(crate) async fn rows_of(bench: &Bench, table: &str, machine: &str) -> i64 {
    let column = if table == "machines" { "name" } else { "machine" };
    let sql = format!("SELECT COUNT(*) AS rows FROM {table} WHERE {column} = '{machine}'");
    bench.raw().await.fetch_one(AssertSqlSafe(sql)).await.unwrap().get("rows")
}
