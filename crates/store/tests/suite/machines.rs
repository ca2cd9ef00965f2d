//! Where machines stand, and what sends them back.

use crate::bench::{Bench, at, declared, machine_document, name, pin, server, world};
use crate::faults::{dump, rows_of};
use domain::{Kind, MachineState, Problem};
use std::time::Duration;

pub(crate) async fn discovery_pins_the_key_and_a_second_one_changes_nothing(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let machine = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    assert_eq!((machine.state, machine.pin), (MachineState::Discovered, Some(pin(1))));
    let before = dump(&bench).await;
    bench.discover("m1").await;
    assert_eq!(dump(&bench).await, before);
}

pub(crate) async fn another_key_than_the_one_pinned_is_refused(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let generation = bench.generation("m1").await;
    let error = bench.store.record_discovery(&name("m1"), generation, &pin(2)).await.unwrap_err();
    assert_eq!(error.code(), "machine.pin-changed");
    assert_eq!(bench.store.machine(&name("m1")).await.unwrap().unwrap().pin, Some(pin(1)));
}

pub(crate) async fn what_changes_how_a_machine_is_reached_sends_it_back(bench: Bench) {
    bench.declare(&["m1"]).await;
    let mut yaml = world(&["m1"]);
    let other_site = "---
apiVersion: bailiwick.dev/v1alpha1
kind: Site
metadata: {name: fra2}
spec: {jurisdiction: eu, operator: acme, country: DE, bmcNetworks: [10.0.0.0/24]}
";
    yaml.push_str(other_site);
    bench.apply(&yaml, &[]).await;
    for (from, to, goes_back) in [
        ("10.0.0.5", "10.0.0.6", true),
        ("site: fra1, bmc", "site: fra2, bmc", true),
        ("site: fra2, bmc", "site: fra2, serial: S1, bmc", true),
        ("site: fra2, serial", "site: fra2, mac: '02:00:00:00:00:01', serial", true),
        ("site: fra2, mac", "site: fra2, rack: {name: r1, unit: 4}, mac", false),
        ("site: fra2, rack", "site: fra2, zone: {tier: secret}, rack", false),
        ("metadata: {name: m1}", "metadata: {name: m1, labels: {a: b}}", false),
    ] {
        bench.discover("m1").await;
        bench.enrol("m1", &server("S1", &["G1"]), at(0)).await.unwrap();
        let generation = bench.generation("m1").await;
        yaml = yaml.replace(from, to);
        let applied = bench.apply(&yaml, &[]).await;
        assert_eq!(applied.changes.len(), 1, "{to}");
        let machine = bench.store.machine(&name("m1")).await.unwrap().unwrap();
        assert_eq!(!applied.reset.is_empty(), goes_back, "{to}");
        assert_eq!(machine.state == MachineState::Declared, goes_back, "{to}");
        assert_eq!(machine.generation > generation, goes_back, "{to}");
        assert_eq!(machine.serial.is_none() && machine.uuid.is_none(), goes_back, "{to}");
        assert_eq!(machine.pin, Some(pin(1)), "{to}");
        assert!(machine.inventory.is_some(), "{to}");
    }
}

pub(crate) async fn other_credentials_leave_a_machine_what_it_is_and_have_it_read_again(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    bench.enrol("m1", &server("S1", &["G1"]), at(0)).await.unwrap();
    let generation = bench.generation("m1").await;
    let refused = domain::Problem::new("bmc.unauthorized", "refused");
    bench.store.record_waiting(&name("m1"), generation, &refused, None).await.unwrap();
    let applied = bench.apply(&world(&["m1"]).replace("username: root", "username: admin"), &[]).await;
    assert_eq!(applied.reset, []);
    let machine = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    assert_eq!((machine.state, machine.waiting), (MachineState::Enrolled, None));
    assert!(machine.generation > generation);
}

pub(crate) async fn a_declared_key_takes_the_place_of_the_one_seen(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let with_pin =
        world(&["m1"]).replace("passwordFile: pw", &format!("passwordFile: pw, pin: '{}'", pin(2)));
    bench.apply(&with_pin, &[]).await;
    assert_eq!(bench.store.machine(&name("m1")).await.unwrap().unwrap().pin, None);
    let generation = bench.generation("m1").await;
    bench.store.record_discovery(&name("m1"), generation, &pin(2)).await.unwrap();
    // To take the declaration back is not to distrust the key.
    bench.apply(&world(&["m1"]), &[]).await;
    assert_eq!(bench.store.machine(&name("m1")).await.unwrap().unwrap().pin, Some(pin(2)));
}

pub(crate) async fn what_a_step_found_under_an_older_declaration_is_not_recorded(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    let old = bench.generation("m1").await;
    bench.apply(&world(&["m1"]).replace("10.0.0.5", "10.0.0.6"), &[]).await;
    bench.discover("m1").await;
    let before = dump(&bench).await;
    let machine = name("m1");
    let inventory = server("S1", &[]);
    let store = &bench.store;
    let errors = [
        store.record_discovery(&machine, old, &pin(1)).await.unwrap_err(),
        store.record_enrolment(&machine, old, &inventory, &[], at(0)).await.unwrap_err(),
        store.record_waiting(&machine, old, &Problem::new("a.b", "c"), None).await.unwrap_err(),
        store.clear_waiting(&machine, old).await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.code() == "machine.superseded"), "{errors:?}");
    assert_eq!(dump(&bench).await, before);
}

pub(crate) async fn a_machine_deleted_and_declared_again_is_another_one(bench: Bench) {
    bench.declare(&["m1"]).await;
    let old = bench.generation("m1").await;
    let plan = bench.plan(&[], &[(Kind::Machine, name("m1"))], &[]).await;
    bench.save_and_apply(&plan, &[]).await;
    bench.declare(&["m1"]).await;
    let error = bench.store.record_discovery(&name("m1"), old, &pin(1)).await.unwrap_err();
    assert_eq!(error.code(), "machine.superseded");
}

pub(crate) async fn deleting_a_machine_takes_all_of_it_and_keeps_what_happened(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    for machine in ["m1", "m2"] {
        bench.discover(machine).await;
        bench.enrol(machine, &server(machine, &[&format!("G-{machine}")]), at(0)).await.unwrap();
    }
    let plan = bench.plan(&[], &[(Kind::Machine, name("m1"))], &[]).await;
    let applied = bench.save_and_apply(&plan, &[]).await;
    assert_eq!(applied.changes.len(), 1);
    for table in ["machines", "credentials", "inventories", "facts", "gpus"] {
        assert_eq!(rows_of(&bench, table, "m1").await, 0, "{table}");
        assert!(rows_of(&bench, table, "m2").await > 0, "{table}");
    }
    let told: Vec<_> = bench.store.events_about("Machine/m1", 10).await.unwrap();
    let kinds: Vec<_> = told.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["declaration.deleted", "machine.enrolled", "machine.discovered", "declaration.created"]
    );
    let error =
        bench.store.record_waiting(&name("m1"), 1, &Problem::new("a.b", "c"), None).await.unwrap_err();
    assert_eq!(error.code(), "declaration.not-found");
}

pub(crate) async fn waiting_keeps_its_beginning_while_the_code_stays(bench: Bench) {
    bench.declare(&["m1"]).await;
    let generation = bench.generation("m1").await;
    let last = bench.last().await;
    let wait = async |code: &str, message: &str| {
        let problem = Problem::new(code, message);
        bench
            .store
            .record_waiting(&name("m1"), generation, &problem, Some(Duration::from_mins(1)))
            .await
            .unwrap()
    };
    let first = wait("bmc.unreachable", "no route").await;
    let second = wait("bmc.unreachable", "timed out").await;
    assert_eq!((first.attempts, second.attempts), (1, 2));
    assert_eq!(second.since, first.since);
    let pause = second.until.unwrap().duration_since(second.since);
    assert!((60..90).contains(&pause.as_secs()), "{pause}");
    assert_eq!(second.problem.message, "timed out");
    let third = wait("bmc.login-refused", "401").await;
    assert_eq!(third.attempts, 1);
    let machine = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    assert_eq!(machine.waiting, Some(third));
    assert_eq!(bench.kinds(last).await, ["machine.waiting", "machine.waiting"]);
}

pub(crate) async fn that_a_service_is_held_outlives_what_is_declared_and_ends_when_that_is_said(
    bench: Bench,
) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    bench.enrol("m1", &server("S1", &["G1"]), at(0)).await.unwrap();
    let is_held = async || bench.store.machine(&name("m1")).await.unwrap().unwrap().held;
    assert!(!is_held().await);
    bench.store.mark_held(&name("m1"), bench.generation("m1").await, true).await.unwrap();
    let renamed = world(&["m1"]).replace("username: root", "username: admin");
    for declared in [renamed.clone(), renamed.replace("10.0.0.5", "10.0.0.6")] {
        assert_eq!(bench.apply(&declared, &[]).await.changes.len(), 1);
        assert!(is_held().await);
    }
    bench.store.mark_held(&name("m1"), bench.generation("m1").await, false).await.unwrap();
    assert!(!is_held().await);
}

pub(crate) async fn a_wait_ends_once(bench: Bench) {
    bench.declare(&["m1"]).await;
    let generation = bench.generation("m1").await;
    let problem = Problem::new("bmc.unreachable", "no route");
    bench.store.record_waiting(&name("m1"), generation, &problem, None).await.unwrap();
    let last = bench.last().await;
    for _ in 0..2 {
        bench.store.clear_waiting(&name("m1"), generation).await.unwrap();
    }
    assert_eq!(bench.store.machine(&name("m1")).await.unwrap().unwrap().waiting, None);
    assert_eq!(bench.kinds(last).await, ["machine.resumed"]);
}

pub(crate) async fn a_changed_site_lets_machines_go_on_that_waited_for_people(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    let problem = Problem::new("bmc.address-outside-networks", "no");
    for (machine, until) in [("m1", None), ("m2", Some(Duration::from_mins(1)))] {
        let generation = bench.generation(machine).await;
        bench.store.record_waiting(&name(machine), generation, &problem, until).await.unwrap();
    }
    bench.apply(&world(&["m1", "m2"]).replace("10.0.0.0/24", "10.0.0.0/16"), &[]).await;
    let machines = bench.store.machines().await.unwrap();
    assert_eq!(machines[0].waiting, None);
    assert!(machines[1].waiting.is_some());
}

/// They are looked at again by themselves now and then, which may be an hour from now.
pub(crate) async fn a_changed_profile_lets_machines_go_on_that_waited_for_their_firmware(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    bench.store.live("a", Duration::from_mins(10)).await.unwrap();
    let pause = Some(Duration::from_hours(1));
    let mut back = Vec::new();
    for lease in bench.store.claim("a", &name("fra1"), 2).await.unwrap() {
        let code = if lease.machine == name("m1") { "firmware.no-profile" } else { "bmc.unreachable" };
        let guard = lease.guard(bench.generation(lease.machine.as_str()).await);
        bench.store.record_waiting(&lease.machine, guard, &Problem::new(code, "no"), pause).await.unwrap();
        back.push((lease, pause));
    }
    bench.store.release(&back).await.unwrap();
    let profile = "---
apiVersion: bailiwick.dev/v1alpha1
kind: FirmwareProfile
metadata: {name: p}
spec: {match: {model: [x]}, source: a test, components: [{name: bmc, select: [{reported: bmc}], rule: {minimum: '1'}}]}
";
    bench.apply(&(world(&["m1", "m2"]) + profile), &[]).await;
    let due = bench.store.claim("a", &name("fra1"), 2).await.unwrap();
    assert_eq!(due.iter().map(|lease| lease.machine.as_str()).collect::<Vec<_>>(), ["m1"]);
}

pub(crate) async fn pages_show_every_machine_once_in_order(bench: Bench) {
    let mut yaml = world(&[]);
    // Sorted as bytes on both databases: a dash comes before digits, digits before letters.
    for machine in ["m10", "m1", "m-1", "m2", "ma", "a"] {
        yaml.push_str(&machine_document(machine, "10.0.0.5", ""));
    }
    bench.apply(&yaml, &[]).await;
    let mut seen = Vec::new();
    loop {
        let page = bench.store.machines_page(seen.last(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        seen.extend(page.into_iter().map(|machine| machine.name));
    }
    let names: Vec<_> = seen.iter().map(domain::Name::as_str).collect();
    assert_eq!(names, ["a", "m-1", "m1", "m10", "m2", "ma"]);
    let declared_count = declared(&yaml).len();
    assert_eq!(bench.store.declarations().await.unwrap().len(), declared_count);
}
