//! Whose clock counts, and when a token ends.

use crate::faults::{SECRETS, deploys, serve, shelved};
use crate::line::{Line, joins, pool};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sim::{Action, Fault, JoinOutcome};
use std::sync::{Arc, Mutex};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// One machine on the shelf; tokens live for a minute.
async fn short_lived() -> (Line, String) {
    let (line, name) = shelved().await;
    let mut pool = pool();
    pool["spec"]["tokenMinutes"] = 1.into();
    line.client.apply(vec![pool], &[]).await;
    (line, name)
}

async fn count(line: &Line, name: &str, kind: &str) -> usize {
    line.history(name).await.iter().filter(|seen| *seen == kind).count()
}

/// The host of the cell is behind its database and the base cluster, which agree: to it, every token has ended before it is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_cell_whose_own_clock_is_an_hour_behind_provisions_all_the_same() {
    let line = Line::start(1).await;
    line.pass(SignedDuration::from_hours(1));
    line.declare().await;
    line.arrive("available").await;
    let name = line.names().remove(0);
    line.assign(serve(), "in-service").await;
    assert_eq!(deploys(&line, &name), 1);
    let machine = line.client.get(&format!("/api/v1/machines/{name}")).await;
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let soon = Timestamp::now() + SignedDuration::from_mins(50);
    assert!(time(&machine["since"]) > soon, "{machine}");
    assert!(time(&machine["observedAt"]) > soon, "{machine}");
    line.release().await;
    line.erased(&name, 1).await;
    let erasures = line.client.get(&format!("/api/v1/machines/{name}/erasures")).await;
    assert!(time(&erasures[0]["at"]) > soon, "{erasures}");
}

async fn a_wrong_api_server_is_told(ahead: SignedDuration) {
    let (line, name) = shelved().await;
    line.cluster.put_clock_forward(ahead);
    line.want(&name, serve()).await;
    let why = line.waits_for(&name, "basecluster.clock-skew").await;
    let time = |key: &str| why["waiting"]["problem"][key].as_str().unwrap().parse::<Timestamp>().unwrap();
    let differs = time("found").duration_since(time("expected"));
    assert!((differs - ahead).abs() < SignedDuration::from_secs(30), "{why}");
    assert_eq!(deploys(&line, &name), 0);
    assert!(line.cluster.list(SECRETS).is_empty());
    line.cluster.put_clock_forward(-ahead);
    line.mended(&name, "in-service").await;
    assert_eq!(deploys(&line, &name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_whose_clock_is_ahead_is_told_before_anything_is_deployed() {
    a_wrong_api_server_is_told(SignedDuration::from_hours(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_whose_clock_is_behind_is_told_before_anything_is_deployed() {
    a_wrong_api_server_is_told(SignedDuration::from_mins(-2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_ironic_longer_than_a_tokens_life_is_no_fault_of_the_machine() {
    let (line, name) = short_lived().await;
    line.ironic.faults().add(Fault::on("**", Action::Reset));
    line.want(&name, serve()).await;
    let attempts = |machine: &Value| machine["waiting"]["attempts"].as_u64().unwrap_or(0);
    for tries in 1..=4 {
        let away = line.until(&name, |machine| attempts(machine) >= tries).await;
        assert_eq!(away["waiting"]["problem"]["code"], "ironic.unreachable", "{away}");
        line.pass(SignedDuration::from_mins(2));
    }
    line.ironic.faults().clear();
    line.mended(&name, "in-service").await;
    assert_eq!(deploys(&line, &name), 1);
    assert_eq!(count(&line, &name, "machine.deployment-failed").await, 0);
    assert_eq!(count(&line, &name, "machine.token-made").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_comes_late_is_deployed_anew_and_people_are_asked_after_three() {
    let (line, name) = short_lived().await;
    let given = Arc::new(Mutex::new(Vec::new()));
    let keeps = Arc::clone(&given);
    line.hosts_do(move |_, _, _, user_data| keeps.lock().unwrap().push(user_data.to_owned()));
    line.want(&name, serve()).await;
    for failures in 1..=3 {
        line.until(&name, |machine| {
            let told = machine["waiting"]["problem"]["message"].as_str().unwrap_or_default();
            told.contains("asks for its certificate")
        })
        .await;
        assert_eq!(deploys(&line, &name), failures);
        line.pass(SignedDuration::from_mins(2));
        line.waits_for(&name, "join.token-late").await;
    }
    let why = line.waits_for(&name, "join.token-late").await;
    assert!(why["waiting"]["until"].is_null(), "{why}");
    assert!(why["unblock"].as_str().unwrap().contains("bailiwick release"), "{why}");
    assert_eq!(count(&line, &name, "machine.deployment-failed").await, 2);
    // It comes at last, with what it was given.
    let given = given.lock().unwrap().clone();
    assert_eq!(given.len(), 3);
    for user_data in given {
        assert_eq!(line.cluster.boot(&name, "u", &user_data), JoinOutcome::Refused);
    }
    assert!(line.cluster.list(REQUESTS).is_empty() && line.cluster.list(SECRETS).is_empty());

    line.hosts_do(joins);
    line.release().await;
    line.assign(serve(), "in-service").await;
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_asked_in_time_joins_though_its_cell_looks_late() {
    let (line, name) = short_lived().await;
    line.hosts_do(|cluster, name, uuid, user_data| {
        cluster.boot(name, uuid, user_data);
        cluster.set_away(true);
    });
    line.want(&name, serve()).await;
    line.waits_for(&name, "basecluster.unreachable").await;
    assert_eq!(deploys(&line, &name), 1);
    line.pass(SignedDuration::from_mins(5));
    line.cluster.set_away(false);
    line.mended(&name, "in-service").await;
    assert_eq!(count(&line, &name, "machine.deployment-failed").await, 0);
    assert_eq!(serde_json::to_value(deploys(&line, &name)).unwrap(), json!(1));
}
