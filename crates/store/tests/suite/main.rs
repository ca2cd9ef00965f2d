//! One suite, run on SQLite and on PostgreSQL. A PostgreSQL that does not start fails it.

mod bench;
mod plans;

use bench::Bench;
use std::pin::Pin;
use testbed::Postgres;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Each case is a test of its own on SQLite. On PostgreSQL all run in one test, so that one server serves them, each with a
/// database of its own.
macro_rules! cases {
    ($($module:ident: $($case:ident)*;)*) => {
        mod on_sqlite {
            $(mod $module {
                $(#[tokio::test]
                async fn $case() {
                    crate::$module::$case(crate::Bench::sqlite().await).await;
                })*
            })*
        }

        fn cases() -> Vec<(&'static str, fn(Bench) -> Running)> {
            vec![$($((
                concat!(stringify!($module), "_", stringify!($case)),
                |bench| Box::pin($module::$case(bench)),
            ),)*)*]
        }
    };
}

cases! {
    plans:
        a_plan_is_applied_as_a_whole
        ;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_case_holds_on_postgres() {
    let server = Postgres::shared().await.unwrap();
    let mut failed = Vec::new();
    for (number, (case, run)) in cases().into_iter().enumerate() {
        let bench = Bench::postgres(server.clone(), &format!("case_{number}")).await;
        // A task of its own, so that one that panics does not hide the others.
        if tokio::spawn(run(bench)).await.is_err() {
            failed.push(case);
        }
    }
    assert!(failed.is_empty(), "these fail on PostgreSQL: {failed:?}");
}
