//! Who may report, what is kept of it, and when silence counts.

use crate::bench::{Bench, at, name, server};
use crate::faults::dump;
use bailiwick_store::{Authority, AuthorityKey, EnrolmentId, StoreError, Zeroizing};
use domain::agent::{Report, ScrubMethod, ScrubRecord};
use domain::gpu_views::AcceptedGpu;
use domain::probe::{Host, Probe, ProbedGpu};
use domain::{Digest, Problem, fact};
use jiff::Timestamp;
use sqlx::Executor as _;
use std::time::Duration;

const LONG: Duration = Duration::from_mins(10);
const UUID: &str = "00000000-0000-0000-0000-0000000000S1";

fn key(number: u8) -> Digest {
    Digest::of(&[number])
}

/// An enrolled machine `m1` with serial `S1`.
async fn machine(bench: &Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    bench.enrol("m1", &server("S1", &["G1"]), at(0)).await.unwrap();
}

async fn token(bench: &Bench, life: Duration) -> Digest {
    Digest::of(bench.store.create_agent_token(&name("m1"), life, "ada").await.unwrap().as_ref())
}

async fn enrol(bench: &Bench) -> EnrolmentId {
    let token = token(bench, LONG).await;
    bench.store.enrol_agent(&token, &key(1), Some(UUID)).await.unwrap().1
}

fn probe(gpus: &[&str]) -> Probe {
    Probe {
        taken: Timestamp::UNIX_EPOCH,
        boot_id: None,
        host: Host { hostname: None, system_uuid: Some(UUID.to_ascii_lowercase()) },
        driver: None,
        confidential_computing: None,
        gpus: gpus
            .iter()
            .map(|uuid| ProbedGpu { uuid: Some((*uuid).to_owned()), ..ProbedGpu::default() })
            .collect(),
        diagnostics: Vec::new(),
    }
}

fn report(probe: &Probe, registered: Option<Timestamp>) -> Report {
    Report {
        version: "1".into(),
        digest: probe.digest(),
        registered,
        boot_id: "b".into(),
        prepared: Vec::new(),
        problems: Vec::new(),
        scrubs: Vec::new(),
        probe: None,
    }
}

fn with_body(probe: &Probe, registered: Option<Timestamp>) -> Report {
    Report { probe: Some(Box::new(probe.clone())), ..report(probe, registered) }
}

fn code<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    result.unwrap_err().code()
}

pub(crate) async fn a_token_lets_in_the_agent_of_its_machine_once(bench: Bench) {
    machine(&bench).await;
    let token = token(&bench, LONG).await;
    let (machine, enrolment) = bench.store.enrol_agent(&token, &key(1), Some(UUID)).await.unwrap();
    assert_eq!(machine, name("m1"));
    bench.store.admit_agent(&machine, enrolment).await.unwrap();
    assert_eq!(code(bench.store.enrol_agent(&token, &key(2), Some(UUID)).await), "agent.token-used");
    bench.store.admit_agent(&machine, enrolment).await.unwrap();
}

pub(crate) async fn an_agent_whose_first_answer_was_lost_may_ask_again_with_its_key(bench: Bench) {
    machine(&bench).await;
    let token = token(&bench, LONG).await;
    bench.store.enrol_agent(&token, &key(1), Some(UUID)).await.unwrap();
    let (_, enrolment) = bench.store.enrol_agent(&token, &key(1), Some(UUID)).await.unwrap();
    bench.store.admit_agent(&name("m1"), enrolment).await.unwrap();
}

pub(crate) async fn a_token_that_is_late_or_unknown_or_replaced_is_refused(bench: Bench) {
    machine(&bench).await;
    let late = token(&bench, Duration::ZERO).await;
    assert_eq!(code(bench.store.enrol_agent(&late, &key(1), Some(UUID)).await), "agent.token-late");
    assert_eq!(code(bench.store.enrol_agent(&key(9), &key(1), Some(UUID)).await), "agent.token-unknown");
    let first = token(&bench, LONG).await;
    token(&bench, LONG).await;
    assert_eq!(code(bench.store.enrol_agent(&first, &key(1), Some(UUID)).await), "agent.token-unknown");
}

pub(crate) async fn a_token_is_of_no_use_on_another_machine_and_stays_for_its_own(bench: Bench) {
    machine(&bench).await;
    let token = token(&bench, LONG).await;
    for host in [None, Some("00000000-0000-0000-0000-0000000000S2")] {
        assert_eq!(code(bench.store.enrol_agent(&token, &key(1), host).await), "agent.other-machine");
    }
    bench.store.enrol_agent(&token, &key(1), Some(UUID)).await.unwrap();
}

pub(crate) async fn a_machine_whose_identity_is_not_checked_has_no_agent(bench: Bench) {
    bench.declare(&["m1"]).await;
    let made = bench.store.create_agent_token(&name("m1"), LONG, "ada").await;
    assert_eq!(code(made), "agent.not-allowed");
    let made = bench.store.create_agent_token(&name("m2"), LONG, "ada").await;
    assert_eq!(code(made), "declaration.not-found");
}

pub(crate) async fn a_new_enrolment_ends_the_one_before(bench: Bench) {
    machine(&bench).await;
    let first = enrol(&bench).await;
    let second = enrol(&bench).await;
    assert_eq!(code(bench.store.admit_agent(&name("m1"), first).await), "agent.ended");
    let said = bench.store.record_report(&name("m1"), first, &report(&probe(&[]), None), LONG, true).await;
    assert_eq!(code(said), "agent.ended");
    bench.store.admit_agent(&name("m1"), second).await.unwrap();
}

pub(crate) async fn a_machine_that_is_set_aside_ends_its_agent_and_what_it_said(bench: Bench) {
    machine(&bench).await;
    let enrolment = enrol(&bench).await;
    let probe = probe(&["GPU-1"]);
    bench.store.record_report(&name("m1"), enrolment, &with_body(&probe, None), LONG, true).await.unwrap();
    let generation = bench.generation("m1").await;
    bench.store.set_aside(&name("m1"), generation, &Problem::new("x.y", "odd")).await.unwrap();
    assert_eq!(code(bench.store.admit_agent(&name("m1"), enrolment).await), "agent.ended");
    assert_eq!(bench.store.agents().await.unwrap(), []);
    let facts = bench.store.facts(&name("m1")).await.unwrap();
    assert!(facts.iter().all(|fact| fact.source != fact::Source::Nvml));
    assert_eq!(code(bench.store.create_agent_token(&name("m1"), LONG, "ada").await), "agent.not-allowed");
}

pub(crate) async fn what_was_left_of_a_use_lets_no_agent_in_after_it(bench: Bench) {
    machine(&bench).await;
    let used = token(&bench, LONG).await;
    bench.store.enrol_agent(&used, &key(1), Some(UUID)).await.unwrap();
    let unused = token(&bench, LONG).await;
    let generation = bench.generation("m1").await;
    bench.store.set_aside(&name("m1"), generation, &Problem::new("x.y", "odd")).await.unwrap();
    for token in [used, unused] {
        assert_eq!(code(bench.store.enrol_agent(&token, &key(1), Some(UUID)).await), "agent.token-unknown");
    }
}

pub(crate) async fn the_body_of_a_probe_is_asked_for_once(bench: Bench) {
    machine(&bench).await;
    let (m1, enrolment) = (name("m1"), enrol(&bench).await);
    let probe = probe(&["GPU-1"]);
    for _ in 0..2 {
        let reported =
            bench.store.record_report(&m1, enrolment, &report(&probe, None), LONG, true).await.unwrap();
        assert!(reported.probe_wanted);
    }
    let reported =
        bench.store.record_report(&m1, enrolment, &with_body(&probe, None), LONG, true).await.unwrap();
    assert!(!reported.probe_wanted && reported.changed);
    let before = bench.last().await;
    let reported =
        bench.store.record_report(&m1, enrolment, &report(&probe, None), LONG, true).await.unwrap();
    assert_eq!(reported, bailiwick_store::Reported { kept: true, ..Default::default() });
    assert_eq!(bench.last().await, before, "an agent that says the same again is no event");
    let agent = bench.store.agent(&m1).await.unwrap().unwrap();
    assert_eq!(*agent.probe.unwrap().probe, probe);
    assert!(agent.alive && agent.reported_at.is_some());
    let facts = bench.store.facts(&m1).await.unwrap();
    assert!(facts.iter().any(|fact| fact.source == fact::Source::Nvml && fact.key == "gpus/GPU-1/index"));
}

pub(crate) async fn registering_leaving_and_registering_anew_are_each_an_event(bench: Bench) {
    machine(&bench).await;
    let (m1, enrolment, probe) = (name("m1"), enrol(&bench).await, probe(&[]));
    bench.store.record_report(&m1, enrolment, &with_body(&probe, None), LONG, true).await.unwrap();
    let before = bench.last().await;
    for registered in [Some(at(1)), Some(at(1)), Some(at(2)), None] {
        bench.store.record_report(&m1, enrolment, &report(&probe, registered), LONG, true).await.unwrap();
        assert_eq!(bench.store.agent(&m1).await.unwrap().unwrap().registered, registered);
    }
    assert_eq!(bench.kinds(before).await, ["agent.registered", "agent.registered", "agent.unregistered"]);
}

pub(crate) async fn silence_ends_a_registration_once_and_the_next_report_mends_it(bench: Bench) {
    machine(&bench).await;
    let (m1, enrolment, probe) = (name("m1"), enrol(&bench).await, probe(&[]));
    let report = with_body(&probe, Some(at(1)));
    bench.store.record_report(&m1, enrolment, &report, LONG, true).await.unwrap();
    assert_eq!(bench.store.lapse_agents().await.unwrap(), []);
    bench.store.record_report(&m1, enrolment, &report, Duration::ZERO, true).await.unwrap();
    assert_eq!(bench.store.lapse_agents().await.unwrap(), std::slice::from_ref(&m1));
    let agent = bench.store.agent(&m1).await.unwrap().unwrap();
    assert!(!agent.alive && agent.registered.is_none());
    assert_eq!(bench.store.lapse_agents().await.unwrap(), []);
    let before = bench.last().await;
    let reported = bench.store.record_report(&m1, enrolment, &report, LONG, true).await.unwrap();
    assert!(reported.changed);
    // Told, so that nobody goes on with what was read while it was silent.
    assert!(bench.kinds(before).await.contains(&"agent.reporting".to_owned()));
    assert_eq!(bench.store.agent(&m1).await.unwrap().unwrap().registered, Some(at(1)));
}

pub(crate) async fn agents_are_spared_the_silence_of_the_cell(bench: Bench) {
    machine(&bench).await;
    let (m1, enrolment, probe) = (name("m1"), enrol(&bench).await, probe(&[]));
    let report = with_body(&probe, Some(at(1)));
    bench.store.record_report(&m1, enrolment, &report, Duration::ZERO, true).await.unwrap();
    bench.store.spare_agents(LONG).await.unwrap();
    assert_eq!(bench.store.lapse_agents().await.unwrap(), []);
}

pub(crate) async fn a_probe_that_its_agent_says_is_another_by_now_is_forgotten_and_asked_for(bench: Bench) {
    machine(&bench).await;
    let (m1, enrolment, first, next) =
        (name("m1"), enrol(&bench).await, probe(&["GPU-1"]), probe(&["GPU-2"]));
    let short = Duration::ZERO;
    bench.store.record_report(&m1, enrolment, &with_body(&first, None), LONG, true).await.unwrap();
    assert_eq!(bench.store.lapse_probes().await.unwrap(), []);
    // The time of the probe that is here is not renewed by a report of another one.
    bench.store.record_report(&m1, enrolment, &report(&first, None), short, true).await.unwrap();
    bench.store.record_report(&m1, enrolment, &report(&next, None), LONG, true).await.unwrap();
    assert!(bench.store.agent(&m1).await.unwrap().unwrap().probe.is_some());
    assert_eq!(bench.store.lapse_probes().await.unwrap(), std::slice::from_ref(&m1));
    assert_eq!(bench.store.agent(&m1).await.unwrap().unwrap().probe, None);
    assert_eq!(bench.store.lapse_probes().await.unwrap(), []);
    let reported =
        bench.store.record_report(&m1, enrolment, &report(&first, None), LONG, true).await.unwrap();
    assert!(reported.probe_wanted);
}

pub(crate) async fn a_report_that_may_not_be_told_is_a_sign_of_life_and_kept_from_a_later_one(bench: Bench) {
    machine(&bench).await;
    let (m1, enrolment, probe) = (name("m1"), enrol(&bench).await, probe(&[]));
    bench.store.record_report(&m1, enrolment, &with_body(&probe, None), LONG, true).await.unwrap();
    let before = bench.last().await;
    let registered = report(&probe, Some(at(1)));
    for _ in 0..2 {
        let reported = bench.store.record_report(&m1, enrolment, &registered, LONG, false).await.unwrap();
        assert_eq!(reported, bailiwick_store::Reported::default());
    }
    assert_eq!(
        (bench.last().await, bench.store.agent(&m1).await.unwrap().unwrap().registered),
        (before, None)
    );
    let reported = bench.store.record_report(&m1, enrolment, &registered, LONG, true).await.unwrap();
    assert!(reported.told && reported.changed);
    // What no event tells of is kept either way.
    let mut prepared = registered.clone();
    prepared.version = "2".into();
    bench.store.record_report(&m1, enrolment, &prepared, LONG, false).await.unwrap();
    assert_eq!(bench.store.agent(&m1).await.unwrap().unwrap().version.as_deref(), Some("2"));
}

pub(crate) async fn each_scrub_is_one_event_however_often_it_is_told(bench: Bench) {
    machine(&bench).await;
    let (m1, enrolment, probe) = (name("m1"), enrol(&bench).await, probe(&[]));
    let scrub = |number: i64, failure: Option<&str>| ScrubRecord {
        at: at(number),
        device: "gpu-1".into(),
        gpu: "GPU-1".into(),
        claim: None,
        method: ScrubMethod::Reset,
        ecc_before: Some(1),
        ecc_after: Some(0),
        failure: failure.map(str::to_owned),
    };
    bench.store.record_report(&m1, enrolment, &with_body(&probe, None), LONG, true).await.unwrap();
    let before = bench.last().await;
    let mut telling = report(&probe, None);
    telling.scrubs = vec![scrub(1, Some("busy"))];
    let refused = bench.store.record_report(&m1, enrolment, &telling, LONG, false).await.unwrap();
    assert!(!refused.kept && bench.kinds(before).await.is_empty());
    for _ in 0..2 {
        assert!(bench.store.record_report(&m1, enrolment, &telling, LONG, true).await.unwrap().kept);
    }
    assert!(bench.store.record_report(&m1, enrolment, &report(&probe, None), LONG, true).await.unwrap().kept);
    // Another agent of the host, or one that was started anew, tells all that it knows.
    telling.scrubs.push(scrub(2, None));
    bench.store.record_report(&m1, enrolment, &telling, LONG, true).await.unwrap();
    assert_eq!(bench.kinds(before).await, ["gpu.scrub-failed", "gpu.scrubbed"]);
    assert_eq!(bench.store.agent(&m1).await.unwrap().unwrap().scrubs, telling.scrubs);
    let events = bench.store.events_about("Machine/m1", 1).await.unwrap();
    assert_eq!((&events[0].data["gpu"], &events[0].data["eccBefore"]), (&"GPU-1".into(), &1.into()));
}

pub(crate) async fn what_an_agent_says_of_its_problems_is_cut_in_the_log(bench: Bench) {
    machine(&bench).await;
    let (enrolment, probe) = (enrol(&bench).await, probe(&[]));
    let mut long = with_body(&probe, None);
    long.problems = vec![Problem::new("agent.plugin", "x".repeat(100_000))];
    bench.store.record_report(&name("m1"), enrolment, &long, LONG, true).await.unwrap();
    let events = bench.store.events_about("Machine/m1", 10).await.unwrap();
    let told = events.iter().find(|event| event.kind == "agent.problems").unwrap();
    assert!(told.data.to_string().len() < 1000);
}

pub(crate) async fn whose_token_it_is_is_told_before_it_is_used_and_of_one_that_nobody_made_nothing(
    bench: Bench,
) {
    machine(&bench).await;
    let token = token(&bench, LONG).await;
    assert_eq!(bench.store.agent_token(&token).await.unwrap(), name("m1"));
    assert_eq!(code(bench.store.agent_token(&key(9)).await), "agent.token-unknown");
}

pub(crate) async fn gpus_are_accepted_where_they_are_first_seen_and_by_people(bench: Bench) {
    machine(&bench).await;
    let gpu = |machine: &str, identities: &[&str]| AcceptedGpu {
        machine: name(machine),
        identities: identities.iter().map(|identity| (*identity).to_owned()).collect(),
    };
    let first = gpu("m1", &["serial/g1", "uuid/u1"]);
    // m1 is enrolled and not in service: nothing is written by itself.
    bench.store.accept_new_gpus(&name("m1"), std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(bench.store.accepted_gpus().await.unwrap(), []);
    let in_service = "UPDATE machines SET state = 'in-service' WHERE name = 'm1'";
    bench.raw().await.execute(in_service).await.unwrap();
    let before = bench.last().await;
    bench.store.accept_new_gpus(&name("m1"), std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(bench.store.accepted_gpus().await.unwrap(), std::slice::from_ref(&first));
    bench.store.accept_new_gpus(&name("m1"), std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(bench.kinds(before).await, ["gpu.accepted"], "once");

    bench.declare(&["m1", "m2"]).await;
    let moved = gpu("m2", &["serial/g1", "uuid/u1"]);
    bench.raw().await.execute("UPDATE machines SET state = 'in-service' WHERE name = 'm2'").await.unwrap();
    bench.store.accept_new_gpus(&name("m2"), std::slice::from_ref(&moved)).await.unwrap();
    assert_eq!(bench.store.accepted_gpus().await.unwrap(), [first], "accepted elsewhere");
    bench.store.accept_gpus(&name("m2"), std::slice::from_ref(&moved), "ada").await.unwrap();
    assert_eq!(bench.store.accepted_gpus().await.unwrap(), [moved]);
    bench.store.accept_gpus(&name("m2"), &[], "ada").await.unwrap();
    assert_eq!(bench.store.accepted_gpus().await.unwrap(), []);
}

pub(crate) async fn a_probe_of_another_host_is_refused(bench: Bench) {
    machine(&bench).await;
    let enrolment = enrol(&bench).await;
    let mut copied = probe(&["GPU-1"]);
    copied.host.system_uuid = Some("00000000-0000-0000-0000-0000000000s2".into());
    let said = bench.store.record_report(&name("m1"), enrolment, &with_body(&copied, None), LONG, true).await;
    assert_eq!(code(said), "agent.other-machine");
    assert_eq!(bench.store.agent(&name("m1")).await.unwrap().unwrap().probe, None);
}

pub(crate) async fn signing_keys_are_made_once_and_sealed(bench: Bench) {
    let key = |text: &str| AuthorityKey {
        certificate: Some("cert".into()),
        key: Zeroizing::new(format!("planted-{text}")),
    };
    assert!(bench.store.authority(Authority::Agents).await.unwrap().is_none());
    for made in ["first", "second"] {
        let kept = bench.store.keep_authority(Authority::Agents, key(made)).await.unwrap();
        assert_eq!(kept.key.as_str(), "planted-first");
    }
    assert!(!dump(&bench).await.join("\n").contains("planted"));
    let kept = bench.store.authority(Authority::Agents).await.unwrap();
    assert!(!format!("{kept:?}").contains("planted"));
    // A sealed key that was moved to another purpose does not open there.
    let moved = "INSERT INTO authorities (purpose, sealed) SELECT 'permits', sealed FROM authorities";
    bench.raw().await.execute(moved).await.unwrap();
    assert_eq!(code(bench.store.authority(Authority::Permits).await), "store.unsealable");
}
