//! What is recorded when a machine is enrolled.

use crate::bench::{Bench, at, name, server, world};
use crate::faults::{dump, fail_on, mend};
use domain::inventory::{Diagnostic, Requests};
use domain::{MachineState, Problem, fact};
use std::time::Duration;

pub(crate) async fn an_enrolled_machine_has_inventory_facts_and_gpus(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let inventory = server("S1", &["G1", "G2"]);
    let enrolment = bench.enrol("m1", &inventory, at(0)).await.unwrap();
    assert!(enrolment.changed && enrolment.conflicts.is_empty());
    let machine = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    assert_eq!((machine.state, machine.serial.as_deref()), (MachineState::Enrolled, Some("S1")));
    assert_eq!(machine.uuid, inventory.identity.uuid);
    assert_eq!(machine.inventory.unwrap().at, at(0));
    assert_eq!(bench.store.inventory(&name("m1")).await.unwrap(), Some((inventory.clone(), at(0))));
    assert_eq!(bench.store.facts(&name("m1")).await.unwrap(), fact::from_inventory(&inventory, at(0)));
    let gpus = bench.store.gpus().await.unwrap();
    let keys: Vec<_> = gpus.iter().map(|gpu| (gpu.key.as_str(), gpu.machine_state)).collect();
    assert_eq!(keys, [("serial:G1", MachineState::Enrolled), ("serial:G2", MachineState::Enrolled)]);
    assert_eq!(gpus[1].gpu, inventory.gpus[1]);
    assert_eq!(bench.store.gpus_of(&name("m1")).await.unwrap(), gpus);
}

pub(crate) async fn the_same_inventory_again_writes_only_its_time(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let mut inventory = server("S1", &["G1"]);
    bench.enrol("m1", &inventory, at(0)).await.unwrap();
    let before = dump(&bench).await;
    let machine = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    inventory.requests = Requests { count: 7, bytes: 8, elapsed_ms: 9 };
    let again = bench.enrol("m1", &inventory, at(60)).await.unwrap();
    assert!(!again.changed);
    let mut expected = machine.clone();
    expected.inventory.as_mut().unwrap().at = at(60);
    assert_eq!(bench.store.machine(&name("m1")).await.unwrap(), Some(expected));
    let facts = bench.store.facts(&name("m1")).await.unwrap();
    assert!(!facts.is_empty() && facts.iter().all(|fact| fact.at == at(60)));
    let after = dump(&bench).await;
    let changed: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert_eq!(changed.len(), 1);
    assert!(changed[0].starts_with("inventories:"));
}

pub(crate) async fn a_changed_inventory_is_told_with_the_values_that_differ(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    bench.enrol("m1", &server("S1", &["G1", "G2"]), at(0)).await.unwrap();
    let last = bench.last().await;
    let mut changed = server("S1", &["G1"]);
    changed.memory_gib = Some(128);
    changed.diagnostics =
        vec![Diagnostic { code: "a.b".into(), path: "/redfish/v1".into(), message: "c".into() }];
    assert!(bench.enrol("m1", &changed, at(60)).await.unwrap().changed);
    let events = bench.store.events(last, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind, "machine.inventory-changed");
    let keys = serde_json::json!(["diagnostics", "gpus/G2/model", "gpus/G2/serial", "memoryGiB"]);
    assert_eq!(events[0].data["keys"], keys);
    assert_eq!(events[0].data["count"], 4);
    assert_eq!(bench.store.gpus().await.unwrap().len(), 1);
    assert_eq!(bench.store.facts(&name("m1")).await.unwrap(), fact::from_inventory(&changed, at(60)));
}

pub(crate) async fn an_enrolment_ends_what_the_machine_waited_for(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let inventory = server("S1", &[]);
    bench.enrol("m1", &inventory, at(0)).await.unwrap();
    let generation = bench.generation("m1").await;
    let problem = Problem::new("bmc.unreachable", "no route");
    bench
        .store
        .record_waiting(&name("m1"), generation, &problem, Some(Duration::from_secs(9)))
        .await
        .unwrap();
    let last = bench.last().await;
    bench.enrol("m1", &inventory, at(10)).await.unwrap();
    assert_eq!(bench.store.machine(&name("m1")).await.unwrap().unwrap().waiting, None);
    assert_eq!(bench.kinds(last).await, ["machine.resumed"]);
}

pub(crate) async fn a_machine_that_was_never_discovered_is_not_enrolled(bench: Bench) {
    bench.declare(&["m1"]).await;
    let error = bench.enrol("m1", &server("S1", &[]), at(0)).await.unwrap_err();
    assert_eq!(error.code(), "machine.wrong-state");
}

pub(crate) async fn a_serial_or_uuid_of_another_machine_is_refused_and_names_it(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    bench.discover("m1").await;
    bench.discover("m2").await;
    bench.enrol("m1", &server("S1", &[]), at(0)).await.unwrap();
    let before = dump(&bench).await;
    let mut same_serial = server("S1", &[]);
    same_serial.identity.uuid = None;
    let mut same_uuid = server("S1", &[]);
    same_uuid.identity.serial = None;
    for (inventory, code) in
        [(same_serial, "machine.duplicate-serial"), (same_uuid, "machine.duplicate-uuid")]
    {
        let error = bench.enrol("m2", &inventory, at(0)).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains("which m1 has"), "{error}");
    }
    assert_eq!(dump(&bench).await, before);
}

pub(crate) async fn machines_that_say_no_serial_are_not_each_others_duplicates(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    for machine in ["m1", "m2"] {
        bench.discover(machine).await;
        let mut inventory = server("S1", &[]);
        inventory.identity.serial = None;
        inventory.identity.uuid = None;
        bench.enrol(machine, &inventory, at(0)).await.unwrap();
    }
}

pub(crate) async fn machines_whose_addresses_were_exchanged_can_be_put_right(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    for (machine, serial) in [("m1", "S2"), ("m2", "S1")] {
        bench.discover(machine).await;
        bench.enrol(machine, &server(serial, &[&format!("G-{serial}")]), at(0)).await.unwrap();
    }
    bench.apply(&world(&["m1", "m2"]).replace("10.0.0.5", "10.0.0.6"), &[]).await;
    for (machine, serial) in [("m1", "S1"), ("m2", "S2")] {
        bench.discover(machine).await;
        bench.enrol(machine, &server(serial, &[&format!("G-{serial}")]), at(1)).await.unwrap();
    }
    assert_eq!(bench.store.gpu_conflicts().await.unwrap(), []);
}

pub(crate) async fn a_gpu_in_two_machines_is_told_from_both_sides_until_one_loses_it(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    bench.discover("m1").await;
    bench.discover("m2").await;
    bench.enrol("m1", &server("S1", &["G1", "G2"]), at(0)).await.unwrap();
    let last = bench.last().await;
    let enrolment = bench.enrol("m2", &server("S2", &["G2", "G3"]), at(0)).await.unwrap();
    assert!(enrolment.changed);
    assert_eq!(enrolment.conflicts.len(), 1);
    assert_eq!(enrolment.conflicts[0].code, "gpu.duplicate");
    assert_eq!(enrolment.conflicts[0].message, "GPU G2 of m2 is also shown by m1");
    assert_eq!(bench.kinds(last).await, ["machine.enrolled", "gpu.duplicate"]);
    let sides: Vec<_> = bench
        .store
        .gpu_conflicts()
        .await
        .unwrap()
        .into_iter()
        .map(|conflict| (conflict.machine, conflict.other_machine, conflict.other_key))
        .collect();
    let key = || "serial:G2".to_owned();
    assert_eq!(sides, [(name("m1"), name("m2"), key()), (name("m2"), name("m1"), key())]);
    // The same reading tells it again, without a second event.
    let last = bench.last().await;
    let again = bench.enrol("m2", &server("S2", &["G2", "G3"]), at(1)).await.unwrap();
    assert_eq!((again.changed, again.conflicts.len()), (false, 1));
    assert_eq!(bench.last().await, last);
    bench.enrol("m1", &server("S1", &["G1"]), at(2)).await.unwrap();
    assert_eq!(bench.store.gpu_conflicts().await.unwrap(), []);
}

pub(crate) async fn a_gpu_shared_by_serial_and_uuid_is_one_conflict_a_side(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    for machine in ["m1", "m2"] {
        bench.discover(machine).await;
        let mut inventory = server(machine, &["G1"]);
        inventory.gpus[0].uuid = Some("u-1".into());
        bench.enrol(machine, &inventory, at(0)).await.unwrap();
    }
    assert_eq!(bench.store.gpu_conflicts().await.unwrap().len(), 2);
}

pub(crate) async fn what_a_machine_showed_before_it_was_sent_back_conflicts_with_nobody(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    bench.discover("m1").await;
    bench.enrol("m1", &server("S1", &["G1"]), at(0)).await.unwrap();
    bench.apply(&world(&["m1"]).replace("10.0.0.5", "10.0.0.6"), &[]).await;
    bench.discover("m2").await;
    let enrolment = bench.enrol("m2", &server("S1", &["G1"]), at(1)).await.unwrap();
    assert_eq!(enrolment.conflicts, []);
    assert_eq!(bench.store.gpu_conflicts().await.unwrap(), []);
}

pub(crate) async fn pages_show_every_gpu_once_in_order(bench: Bench) {
    bench.declare(&["m1", "m2", "m3"]).await;
    for (machine, gpus) in [("m1", &["G3", "G1", "G2"][..]), ("m2", &[]), ("m3", &["G9", "G8"])] {
        bench.discover(machine).await;
        bench.enrol(machine, &server(machine, gpus), at(0)).await.unwrap();
    }
    let mut seen: Vec<bailiwick_store::GpuRecord> = Vec::new();
    loop {
        let after = seen.last().map(|gpu| (&gpu.machine, gpu.key.as_str()));
        let page = bench.store.gpus_page(after, 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        seen.extend(page);
    }
    assert_eq!(seen.len(), 5);
    assert_eq!(seen, bench.store.gpus().await.unwrap());
}

pub(crate) async fn many_facts_keep_their_order(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let serials: Vec<_> = (0..100).map(|number| format!("G{number}")).collect();
    let serials: Vec<_> = serials.iter().map(String::as_str).collect();
    let inventory = server("S1", &serials);
    bench.enrol("m1", &inventory, at(0)).await.unwrap();
    let facts = bench.store.facts(&name("m1")).await.unwrap();
    assert!(facts.len() > 200);
    assert_eq!(facts, fact::from_inventory(&inventory, at(0)));
}

pub(crate) async fn text_that_a_bmc_sends_is_stored_whatever_it_holds(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let nasty = "S\u{0}1'; DROP TABLE events; -- \u{1f600}\u{202e}";
    let mut inventory = server(nasty, &[nasty]);
    inventory.gpus[0].sources = vec![nasty.to_owned()];
    bench.enrol("m1", &inventory, at(0)).await.unwrap();
    assert_eq!(bench.store.inventory(&name("m1")).await.unwrap().unwrap().0, inventory);
    assert!(!bench.enrol("m1", &inventory, at(1)).await.unwrap().changed);
}

pub(crate) async fn an_enrolment_that_fails_half_way_leaves_nothing(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let inventory = server("S1", &["G1", "G2"]);
    let before = dump(&bench).await;
    for table in ["inventories", "facts", "gpus", "events"] {
        fail_on(&bench, table, "INSERT").await;
        let error = bench.enrol("m1", &inventory, at(0)).await.unwrap_err();
        assert_eq!(error.code(), "store.failed", "{table}");
        mend(&bench, table).await;
        assert_eq!(dump(&bench).await, before, "{table}");
    }
    assert!(bench.enrol("m1", &inventory, at(0)).await.unwrap().changed);
}
