//! Lives of machines in which the cell is killed again and again, and how they must end.

use std::cell::Cell as Count;
use std::time::Duration;

use serde_json::Value;
use sim::ironic::Verb;
use tokio::time::Instant;

use crate::support::stage::{Running, Stage};

/// What is wished for of all machines, and how each is where it should be.
pub type Wish = (Value, fn(&Value) -> bool);

pub fn is_in_service(machine: &Value) -> bool {
    machine["state"] == "in-service"
}

pub fn is_available(machine: &Value) -> bool {
    machine["state"] == "available"
}

impl Stage {
    /// Into service and back.
    pub fn one_use(&self) -> Vec<Wish> {
        vec![(self.everything_in_service(), is_in_service), (self.back_to_the_shelf(), is_available)]
    }

    /// A life, in which the cell is killed at each of these moments and started again. Gives the number of kills.
    pub async fn live_through(&self, wishes: Vec<Wish>, moment: impl AsyncFn(&Running, usize)) -> usize {
        let deadline = Instant::now() + Duration::from_mins(8);
        let mut kills = 0;
        for (wish, is_there) in wishes {
            let mut cell = self.serve(&[]).await;
            self.apply(&cell, &wish).await;
            loop {
                let done = tokio::select! {
                    () = self.until_all(&cell, is_there) => true,
                    () = moment(&cell, kills) => false,
                    () = tokio::time::sleep_until(deadline) => {
                        panic!("after {kills} kills: {:#}", self.get(&cell, "/api/v1/machines").await)
                    }
                };
                cell.kill().await;
                if done {
                    break;
                }
                kills += 1;
                cell = self.serve(&[]).await;
            }
        }
        kills
    }

    /// Nothing is lost, nothing is doubled, and nothing was even asked for twice.
    pub async fn is_as_if_undisturbed(&self, cell: &Running, uses: u32) {
        self.nothing_is_doubled(cell, uses).await;
        for node in self.ironic.nodes() {
            assert_eq!(self.ironic.verbs(&node.uuid, Verb::Active).refused, 0, "{:?}", node.name);
        }
    }

    /// Nothing is lost, nothing is doubled.
    pub async fn nothing_is_doubled(&self, cell: &Running, uses: u32) {
        let nodes = self.ironic.nodes();
        assert_eq!(nodes.len(), self.names().len(), "one node each");
        for node in nodes {
            assert_eq!(self.ironic.verbs(&node.uuid, Verb::Active).accepted, uses, "{:?}", node.name);
        }
        for name in self.names() {
            let history = self.get(cell, &format!("/api/v1/machines/{name}/history")).await;
            let times = |kind: &str| {
                let events = history.as_array().unwrap().iter();
                u32::try_from(events.filter(|event| event["kind"] == kind).count()).unwrap()
            };
            let told = ["machine.enrolled", "machine.inspected", "machine.in-service"].map(times);
            assert_eq!(told, [1, 1, uses], "{name}: {history:#}");
            let made =
                ["machine.token-made", "machine.certificate-approved", "agent.token-created"].map(times);
            assert_eq!(made, [uses; 3], "{name}: {history:#}");
            assert_eq!(times("machine.deployment-failed") + times("machine.quarantined"), 0, "{name}");
        }
        // Each token went with its use.
        assert!(self.cluster.list("/api/v1/namespaces/kube-system/secrets").is_empty());
    }

    pub async fn are_erased(&self, cell: &Running, uses: usize) {
        for name in self.names() {
            let erasures = self.get(cell, &format!("/api/v1/machines/{name}/erasures")).await;
            assert_eq!(erasures.as_array().unwrap().len(), uses + 1, "{name}: {erasures:#}");
        }
        assert!(self.cluster.list("/api/v1/nodes").is_empty());
    }
}

/// Returns when more was recorded than was known.
pub async fn next_step(stage: &Stage, cell: &Running, known: &Count<i64>) {
    loop {
        if let Some((newest, _)) = stage.recorded(cell, known.get()).await.pop() {
            return known.set(newest);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A cell after so many kills, which were to come after each recorded step.
pub async fn after_kills(stage: &Stage, kills: usize) -> Running {
    let cell = stage.serve(&[]).await;
    let steps = stage.recorded(&cell, 0).await;
    // Two that follow each other at once are seen together.
    assert!(kills * 3 >= steps.len() * 2, "only {kills} kills for {steps:?}");
    cell
}

/// A cell that lived through all of this, killed after each recorded step.
pub async fn killed_after_each_step(stage: &Stage, wishes: Vec<Wish>) -> Running {
    let known = Count::new(0);
    let kills = stage.live_through(wishes, async |cell, _| next_step(stage, cell, &known).await).await;
    after_kills(stage, kills).await
}
