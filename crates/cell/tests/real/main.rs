//! A cell against real provisioning services: Ironic, whose `redfish` hardware type drives simulated BMCs, and baremetal-operator
//! with an Ironic of its own behind it. Hosts boot what they are given. What goes wrong with the operator takes minutes, and is in
//! `by_metal3.rs`.
//!
//! Both wait a lot, so that all machines go through them at once: the first test that asks runs all scenarios, and each test tells
//! of its own.
#![allow(clippy::print_stdout, reason = "the seconds of each transition are shown with the test's output")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    dead_code,
    reason = "tests fail by panicking, and so do their helpers, which two suites share"
)]

mod ironic;
mod metal3;
mod rack;
mod stage;
#[path = "../cell/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use stage::{Outcome, Scenario, Service, Stage};

static OUTCOMES: LazyLock<BTreeMap<&'static str, Outcome>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut outcomes, more) = tokio::join!(by_ironic(), by_metal3());
        outcomes.extend(more);
        outcomes
    })
});

async fn by_ironic() -> BTreeMap<&'static str, Outcome> {
    let stage = Stage::start(Service::Ironic, 5).await;
    stage.play(ironic::scenarios(&stage)).await
}

async fn by_metal3() -> BTreeMap<&'static str, Outcome> {
    let stage = Stage::start(Service::Metal3, 1).await;
    let scenarios: Vec<(_, Scenario<'_>)> = vec![("by metal3", Box::pin(metal3::disk(stage.subject(0))))];
    tokio::select! {
        outcomes = stage.play(scenarios) => outcomes,
        () = stage.management().hurry() => BTreeMap::new(),
    }
}

fn passes(scenario: &str) {
    let outcome = OUTCOMES.get(scenario).unwrap_or_else(|| panic!("there is no scenario {scenario}"));
    if let Err(why) = outcome {
        panic!("{why}");
    }
}

#[test]
fn a_machine_becomes_a_verified_node_and_is_erased_and_retired() {
    passes("direct");
}

#[test]
fn by_metal3_a_machine_becomes_a_verified_node_and_is_erased_and_retired() {
    passes("by metal3");
}

#[test]
fn a_live_iso_joins_by_its_config_drive_though_its_bmc_restarts_in_the_middle() {
    passes("live");
}

#[test]
fn an_image_with_a_wrong_checksum_is_told_and_the_machine_can_be_released() {
    passes("checksum");
}

#[test]
fn virtual_media_refused_are_told_and_the_machine_goes_on_once_they_are_taken() {
    passes("media");
}

#[test]
fn power_that_is_said_to_be_on_and_is_not_is_told_and_the_deployment_made_anew() {
    passes("power");
}
