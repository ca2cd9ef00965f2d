//! What goes wrong between a cell and the real baremetal-operator, with the real Ironic behind it, which drives simulated BMCs.
//!
//! The operator looks again every 10 s, so that this takes minutes: `hack/full.d/40-real` runs it. All machines go through it at
//! once: the first test that asks runs all scenarios, and each test tells of its own.
#![allow(clippy::print_stdout, reason = "the seconds of each transition are shown with the test's output")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    dead_code,
    reason = "tests fail by panicking, and so do their helpers, which two suites share"
)]

mod metal3;
mod rack;
mod stage;
#[path = "../cell/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use stage::{Outcome, Service, Stage};

static OUTCOMES: LazyLock<BTreeMap<&'static str, Outcome>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let stage = Stage::start(Service::Metal3, 4).await;
        stage.play(metal3::faults(&stage)).await
    })
});

fn passes(scenario: &str) {
    let outcome = OUTCOMES.get(scenario).unwrap_or_else(|| panic!("there is no scenario {scenario}"));
    if let Err(why) = outcome {
        panic!("{why}");
    }
}

#[test]
fn an_image_with_a_wrong_checksum_is_told_and_a_live_iso_refused() {
    passes("checksum");
}

#[test]
fn virtual_media_refused_are_told_and_a_bmc_that_restarts_is_survived() {
    passes("media");
}

#[test]
fn a_host_edited_and_detached_by_hand_is_told_and_not_overruled() {
    passes("hand");
}

#[test]
fn a_host_deleted_by_hand_is_told_and_its_machine_is_erased_once_it_is_released() {
    passes("gone");
}
