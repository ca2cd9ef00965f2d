//! Real baremetal-operator with a real Ironic and simulated machines; we write BareMetalHosts.
//!
//! The operator looks again every 10 s, so that all machines go through it at once: the first test that asks runs all scenarios,
//! and each test tells of its own.
#![allow(clippy::print_stdout, reason = "the seconds of each transition are shown with the test's output")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "tests fail by panicking, and so do their helpers"
)]

mod scenarios;
mod stage;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use stage::Outcome;

static OUTCOMES: LazyLock<BTreeMap<&'static str, Outcome>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(scenarios::run())
});

fn passes(scenario: &str) {
    let outcome = OUTCOMES.get(scenario).unwrap_or_else(|| panic!("there is no scenario {scenario}"));
    if let Err(why) = outcome {
        panic!("{why}");
    }
}

#[test]
fn a_machine_goes_from_nothing_to_a_live_iso_and_back_to_nothing() {
    passes("live");
}

#[test]
fn a_machine_is_inspected_cleaned_written_and_erased_by_its_agent() {
    passes("agent");
}

#[test]
fn a_machine_that_somebody_else_provisioned_is_switched_on_and_nothing_more() {
    passes("external");
}

#[test]
fn a_wrong_password_is_told_and_recovers_when_it_is_corrected() {
    passes("password");
}

#[test]
fn an_edit_by_hand_is_told_and_not_overruled() {
    passes("edited");
}

#[test]
fn a_running_machine_is_switched_off_and_on_by_the_operator() {
    passes("switched");
}

#[test]
fn a_paused_host_is_left_alone_by_the_operator_and_a_detached_one_by_ironic_too() {
    passes("held");
}

#[test]
fn a_host_that_exists_is_taken_over_and_provisioned() {
    passes("takeover");
}

#[test]
fn a_host_deleted_behind_our_back_is_told_and_not_made_anew() {
    passes("deleted");
}

#[test]
fn an_image_with_a_wrong_checksum_is_told_and_the_machine_can_be_released() {
    passes("checksum");
}

#[test]
fn virtual_media_refused_are_told() {
    passes("media");
}
