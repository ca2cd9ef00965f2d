//! Plans are kept, and applied once, as a whole or not at all.

use crate::bench::{Bench, declared, machine_document, name, pin, secrets, world};
use crate::faults::{dump, fail_on, mend, rows_of};
use domain::plan::Action;
use domain::{Kind, MachineState};
use std::collections::BTreeMap;

pub(crate) async fn a_plan_is_applied_as_a_whole(bench: Bench) {
    let applied = bench.apply(&world(&["m1", "m2"]), &[("m1", "hunter2"), ("m2", "hunter3")]).await;
    assert!(!applied.already && applied.reset.is_empty());
    assert_eq!(applied.changes.len(), 5);
    assert_eq!(bench.store.declarations().await.unwrap(), {
        let mut all = declared(&world(&["m1", "m2"]));
        all.sort_by_key(|declaration| declaration.kind().as_str());
        all
    });
    let machine = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    assert_eq!(machine.state, MachineState::Declared);
    assert_eq!(bench.store.credentials(&name("m2")).await.unwrap().unwrap().as_str(), "hunter3");
    let site = bench.store.declaration(Kind::Site, &name("fra1")).await.unwrap().unwrap();
    assert_eq!(site.reference(), "Site/fra1");
}

pub(crate) async fn a_kept_plan_reads_back_with_who_made_and_applied_it(bench: Bench) {
    let plan = bench.plan(&declared(&world(&["m1"])), &[], &[]).await;
    assert_eq!(bench.store.plan(&plan.digest).await.unwrap(), None);
    bench.store.save_plan(&plan, &BTreeMap::new(), "ada").await.unwrap();
    let kept = bench.store.plan(&plan.digest).await.unwrap().unwrap();
    assert_eq!((&kept.plan, kept.created_by.as_str(), kept.applied_at), (&plan, "ada", None));
    let applied = bench.store.apply_plan(&plan.digest, "bob").await.unwrap();
    let kept = bench.store.plan(&plan.digest).await.unwrap().unwrap();
    assert_eq!((kept.applied_at, kept.applied_by.as_deref()), (Some(applied.at), Some("bob")));
}

pub(crate) async fn every_change_is_told_by_an_event(bench: Bench) {
    bench.declare(&["m1"]).await;
    let events = bench.store.events(0, 100).await.unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.kind.as_str(), event.subject.split(':').next().unwrap(), event.actor.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("plan.saved", "Plan/sha256", "ada"),
            ("declaration.created", "Jurisdiction/eu", "bob"),
            ("declaration.created", "LegalEntity/acme", "bob"),
            ("declaration.created", "Site/fra1", "bob"),
            ("declaration.created", "Machine/m1", "bob"),
            ("plan.applied", "Plan/sha256", "bob"),
        ]
    );
}

pub(crate) async fn applying_a_plan_again_changes_nothing(bench: Bench) {
    let plan = bench.plan(&declared(&world(&["m1"])), &[], &[("m1", "hunter2")]).await;
    let first = bench.save_and_apply(&plan, &[("m1", "hunter2")]).await;
    let before = dump(&bench).await;
    let again = bench.store.apply_plan(&plan.digest, "eve").await.unwrap();
    assert!(again.already);
    assert_eq!((again.at, again.changes), (first.at, first.changes));
    assert_eq!(dump(&bench).await, before);
}

pub(crate) async fn a_plan_is_stale_once_what_it_starts_from_has_changed(bench: Bench) {
    bench.declare(&["m1"]).await;
    let late = bench.plan(&declared(&world(&["m1", "m2"])), &[], &[]).await;
    bench.store.save_plan(&late, &BTreeMap::new(), "ada").await.unwrap();
    bench.apply(&world(&["m1", "m3"]), &[]).await;
    let before = dump(&bench).await;
    let error = bench.store.apply_plan(&late.digest, "bob").await.unwrap_err();
    assert_eq!(error.code(), "plan.stale");
    assert_eq!(dump(&bench).await, before);
}

pub(crate) async fn of_two_plans_applied_at_once_one_is_stale(bench: Bench) {
    bench.declare(&["m1"]).await;
    let mut digests = Vec::new();
    for machine in ["m2", "m3"] {
        let plan = bench.plan(&declared(&world(&["m1", machine])), &[], &[]).await;
        bench.store.save_plan(&plan, &BTreeMap::new(), "ada").await.unwrap();
        digests.push(plan.digest);
    }
    let (one, other) =
        tokio::join!(bench.store.apply_plan(&digests[0], "ada"), bench.store.apply_plan(&digests[1], "bob"));
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1);
    assert_eq!(one.and(other).unwrap_err().code(), "plan.stale");
    assert_eq!(bench.store.machines().await.unwrap().len(), 2);
}

pub(crate) async fn a_plan_that_was_changed_on_the_way_is_not_kept(bench: Bench) {
    let mut plan = bench.plan(&declared(&world(&["m1"])), &[], &[]).await;
    plan.changes.pop();
    let error = bench.store.save_plan(&plan, &BTreeMap::new(), "ada").await.unwrap_err();
    assert_eq!(error.code(), "plan.not-genuine");
    assert_eq!(bench.store.plan(&plan.digest).await.unwrap(), None);
}

pub(crate) async fn a_plan_that_nobody_saved_cannot_be_applied(bench: Bench) {
    let error = bench.store.apply_plan(&pin(7), "ada").await.unwrap_err();
    assert_eq!(error.code(), "plan.not-found");
}

pub(crate) async fn each_new_password_has_a_plan_of_its_own(bench: Bench) {
    bench.declare(&["m1"]).await;
    let documents = declared(&world(&["m1"]));
    let mut digests = Vec::new();
    for password in ["one", "two"] {
        let plan = bench.plan(&documents, &[], &[("m1", password)]).await;
        let applied = bench.save_and_apply(&plan, &[("m1", password)]).await;
        assert_eq!((applied.already, applied.reset), (false, vec![]));
        assert!(bench.store.password_equals(&name("m1"), password).await.unwrap());
        digests.push(plan.digest);
    }
    assert_ne!(digests[0], digests[1]);
}

pub(crate) async fn saving_an_applied_plan_that_no_longer_fits_changes_nothing(bench: Bench) {
    let plan = bench.plan(&declared(&world(&["m1"])), &[], &[]).await;
    bench.save_and_apply(&plan, &[]).await;
    let before = dump(&bench).await;
    bench.store.save_plan(&plan, &secrets(&[("m1", "late")]), "eve").await.unwrap();
    assert_eq!(dump(&bench).await, before);
    assert!(bench.store.apply_plan(&plan.digest, "eve").await.unwrap().already);
}

pub(crate) async fn old_plans_that_nobody_applied_are_forgotten_with_their_passwords(bench: Bench) {
    bench.declare(&["m1"]).await;
    let plan = bench.plan(&declared(&world(&["m1"])), &[], &[("m1", "late")]).await;
    bench.store.save_plan(&plan, &secrets(&[("m1", "late")]), "ada").await.unwrap();
    let made = bench.store.plan(&plan.digest).await.unwrap().unwrap().created_at;
    assert_eq!(bench.store.prune_plans(made).await.unwrap(), 0);
    let later = made + jiff::SignedDuration::from_millis(1);
    assert_eq!(bench.store.prune_plans(later).await.unwrap(), 1);
    assert_eq!(bench.store.plan(&plan.digest).await.unwrap(), None);
    assert_eq!(rows_of(&bench, "plan_passwords", "m1").await, 0);
    assert!(bench.store.password_equals(&name("m1"), "hunter2").await.unwrap());
}

pub(crate) async fn the_same_password_again_is_no_change(bench: Bench) {
    bench.declare(&["m1"]).await;
    let yaml = world(&["m1"]).replace("site: fra1, bmc", "site: fra1, rack: {name: r1}, bmc");
    let applied = bench.apply(&yaml, &[("m1", "hunter2")]).await;
    assert_eq!(applied.reset, []);
    assert_eq!(applied.changes[0].action, Action::Update);
    assert!(bench.store.password_equals(&name("m1"), "hunter2").await.unwrap());
    assert!(!bench.store.password_equals(&name("m1"), "hunter3").await.unwrap());
    assert!(!bench.store.password_equals(&name("m9"), "hunter2").await.unwrap());
}

pub(crate) async fn a_password_taken_from_elsewhere_is_forgotten_here(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.apply(&world(&["m1"]).replace("passwordFile: pw", "secretRef: {name: s}"), &[]).await;
    assert!(bench.store.credentials(&name("m1")).await.unwrap().is_none());
}

/// Fails at each table that applying writes to, in turn: nothing is left of it, and the same plan applies afterwards.
pub(crate) async fn a_plan_that_fails_half_way_leaves_nothing(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    let mut changed = declared(&world(&["m1"]).replace("10.0.0.5", "10.0.0.6"));
    changed.extend(declared(&machine_document("m3", "10.0.0.7", "")));
    let passwords = [("m1", "new"), ("m3", "first")];
    let plan = bench.plan(&changed, &[(Kind::Machine, name("m2"))], &passwords).await;
    bench.store.save_plan(&plan, &secrets(&passwords), "ada").await.unwrap();
    let before = dump(&bench).await;
    for (table, statement) in [
        ("declarations", "INSERT"),
        ("declarations", "UPDATE"),
        ("declarations", "DELETE"),
        ("machines", "INSERT"),
        ("machines", "UPDATE"),
        ("machines", "DELETE"),
        ("credentials", "INSERT"),
        ("credentials", "UPDATE"),
        ("credentials", "DELETE"),
        ("plan_passwords", "DELETE"),
        ("plans", "UPDATE"),
        ("events", "INSERT"),
    ] {
        fail_on(&bench, table, statement).await;
        let error = bench.store.apply_plan(&plan.digest, "bob").await.unwrap_err();
        assert_eq!(error.code(), "store.failed", "{statement} on {table}");
        mend(&bench, table).await;
        assert_eq!(dump(&bench).await, before, "{statement} on {table}");
    }
    assert!(!bench.store.apply_plan(&plan.digest, "bob").await.unwrap().already);
    assert!(bench.store.password_equals(&name("m3"), "first").await.unwrap());
}
