//! Tokens by which machines that are provisioned enrol their own agents.

use crate::bench::{Bench, at, name};
use crate::queue::{bring, instance, take};
use bailiwick_store::StoreError;
use domain::{Digest, Instance, MachineState, Problem, Step};
use sqlx::{AssertSqlSafe, Executor as _};
use std::time::Duration;

const LONG: Duration = Duration::from_mins(10);
const UUID: &str = "00000000-0000-0000-0000-0000000000S1";

fn key(number: u8) -> Digest {
    Digest::of(&[number])
}

/// The token of a use, as far as the store is concerned.
fn token(instance: &Instance) -> Digest {
    Digest::of(instance.id.as_bytes())
}

/// What the step does that deploys this use.
async fn keep(bench: &Bench, instance: &Instance, life: Duration) -> Result<(), StoreError> {
    let generation = bench.generation("m1").await;
    bench.store.keep_agent_token(&name("m1"), generation, instance, &token(instance), life).await
}

async fn enrol(bench: &Bench, instance: &Instance, key: &Digest) -> Result<(), StoreError> {
    bench.store.enrol_agent(&token(instance), key, Some(UUID)).await.map(drop)
}

fn code(result: Result<(), StoreError>) -> &'static str {
    result.unwrap_err().code()
}

async fn force(bench: &Bench, state: MachineState) {
    let sql = format!("UPDATE machines SET state = '{state}' WHERE name = 'm1'");
    bench.raw().await.execute(AssertSqlSafe(sql)).await.unwrap();
}

pub(crate) async fn a_machine_that_is_provisioned_lets_its_agent_in_once_it_is_a_node(bench: Bench) {
    bring(&bench, MachineState::Provisioning).await;
    keep(&bench, &instance(), LONG).await.unwrap();
    assert_eq!(code(enrol(&bench, &instance(), &key(1)).await), "agent.not-allowed");
    take(&bench, Step::Deploy, MachineState::Verifying).await.unwrap();
    enrol(&bench, &instance(), &key(1)).await.unwrap();
    // Its answer may be lost.
    enrol(&bench, &instance(), &key(1)).await.unwrap();
    assert_eq!(code(enrol(&bench, &instance(), &key(2)).await), "agent.token-used");
}

pub(crate) async fn a_step_that_is_taken_again_finds_its_token_as_it_is(bench: Bench) {
    bring(&bench, MachineState::Provisioning).await;
    let before = bench.last().await;
    keep(&bench, &instance(), Duration::ZERO).await.unwrap();
    keep(&bench, &instance(), LONG).await.unwrap();
    assert_eq!(bench.kinds(before).await, ["agent.token-created"]);
    take(&bench, Step::Deploy, MachineState::Verifying).await.unwrap();
    assert_eq!(code(enrol(&bench, &instance(), &key(1)).await), "agent.token-late");
}

pub(crate) async fn a_token_that_was_used_stays_used_when_its_step_is_taken_again(bench: Bench) {
    bring(&bench, MachineState::Provisioning).await;
    keep(&bench, &instance(), LONG).await.unwrap();
    take(&bench, Step::Deploy, MachineState::Verifying).await.unwrap();
    enrol(&bench, &instance(), &key(1)).await.unwrap();
    assert_eq!(code(keep(&bench, &instance(), LONG).await), "machine.superseded");
    // Nor would it be good again if the machine were where it was.
    force(&bench, MachineState::Provisioning).await;
    keep(&bench, &instance(), LONG).await.unwrap();
    force(&bench, MachineState::Verifying).await;
    assert_eq!(code(enrol(&bench, &instance(), &key(2)).await), "agent.token-used");
}

pub(crate) async fn another_deployment_has_a_token_of_its_own(bench: Bench) {
    bring(&bench, MachineState::Provisioning).await;
    keep(&bench, &instance(), LONG).await.unwrap();
    let next: Instance = serde_json::from_value(serde_json::json!({
        "id": "6a1f0c1e-0000-4000-8000-000000000002", "baseCluster": "pool", "zone": null, "since": at(0),
    }))
    .unwrap();
    assert_eq!(code(keep(&bench, &next, LONG).await), "machine.superseded");
    let (m1, generation) = (name("m1"), bench.generation("m1").await);
    let kind = "machine.deployment-failed";
    bench.store.note(&m1, generation, Some(&next), kind, &serde_json::json!({})).await.unwrap();
    keep(&bench, &next, LONG).await.unwrap();
    assert_eq!(code(keep(&bench, &instance(), LONG).await), "machine.superseded");
    take(&bench, Step::Deploy, MachineState::Verifying).await.unwrap();
    assert_eq!(code(enrol(&bench, &instance(), &key(1)).await), "agent.token-unknown");
    enrol(&bench, &next, &key(1)).await.unwrap();
}

pub(crate) async fn a_token_made_by_hand_takes_the_place_of_the_machines_own(bench: Bench) {
    bring(&bench, MachineState::Provisioning).await;
    keep(&bench, &instance(), LONG).await.unwrap();
    take(&bench, Step::Deploy, MachineState::Verifying).await.unwrap();
    bench.store.create_agent_token(&name("m1"), LONG, "ada").await.unwrap();
    assert_eq!(code(enrol(&bench, &instance(), &key(1)).await), "agent.token-unknown");
}

pub(crate) async fn a_machine_that_is_wiped_or_set_aside_has_no_token_any_more_and_gets_none(bench: Bench) {
    bring(&bench, MachineState::Provisioning).await;
    keep(&bench, &instance(), LONG).await.unwrap();
    take(&bench, Step::Leave, MachineState::Wiping).await.unwrap();
    for state in [MachineState::Wiping, MachineState::InService] {
        assert_eq!(code(keep(&bench, &instance(), LONG).await), "machine.superseded");
        assert_eq!(code(enrol(&bench, &instance(), &key(1)).await), "agent.token-unknown", "{state}");
        // Wherever it is later on.
        force(&bench, MachineState::InService).await;
    }
    force(&bench, MachineState::Provisioning).await;
    keep(&bench, &instance(), LONG).await.unwrap();
    take(&bench, Step::Deploy, MachineState::Verifying).await.unwrap();
    let generation = bench.generation("m1").await;
    bench.store.set_aside(&name("m1"), generation, &Problem::new("x.y", "odd")).await.unwrap();
    assert_eq!(code(enrol(&bench, &instance(), &key(1)).await), "agent.token-unknown");
}
