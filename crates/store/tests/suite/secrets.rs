//! A planted secret is nowhere but sealed.

use crate::bench::{Bench, declared, name, secrets, world};
use crate::faults::dump;
use domain::principal::Role;
use std::path::Path;

const PLANTED: &str = "Zq7-planted-secret-kW3";

pub(crate) async fn passwords_and_tokens_are_nowhere_in_the_database(bench: Bench) {
    let pending = bench.plan(&declared(&world(&["m1", "m2"])), &[], &[("m2", PLANTED)]).await;
    bench.store.save_plan(&pending, &secrets(&[("m1", PLANTED), ("m2", PLANTED)]), "ada").await.unwrap();
    let token = bench.store.create_token("admin", Role::Admin, None, "ada").await.unwrap();
    let absent = async |moment: &str| {
        let rows = dump(&bench).await.join("\n");
        let files = contents(bench.directory.path());
        for secret in [PLANTED, token.as_str(), &token["bw_".len()..], &hex::encode(PLANTED)] {
            assert!(!rows.contains(secret), "{moment}");
            assert!(!files.windows(secret.len()).any(|part| part == secret.as_bytes()), "{moment}");
        }
        // The search does find what is there.
        assert!(rows.contains("fra1"));
        assert!(bench.is_postgres() || files.windows(4).any(|part| part == b"fra1"));
    };
    absent("while the plan is pending").await;
    bench.store.apply_plan(&pending.digest, "bob").await.unwrap();
    absent("once it is applied").await;
    assert!(bench.store.password_equals(&name("m1"), PLANTED).await.unwrap());
    bench.store.close().await;
    absent("once the store is closed").await;
}

pub(crate) async fn nothing_shows_a_secret_when_printed(bench: Bench) {
    let plan = bench.plan(&declared(&world(&["m1"])), &[], &[("m1", PLANTED)]).await;
    let applied = bench.save_and_apply(&plan, &[("m1", PLANTED)]).await;
    let kept = bench.store.plan(&plan.digest).await.unwrap();
    let events = bench.store.events(0, 100).await.unwrap();
    let machines = bench.store.machines().await.unwrap();
    let printed = format!("{:?} {applied:?} {kept:?} {events:?} {machines:?}", bench.store);
    assert!(!printed.contains(PLANTED));
    let mut options = bench.options.clone();
    options.url = format!("postgres://cell:{PLANTED}@h/d");
    assert!(!format!("{options:?}").contains(PLANTED));
}

pub(crate) async fn a_sealed_password_that_was_moved_does_not_open(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    let sql = "UPDATE credentials SET sealed = (SELECT sealed FROM credentials WHERE machine = 'm1')";
    sqlx::Executor::execute(&mut bench.raw().await, sql).await.unwrap();
    assert!(bench.store.credentials(&name("m1")).await.is_ok());
    let error = bench.store.credentials(&name("m2")).await.unwrap_err();
    assert_eq!(error.code(), "store.unsealable");
    // Applying the password again mends it.
    let plan = {
        let mut wish = domain::plan::Wish { apply: declared(&world(&["m2"])), ..Default::default() };
        wish.new_passwords.insert(name("m2"), "mark".to_owned());
        domain::Plan::make(&bench.store.declarations().await.unwrap(), &wish, None).unwrap()
    };
    bench.save_and_apply(&plan, &[("m2", "hunter2")]).await;
    assert!(bench.store.password_equals(&name("m2"), "hunter2").await.unwrap());
}

/// All bytes of all files under a directory. SQLite takes files of its own away while this looks.
fn contents(directory: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(contents(&path));
        } else {
            match std::fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                read => bytes.extend(read.unwrap()),
            }
        }
    }
    bytes
}
