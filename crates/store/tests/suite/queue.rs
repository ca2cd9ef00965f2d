//! Whose turn it is, who may record what, and what a machine's life refuses.

use crate::bench::{Bench, at, declared, machine_document, name, server, world};
use crate::faults::{dump, rows_of};
use bailiwick_store::{Advance, Guard, Lease, Overdue, Store, StoreError};
use domain::erasure::{Erased, Item, Part};
use domain::{Erasure, Instance, Kind, MachineState, Name, Problem, Spec, Step};
use jiff::SignedDuration;
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::BTreeSet;
use std::time::Duration;

const LONG: Duration = Duration::from_mins(10);

const POOL: &str = "---
apiVersion: bailiwick.dev/v1alpha1
kind: BaseCluster
metadata: {name: pool}
spec: {jurisdiction: eu, site: fra1, kubernetesVersion: 1.36.3, controlPlane: external, endpoint: 'https://10.0.0.1:6443',
  kubeconfig: {name: pool, key: kubeconfig}, join: kubeadm, image: {live: {iso: 'http://images.example/node.iso'}}}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Assignment
metadata: {name: m1}
spec: {baseCluster: pool}
";

async fn claim(bench: &Bench, replica: &str, at_most: usize) -> Vec<Lease> {
    bench.store.claim(replica, &name("fra1"), at_most).await.unwrap()
}

async fn claim_one(bench: &Bench, replica: &str) -> Lease {
    bench.store.live(replica, LONG).await.unwrap();
    claim(bench, replica, 1).await.remove(0)
}

/// The replica's time is up: as when it was killed and its lease has ended.
async fn die(bench: &Bench, replica: &str) {
    bench.store.live(replica, Duration::ZERO).await.unwrap();
}

/// Sorted: what is claimed together comes in no order.
fn names(leases: &[Lease]) -> Vec<&str> {
    let mut names: Vec<_> = leases.iter().map(|lease| lease.machine.as_str()).collect();
    names.sort_unstable();
    names
}

fn erasure(disk: Erased, instance: Option<&Instance>) -> Erasure {
    let item = |part, erased| Item { part, serial: Some("S1".into()), device: None, erased };
    Erasure {
        machine: name("m1"),
        instance: instance.map(|instance| instance.id),
        base_cluster: instance.map(|instance| instance.base_cluster.clone()),
        zone: None,
        by: "ironic".into(),
        at: at(0),
        items: vec![
            item(Part::Disk, disk),
            item(Part::GpuMemory, Erased::Absent),
            item(Part::Tpm, Erased::Absent),
        ],
    }
}

fn whole(instance: Option<&Instance>) -> Erasure {
    erasure(Erased::Erased { method: "nvme-format".into() }, instance)
}

pub(crate) fn instance() -> Instance {
    serde_json::from_value(serde_json::json!({
        "id": "6a1f0c1e-0000-4000-8000-000000000001", "baseCluster": "pool", "zone": null, "since": at(0),
    }))
    .unwrap()
}

/// A step from where the machine stands, with what it needs.
pub(crate) async fn take(bench: &Bench, step: Step, to: MachineState) -> Result<(), StoreError> {
    let record = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    let mut advance = Advance::new(step, to);
    match to {
        MachineState::Available => advance.erasure = Some(whole(record.instance.as_ref())),
        MachineState::Provisioning => advance.instance = Some(Some(instance())),
        _ => {}
    }
    bench.store.advance(&name("m1"), record.generation, &advance).await
}

/// m1 on its way, as far as this state.
pub(crate) async fn bring(bench: &Bench, to: MachineState) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    bench.enrol("m1", &server("S1", &[]), at(0)).await.unwrap();
    for (step, state) in [
        (Step::Inspect, MachineState::Inspected),
        (Step::Check, MachineState::Compliant),
        (Step::Provide, MachineState::Available),
        (Step::Assign, MachineState::Provisioning),
        (Step::Deploy, MachineState::Verifying),
        (Step::Verify, MachineState::InService),
        (Step::Leave, MachineState::Draining),
        (Step::Drain, MachineState::Wiping),
    ] {
        take(bench, step, state).await.unwrap();
        if state == to {
            return;
        }
    }
}

async fn state(bench: &Bench) -> MachineState {
    bench.store.machine(&name("m1")).await.unwrap().unwrap().state
}

pub(crate) async fn replicas_that_claim_at_once_never_share_a_machine(bench: Bench) {
    let machines: Vec<_> = (0..40).map(|number| format!("m{number}")).collect();
    bench.declare(&machines.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut claiming = tokio::task::JoinSet::new();
    let mut others = Vec::new();
    for replica in ["a", "b", "c"] {
        // On PostgreSQL a replica has connections of its own.
        let store = if bench.is_postgres() {
            let store = Store::open(bench.options.clone()).await.unwrap();
            others.push(store.clone());
            store
        } else {
            bench.store.clone()
        };
        store.live(replica, LONG).await.unwrap();
        claiming.spawn(async move {
            let mut claimed = Vec::new();
            for _ in 0..20 {
                let leases = store.claim(replica, &name("fra1"), 3).await.unwrap();
                assert!(leases.len() <= 3, "{leases:?}");
                claimed.extend(leases.into_iter().map(|lease| lease.machine));
            }
            claimed
        });
    }
    let claimed: Vec<Name> = claiming.join_all().await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 40);
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 40);
    for store in others {
        store.close().await;
    }
}

pub(crate) async fn the_longest_overdue_is_claimed_first_and_no_more_than_asked_for(bench: Bench) {
    bench.declare(&["m1", "m2", "m3"]).await;
    bench.store.live("a", LONG).await.unwrap();
    let mut leases = claim(&bench, "a", 10).await;
    leases.sort_by(|a, b| a.machine.cmp(&b.machine));
    assert_eq!(leases.len(), 3);
    let after = |seconds| Some(Duration::from_secs(seconds));
    let back: Vec<_> = leases.into_iter().zip([after(300), after(100), after(200)]).collect();
    bench.store.release(&back).await.unwrap();
    assert_eq!(claim(&bench, "a", 2).await, []);
    bench.store.put_clock_forward(SignedDuration::from_mins(6));
    bench.store.live("a", LONG).await.unwrap();
    assert_eq!(names(&claim(&bench, "a", 2).await), ["m2", "m3"]);
    assert_eq!(names(&claim(&bench, "a", 2).await), ["m1"]);
    assert_eq!(claim(&bench, "a", 2).await, []);
}

pub(crate) async fn what_a_dead_replica_held_is_taken_over_and_what_it_records_is_refused(bench: Bench) {
    bring(&bench, MachineState::Compliant).await;
    let old = claim_one(&bench, "a").await;
    bench.store.live("b", LONG).await.unwrap();
    assert_eq!(claim(&bench, "b", 1).await, []);
    die(&bench, "a").await;
    let new = claim(&bench, "b", 1).await.remove(0);
    assert!(new.epoch > old.epoch);

    let machine = name("m1");
    let generation = bench.generation("m1").await;
    let stale = old.guard(generation);
    let problem = Problem::new("a.b", "c");
    let before = dump(&bench).await;
    let advance =
        Advance { erasure: Some(whole(None)), ..Advance::new(Step::Provide, MachineState::Available) };
    let store = &bench.store;
    let errors = [
        store.advance(&machine, stale, &advance).await.unwrap_err(),
        store.note(&machine, stale, Some(&instance()), "a.b", &serde_json::json!({})).await.unwrap_err(),
        store.remember(&machine, stale, Some(&serde_json::json!({}))).await.unwrap_err(),
        store.set_aside(&machine, stale, &problem).await.unwrap_err(),
        store.record_waiting(&machine, stale, &problem, None).await.unwrap_err(),
        store.record_facts(&machine, stale, domain::fact::Source::Ironic, &[]).await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.code() == "machine.superseded"), "{errors:?}");
    // Nor does it give back what is not its own any more.
    store.release(&[(old, None)]).await.unwrap();
    assert_eq!(dump(&bench).await, before);
    store.advance(&machine, new.guard(generation), &advance).await.unwrap();
}

/// As when the database's clock jumps.
pub(crate) async fn a_replica_whose_time_is_up_claims_nothing_until_it_says_that_it_lives(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.store.live("a", LONG).await.unwrap();
    bench.store.put_clock_forward(SignedDuration::from_hours(1));
    assert_eq!(claim(&bench, "a", 1).await, []);
    assert_eq!(names(&[claim_one(&bench, "a").await]), ["m1"]);
}

pub(crate) async fn what_a_replica_held_that_left_is_free_at_once(bench: Bench) {
    bench.declare(&["m1"]).await;
    claim_one(&bench, "a").await;
    assert_eq!(bench.store.live("b", LONG).await.unwrap(), 2);
    bench.store.leave("a").await.unwrap();
    assert_eq!(names(&claim(&bench, "b", 1).await), ["m1"]);
    assert_eq!(bench.store.live("b", LONG).await.unwrap(), 1);
}

pub(crate) async fn a_machine_given_back_is_due_when_that_was_said(bench: Bench) {
    bench.declare(&["m1"]).await;
    assert_eq!(bench.store.turn().await.unwrap().sites, [name("fra1")]);
    let lease = claim_one(&bench, "a").await;
    let turn = bench.store.turn().await.unwrap();
    assert_eq!((turn.sites, turn.next), (vec![], None));

    bench.store.release(&[(lease, Some(Duration::from_hours(1)))]).await.unwrap();
    let turn = bench.store.turn().await.unwrap();
    assert_eq!(turn.sites, []);
    let next = turn.next.unwrap();
    assert!(next > Duration::from_mins(59) && next <= Duration::from_mins(61), "{next:?}");
    assert_eq!(claim(&bench, "a", 1).await, []);

    assert!(bench.store.refresh(&name("m1"), "ada").await.unwrap());
    let lease = claim_one(&bench, "a").await;
    bench.store.release(&[(lease, None)]).await.unwrap();
    let turn = bench.store.turn().await.unwrap();
    assert_eq!((turn.sites, turn.next), (vec![], None));
}

/// A replica whose own clock is an hour ahead of the database's, or an hour behind it.
pub(crate) async fn a_wrong_clock_of_the_cells_host_makes_no_machine_early_or_late(bench: Bench) {
    bench.declare(&["m1"]).await;
    for skew in [SignedDuration::from_hours(-1), SignedDuration::from_hours(2)] {
        bench.store.put_clock_forward(skew);
        let lease = claim_one(&bench, "a").await;
        let (generation, machine) = (bench.generation("m1").await, name("m1"));
        let pause = Some(Duration::from_mins(10));
        let problem = Problem::new("a.b", "c");
        let present = bench.store.clock().await.unwrap();
        let waiting =
            bench.store.record_waiting(&machine, lease.guard(generation), &problem, pause).await.unwrap();
        let until = waiting.until.unwrap().duration_since(present);
        assert!((600..660).contains(&until.as_secs()), "{until}");
        bench.store.release(&[(lease, pause)]).await.unwrap();
        let next = bench.store.turn().await.unwrap().next.unwrap();
        assert!(next > Duration::from_mins(9) && next <= Duration::from_mins(10), "{next:?}");
        let told = bench.store.events_about("Machine/m1", 1).await.unwrap();
        assert!(told[0].at >= present, "{} {present}", told[0].at);

        bench.store.put_clock_forward(SignedDuration::from_mins(9));
        bench.store.live("a", LONG).await.unwrap();
        assert_eq!(claim(&bench, "a", 1).await, [], "early");
        bench.store.put_clock_forward(SignedDuration::from_mins(2));
        bench.store.live("a", LONG).await.unwrap();
        let lease = claim(&bench, "a", 1).await.remove(0);
        bench.store.clear_waiting(&machine, lease.guard(generation)).await.unwrap();
        bench.store.release(&[(lease, Some(Duration::ZERO))]).await.unwrap();
    }
}

/// Which a machine that waits for its turn is told.
pub(crate) async fn a_machine_that_is_due_knows_how_many_of_its_site_are_worked_on(bench: Bench) {
    bench.declare(&["m1", "m2", "m3"]).await;
    bench.store.live("a", LONG).await.unwrap();
    bench.store.live("b", LONG).await.unwrap();
    let held = claim(&bench, "a", 2).await;
    for lease in &held {
        assert_eq!(bench.store.overdue(&lease.machine).await.unwrap(), None);
    }
    let free = ["m1", "m2", "m3"]
        .into_iter()
        .find(|machine| held.iter().all(|lease| lease.machine.as_str() != *machine));
    let free = name(free.unwrap());
    assert_eq!(bench.store.overdue(&free).await.unwrap(), Some(Overdue { held: 2, replicas: 2 }));
    let lease = claim(&bench, "b", 1).await.remove(0);
    bench.store.release(&[(lease, Some(LONG))]).await.unwrap();
    assert_eq!(bench.store.overdue(&free).await.unwrap(), None, "it is not due");
}

pub(crate) async fn a_machine_woken_while_a_step_ran_is_due_at_once(bench: Bench) {
    bench.declare(&["m1"]).await;
    let lease = claim_one(&bench, "a").await;
    assert!(bench.store.refresh(&name("m1"), "ada").await.unwrap());
    assert_eq!(claim(&bench, "a", 1).await, [], "it is still being worked on");
    bench.store.release(&[(lease, None)]).await.unwrap();
    let again = claim_one(&bench, "a").await;
    bench.store.release(&[(again, None)]).await.unwrap();
    assert_eq!(claim(&bench, "a", 1).await, [], "what was woken once is due once");
    assert!(!bench.store.refresh(&name("nobody"), "ada").await.unwrap());
}

pub(crate) async fn a_changed_declaration_or_assignment_makes_a_machine_due(bench: Bench) {
    bench.declare(&["m1", "m2"]).await;
    bench.store.live("a", LONG).await.unwrap();
    let rest = async || {
        let leases = claim(&bench, "a", 9).await;
        let machines: Vec<_> = names(&leases).into_iter().map(str::to_owned).collect();
        let back: Vec<_> = leases.into_iter().map(|lease| (lease, None)).collect();
        bench.store.release(&back).await.unwrap();
        machines
    };
    assert_eq!(rest().await, ["m1", "m2"]);
    let mut yaml = world(&["m1", "m2"]);
    bench.apply(&(yaml.clone() + POOL), &[]).await;
    assert!(rest().await.contains(&"m1".to_owned()));
    yaml = yaml.replacen("10.0.0.5", "10.0.0.6", 1);
    bench.apply(&(yaml + POOL), &[]).await;
    assert_eq!(rest().await, ["m1"]);
}

pub(crate) async fn a_step_that_does_not_follow_is_refused(bench: Bench) {
    bring(&bench, MachineState::Inspected).await;
    let before = dump(&bench).await;
    for to in MachineState::ALL {
        if MachineState::Inspected.may_become(to) {
            continue;
        }
        assert_eq!(take(&bench, Step::Check, to).await.unwrap_err().code(), "machine.wrong-state", "{to}");
    }
    assert_eq!(dump(&bench).await, before);
}

pub(crate) async fn a_used_machine_is_available_after_a_whole_erasure_alone(bench: Bench) {
    bring(&bench, MachineState::Wiping).await;
    let generation = bench.generation("m1").await;
    let of = instance();
    let mut incomplete = whole(Some(&of));
    incomplete.items.remove(2);
    let frozen = erasure(Erased::NotErased { reason: "frozen".into() }, Some(&of));
    for to in [MachineState::Available, MachineState::Retired] {
        for found in [None, Some(incomplete.clone()), Some(frozen.clone())] {
            let advance = Advance { erasure: found, ..Advance::new(Step::Wipe, to) };
            let error = bench.store.advance(&name("m1"), generation, &advance).await.unwrap_err();
            assert_eq!(error.code(), "machine.no-erasure");
        }
    }
    assert_eq!(bench.store.erasures(&name("m1")).await.unwrap().len(), 1);

    let advance =
        Advance { erasure: Some(whole(Some(&of))), ..Advance::new(Step::Wipe, MachineState::Available) };
    bench.store.advance(&name("m1"), generation, &advance).await.unwrap();
    let machine = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    assert_eq!((machine.state, machine.instance), (MachineState::Available, None));
    let erasures = bench.store.erasures(&name("m1")).await.unwrap();
    assert_eq!(erasures.len(), 2);
    assert_eq!((erasures[0].instance, erasures[1].instance), (Some(of.id), None));
    assert!(bench.kinds(0).await.ends_with(&["machine.erased".into(), "machine.available".into()]));
}

pub(crate) async fn no_statement_changes_the_record_of_an_erasure(bench: Bench) {
    bring(&bench, MachineState::Available).await;
    let mut raw = bench.raw().await;
    for sql in ["UPDATE erasures SET machine = 'm9'", "DELETE FROM erasures"] {
        raw.execute(AssertSqlSafe(sql)).await.unwrap_err();
    }
    assert_eq!(rows_of(&bench, "erasures", "m1").await, 1);
}

pub(crate) async fn a_machine_set_aside_has_that_written_into_its_assignment(bench: Bench) {
    bring(&bench, MachineState::InService).await;
    bench.apply(&(world(&["m1"]) + POOL), &[]).await;
    let problem = Problem::new("node.other-machine", "it is not itself");
    bench.store.set_aside(&name("m1"), bench.generation("m1").await, &problem).await.unwrap();
    let record = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    assert_eq!(record.state, MachineState::Quarantined);
    assert_eq!(record.instance, Some(instance()), "what it was used for is not erased yet");
    let declared = bench.store.declaration(Kind::Assignment, &name("m1")).await.unwrap().unwrap();
    let spec = match declared.spec {
        Spec::Assignment(spec) => Some(spec),
        _ => None,
    };
    let spec = spec.unwrap();
    assert_eq!(spec.base_cluster, Some(name("pool")));
    assert_eq!(spec.quarantine.unwrap().reason, "it is not itself [node.other-machine]");
    // A machine is set aside once.
    let again = bench.store.set_aside(&name("m1"), bench.generation("m1").await, &problem).await;
    assert_eq!(again.unwrap_err().code(), "machine.wrong-state");
}

pub(crate) async fn a_machine_without_an_assignment_gets_one_when_it_is_set_aside(bench: Bench) {
    bring(&bench, MachineState::Available).await;
    let problem = Problem::new("node.false-claim", "it lies");
    bench.store.set_aside(&name("m1"), bench.generation("m1").await, &problem).await.unwrap();
    let declared = bench.store.declaration(Kind::Assignment, &name("m1")).await.unwrap().unwrap();
    assert!(matches!(declared.spec, Spec::Assignment(spec) if spec.quarantine.is_some()));
}

pub(crate) async fn what_a_step_does_by_an_assignment_names_who_changed_that_last(bench: Bench) {
    bring(&bench, MachineState::Available).await;
    let newest = async || bench.store.history(&name("m1"), 1).await.unwrap().remove(0);
    assert_eq!(newest().await.data.get("orderedBy"), None, "nobody has ordered anything");
    bench.apply(&(world(&["m1"]) + POOL), &[]).await;
    let order = newest().await;
    assert_eq!((order.subject.as_str(), order.kind.as_str()), ("Assignment/m1", "declaration.created"));
    take(&bench, Step::Assign, MachineState::Provisioning).await.unwrap();
    let taken = newest().await;
    assert_eq!(
        (taken.actor.as_str(), taken.data["orderedBy"].as_str()),
        ("cell", Some(order.actor.as_str()))
    );

    // What the cell itself has written into the assignment is nobody's order.
    let problem = Problem::new("node.false-claim", "it lies");
    bench.store.set_aside(&name("m1"), bench.generation("m1").await, &problem).await.unwrap();
    take(&bench, Step::Readmit, MachineState::Inspected).await.unwrap();
    assert_eq!(newest().await.data.get("orderedBy"), None);
}

pub(crate) async fn machines_that_rest_for_want_of_a_service_are_due_and_no_others(bench: Bench) {
    let all = ["rests", "waits", "refused"];
    bench.declare(&all).await;
    for machine in all {
        bench.discover(machine).await;
        bench.enrol(machine, &server(machine, &[]), at(0)).await.unwrap();
    }
    for (machine, code, pause) in
        [("waits", "provision.not-configured", None), ("refused", "bmc.unauthorized", Some(LONG))]
    {
        let generation = bench.generation(machine).await;
        bench
            .store
            .record_waiting(&name(machine), generation, &Problem::new(code, "c"), pause)
            .await
            .unwrap();
    }
    bench.store.live("a", LONG).await.unwrap();
    let leases = claim(&bench, "a", 10).await;
    let released: Vec<_> = leases.into_iter().map(|lease| (lease, None)).collect();
    bench.store.release(&released).await.unwrap();
    assert!(claim(&bench, "a", 10).await.is_empty());
    bench.store.wake_unserved(&["provision.not-configured"]).await.unwrap();
    assert_eq!(names(&claim(&bench, "a", 10).await), ["rests", "waits"]);
}

pub(crate) async fn a_machine_that_is_handed_over_is_neither_deleted_nor_moved(bench: Bench) {
    bring(&bench, MachineState::Available).await;
    let other_site = world(&["m1"]).replace("metadata: {name: fra1}", "metadata: {name: fra2}");
    bench.apply(&other_site.replace(&machine_document("m1", "10.0.0.5", ""), ""), &[]).await;
    let before = state(&bench).await;
    let delete = bench.plan(&[], &[(Kind::Machine, name("m1"))], &[]).await;
    let moved = machine_document("m1", "10.0.0.5", "").replace("site: fra1", "site: fra2");
    let moved = bench.plan(&declared(&moved), &[], &[]).await;
    for plan in [delete, moved] {
        assert!(!plan.changes.is_empty());
        bench.store.save_plan(&plan, &std::collections::BTreeMap::new(), "ada").await.unwrap();
        let error = bench.store.apply_plan(&plan.digest, "bob").await.unwrap_err();
        assert_eq!(error.code(), "machine.in-use");
    }
    assert_eq!(state(&bench).await, before);
    let retire = take(&bench, Step::Retire, MachineState::Retired).await;
    retire.unwrap();
    let plan = bench.plan(&[], &[(Kind::Machine, name("m1"))], &[]).await;
    bench.save_and_apply(&plan, &[]).await;
    assert_eq!(bench.store.machine(&name("m1")).await.unwrap(), None);
    assert_eq!(
        bench.store.erasures(&name("m1")).await.unwrap().len(),
        1,
        "what was erased is told long after"
    );
}

pub(crate) async fn what_a_step_remembers_is_forgotten_with_the_state(bench: Bench) {
    bring(&bench, MachineState::Inspected).await;
    let guard = Guard::from(bench.generation("m1").await);
    let work = serde_json::json!({ "phase": "clean" });
    bench.store.remember(&name("m1"), guard, Some(&work)).await.unwrap();
    assert_eq!(bench.store.machine(&name("m1")).await.unwrap().unwrap().work, Some(work));
    take(&bench, Step::Check, MachineState::Compliant).await.unwrap();
    assert_eq!(bench.store.machine(&name("m1")).await.unwrap().unwrap().work, None);
}

/// It looked at its lease, and has not ended: whoever claimed the machine now would read what it was before, and do the same again.
pub(crate) async fn a_machine_of_which_something_is_being_recorded_is_claimed_by_nobody(bench: Bench) {
    bench.apply(&world(&["m1"]), &[]).await;
    let lease = claim_one(&bench, "a").await;
    let guard = lease.guard(bench.generation("m1").await);
    let mut raw = bench.raw().await;
    raw.execute("BEGIN").await.unwrap();
    raw.execute("LOCK TABLE events IN EXCLUSIVE MODE").await.unwrap();
    let store = bench.store.clone();
    let recording = tokio::spawn(async move {
        let data = serde_json::json!({});
        store.note(&name("m1"), guard, None, "machine.acted", &data).await
    });
    // In a transaction it would be seen as it was at the first look.
    let mut other = bench.raw().await;
    let waiting = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND query LIKE 'INSERT INTO events%' AND datname = current_database()";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut other).await.unwrap() == 0 {
        assert!(!recording.is_finished());
        tokio::task::yield_now().await;
    }
    // The replica sleeps past its time.
    other.execute("UPDATE replicas SET until = 0 WHERE id = 'a'").await.unwrap();
    other.execute("INSERT INTO replicas (id, until) VALUES ('b', 9000000000000)").await.unwrap();
    let another = Store::open(bench.options.clone()).await.unwrap();
    assert_eq!(another.claim("b", &name("fra1"), 1).await.unwrap(), []);

    raw.execute("ROLLBACK").await.unwrap();
    recording.await.unwrap().unwrap();
    assert_eq!(names(&another.claim("b", &name("fra1"), 1).await.unwrap()), ["m1"]);
}
