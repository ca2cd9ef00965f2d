//! Real Ironic drives simulated machines: its `redfish` hardware type and virtual media, the agent of their hosts.
//!
//! Ironic waits a lot, so that all machines go through it at once: the first test that asks runs all scenarios, and each test tells
//! of its own.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod api;
mod scenarios;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::Outcome;

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
fn a_machine_is_inspected_by_redfish_and_boots_a_live_iso_with_its_configdrive() {
    passes("live");
}

#[test]
fn a_dgx_is_inspected_cleaned_and_deployed_by_its_agent_over_tls() {
    passes("direct-tls");
}

#[test]
fn a_server_that_conflicts_about_its_power_is_deployed_by_its_agent() {
    passes("direct-dell");
}

#[test]
fn an_image_with_a_wrong_checksum_ends_in_deploy_failed() {
    passes("wrong-checksum");
}

#[test]
fn virtual_media_refused_end_in_deploy_failed() {
    passes("media-refused");
}

#[test]
fn power_that_reports_success_and_does_nothing_ends_in_deploy_failed() {
    passes("power-pretends");
}

#[test]
fn quirk_32_ironic_finds_the_way_where_only_patch_inserts_media() {
    passes("media-by-patch");
}

#[test]
fn quirk_32_ironic_finds_the_parameters_that_media_want() {
    passes("media-demands");
}

#[test]
fn quirk_10_ironic_sets_the_boot_source_at_the_settings_object() {
    passes("boot-at-settings");
}

#[test]
fn quirk_12_ironic_boots_once_where_nothing_is_persistent() {
    passes("boot-once-only");
}

#[test]
fn quirk_12_ironic_sends_ami_the_full_object() {
    passes("boot-full");
}

#[test]
fn quirk_12_ironic_boots_a_supermicro_from_its_usb_cd() {
    passes("boot-usb-cd");
}

#[test]
fn quirk_14_ironic_switches_on_after_the_window_in_which_that_is_refused() {
    passes("power-window");
}

#[test]
fn a_bmc_that_restarts_in_the_middle_is_found_again() {
    passes("bmc-restarts");
}
