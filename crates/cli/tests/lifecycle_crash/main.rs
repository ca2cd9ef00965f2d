//! Cells that are killed while machines go into service and back: each machine is deployed once a use, known once, and has
//! one record of erasure a use and one before the first. Killed after each recorded step; between requests to Ironic, to the base
//! cluster, and to BMCs whose passwords are replaced; and two replicas on one PostgreSQL, killed in turn. Through baremetal-operator
//! it takes minutes, and is in `by_metal3.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "tests fail by panicking and read well"
)]

mod lives;
#[path = "../support/mod.rs"]
mod support;

use std::cell::Cell as Count;
use std::collections::BTreeMap;
use std::time::Duration;

use lives::{Wish, after_kills, is_available, is_in_service, killed_after_each_step, next_step};
use rustix::process::Signal;
use serde_json::{Value, json};
use sim::ironic::{Delays, Verb, VerbCount};
use support::stage::{Running, Stage};
use testbed::Postgres;
use tokio::time::Instant;

/// A database that replicas share. It goes with the first value.
async fn database() -> (Postgres, String) {
    let server = Postgres::start().await.unwrap();
    server.create_database("cells").await.unwrap();
    let url = server.url("cells");
    (server, url)
}

impl Stage {
    /// A cell on a database that others share with it.
    async fn replica(&self, url: &str) -> Running {
        self.serve(&["--database-url", url, "--lease", "1s"]).await
    }

    /// Two of them, which bring everything into service.
    async fn two_replicas(&self, url: &str) -> Vec<Running> {
        let replicas = vec![self.replica(url).await, self.replica(url).await];
        self.apply(&replicas[0], &self.everything_in_service()).await;
        replicas
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_after_each_recorded_step_ends_where_an_undisturbed_one_does() {
    let stage = Stage::new(1).await;
    let cell = killed_after_each_step(&stage, stage.one_use()).await;
    stage.is_as_if_undisturbed(&cell, 1).await;
    stage.are_erased(&cell, 1).await;
    cell.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_after_each_step_of_a_drain_a_quarantine_and_a_retirement_doubles_nothing() {
    let stage = Stage::new(1).await;
    let pool = |more: &Value| {
        let mut spec = json!({ "baseCluster": "pool" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage.assigned(&spec)
    };
    let is_drained: fn(&Value) -> bool =
        |machine| machine["state"] == "draining" && machine["drained"] == true;
    let wishes: Vec<Wish> = vec![
        (stage.everything_in_service(), is_in_service),
        (pool(&json!({ "drain": true })), is_drained),
        (pool(&json!({})), is_in_service),
        (pool(&json!({ "quarantine": { "reason": "smoke" } })), |machine| machine["state"] == "quarantined"),
        (pool(&json!({})), is_in_service),
        (stage.assigned(&json!({ "retire": true })), |machine| machine["state"] == "retired"),
    ];
    let cell = killed_after_each_step(&stage, wishes).await;
    // One use before the quarantine and one after it, and a record of erasure before the first and after each.
    assert_eq!(stage.ironic.verbs_of_all(Verb::Active), VerbCount { accepted: 2, refused: 0 });
    assert!(stage.ironic.nodes().is_empty(), "{:?}", stage.ironic.nodes());
    stage.are_erased(&cell, 2).await;
    for name in stage.names() {
        let history = stage.get(&cell, &format!("/api/v1/machines/{name}/history")).await;
        let times =
            |kind: &str| history.as_array().unwrap().iter().filter(|event| event["kind"] == kind).count();
        let told =
            ["machine.enrolled", "machine.draining", "machine.quarantined", "machine.retired"].map(times);
        // Drained when that was wished, and before it retired.
        assert_eq!(told, [1, 2, 1, 1], "{name}: {history:#}");
        assert_eq!(
            ["machine.token-made", "machine.certificate-approved"].map(times),
            [2, 2],
            "{name}: {history:#}"
        );
    }
    cell.kill().await;
}

/// Returns when this number has grown: by two in the first life of the cell, by three in the second, and so on. Were it always by
/// one, no life would get anywhere.
async fn some_more(number: impl Fn() -> u64, kills: usize) {
    let until = number() + 2 + u64::try_from(kills % 23).unwrap();
    while number() < until {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

async fn killed_between_requests(requests: impl Fn(&Stage) -> u64, at_least: usize) {
    let stage = Stage::new(2).await;
    let kills = stage
        .live_through(stage.one_use(), async |_, kills| some_more(|| requests(&stage), kills).await)
        .await;
    assert!(kills >= at_least, "only {kills} kills came before the end");
    let cell = stage.serve(&[]).await;
    stage.is_as_if_undisturbed(&cell, 1).await;
    stage.are_erased(&cell, 1).await;
    cell.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_between_any_two_requests_to_ironic_ends_where_an_undisturbed_one_does() {
    killed_between_requests(|stage| stage.ironic.requests(), 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_between_any_two_requests_to_a_base_cluster_ends_where_an_undisturbed_one_does() {
    killed_between_requests(|stage| stage.cluster.requests(), 4).await;
}

/// A life in which the passwords of the BMCs are replaced: looked at in service, taken back, and looked at again. The cell is killed
/// at each of these moments; gives the number of kills.
async fn passwords_replaced(stage: &Stage, moment: impl AsyncFn(&Running, usize)) -> usize {
    let wish = Stage::rotating(stage.everything_in_service());
    let before = stage.live_through(vec![(wish, is_in_service)], &moment).await;
    for name in stage.names() {
        stage.bmc_has_passwords_of_the_cells_making(name).await;
    }
    let is_retired: fn(&Value) -> bool = |machine| machine["state"] == "retired";
    let retire = stage.assigned(&json!({ "retire": true }));
    let away = vec![(stage.back_to_the_shelf(), is_available as fn(&Value) -> bool), (retire, is_retired)];
    before + stage.live_through(away, &moment).await
}

/// As an undisturbed cell leaves it: each machine deployed once, its BMC with its declared password and without another account, and
/// nothing of the BMC's patience used up at any time.
async fn passwords_are_given_back(stage: &Stage, cell: &Running) {
    assert_eq!(stage.ironic.nodes().len(), 0);
    let count = u32::try_from(stage.names().len()).unwrap();
    assert_eq!(stage.ironic.verbs_of_all(Verb::Active), VerbCount { accepted: count, refused: 0 });
    stage.are_erased(cell, 1).await;
    for machine in stage.site.machines() {
        let bmc = stage.site.bmc(&machine.name).unwrap();
        assert!(bmc.opens(&machine.username, &machine.password), "{} keeps another password", machine.name);
        assert_eq!(stage.accounts(&machine.name), [machine.username.as_str()]);
        let row = bmc.longest_row_of_failed_logins();
        assert!(row <= 2, "{row} logins in a row failed, and three lock the account");
        let history = stage.get(cell, &format!("/api/v1/machines/{}/history", machine.name)).await;
        let times =
            |kind: &str| history.as_array().unwrap().iter().filter(|event| event["kind"] == kind).count();
        let told =
            ["rotated", "in-use", "restored"].map(|what| times(&format!("machine.credentials-{what}")));
        assert_eq!(told, [2, 1, 1], "{history:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_after_each_step_while_it_replaces_passwords_of_bmcs_ends_where_an_undisturbed_one_does()
 {
    let stage = Stage::new(1).await;
    stage.bmcs_lock_out_after(3);
    let known = Count::new(0);
    let kills = passwords_replaced(&stage, async |cell, _| next_step(&stage, cell, &known).await).await;
    let cell = after_kills(&stage, kills).await;
    passwords_are_given_back(&stage, &cell).await;
    cell.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_between_any_two_logins_or_changes_at_a_bmc_ends_where_an_undisturbed_one_does() {
    let stage = Stage::new(1).await;
    stage.bmcs_lock_out_after(3);
    let kills =
        passwords_replaced(&stage, async |_, kills| some_more(|| stage.bmc_changes(), kills).await).await;
    assert!(kills >= 4, "only {kills} kills came before the end");
    let cell = stage.serve(&[]).await;
    passwords_are_given_back(&stage, &cell).await;
    cell.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "a long run says how it went")]
async fn two_replicas_killed_in_turn_bring_every_machine_into_service_once() {
    // Few machines unless more are asked for, and Ironic's work takes part of what it really does.
    let asked = std::env::var("BAILIWICK_REPLICAS_MACHINES").ok().map(|number| number.parse().unwrap());
    let (machines, share, every) = match asked {
        None => (20, 0.1, Duration::from_millis(1500)),
        Some(machines) => (machines, 0.5, Duration::from_secs(3)),
    };
    let stage = Stage::with(machines, Delays::measured().scaled(share)).await;
    let (_database, url) = database().await;
    let mut replicas = stage.two_replicas(&url).await;
    let began = Instant::now();
    let all = BTreeMap::from([("in-service".to_owned(), machines)]);
    let (mut kills, mut while_provisioning) = (0, 0);
    loop {
        // The one that was started last goes on; the other is killed while it works: at the latest when its time
        // has come, and earlier where a machine is provisioned, which is soon over.
        tokio::time::sleep(every / 4).await;
        let last_moment = Instant::now() + every * 3 / 4;
        let states = loop {
            let states = stage.states(&replicas[1]).await.unwrap();
            if states == all || states.contains_key("provisioning") || Instant::now() > last_moment {
                break states;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        if states == all {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_mins(9),
            "after {kills} kills: {:#}",
            stage.get(&replicas[1], "/api/v1/machines?limit=1000").await
        );
        kills += 1;
        while_provisioning += u32::from(states.contains_key("provisioning"));
        replicas.remove(0).kill().await;
        replicas.push(stage.replica(&url).await);
    }
    println!(
        "{machines} machines in service after {:.1?} and {kills} kills, {while_provisioning} of them while machines were \
         provisioned; {} deployments",
        began.elapsed(),
        stage.ironic.verbs_of_all(Verb::Active).accepted
    );
    assert!(while_provisioning > 1, "{while_provisioning} kills came while machines were provisioned");
    stage.is_as_if_undisturbed(&replicas[1], 1).await;
    for replica in replicas {
        replica.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_sleep_in_turn_past_their_leases_double_nothing() {
    let stage = Stage::with(12, Delays::measured().scaled(0.1)).await;
    let (_database, url) = database().await;
    let replicas = stage.two_replicas(&url).await;
    let all = BTreeMap::from([("in-service".to_owned(), 12)]);
    let deadline = Instant::now() + Duration::from_mins(3);
    let mut while_provisioning = 0;
    for (asleep, awake) in [(0, 1), (1, 0)].into_iter().cycle() {
        // Awake for a moment together: who slept goes on with what is not its own any more. The moment is over when a machine is
        // provisioned, which is soon done.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let last_moment = Instant::now() + Duration::from_millis(700);
        let states = loop {
            let states = stage.states(&replicas[awake]).await.unwrap();
            if states == all || states.contains_key("provisioning") || Instant::now() > last_moment {
                break states;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        if states == all {
            break;
        }
        assert!(Instant::now() < deadline, "{:#}", stage.get(&replicas[awake], "/api/v1/machines").await);
        while_provisioning += u32::from(states.contains_key("provisioning"));
        replicas[asleep].send(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        replicas[asleep].send(Signal::CONT);
    }
    assert!(while_provisioning > 0, "nothing was provisioned while a replica slept");
    // Who falls asleep between its look at the node and its request asks late. Ironic refuses that: the node is deployed by then.
    stage.nothing_is_doubled(&replicas[0], 1).await;
    for replica in replicas {
        replica.kill().await;
    }
}
