//! The client against the simulator: whole readings of whole servers, with what goes wrong in between.

use std::sync::Arc;
use std::time::Duration;

use redfish::{
    Client, Credentials, Error, LoginBudget, Options, Reader as _, Target, Trust, WalkOptions, inventory,
};
use sim::{Action, Bmc, BmcBuilder, CertificateKind, Fault, Model, RunningBmc};

use crate::server::options;

fn dgx() -> BmcBuilder {
    Bmc::builder(Model::DgxH100.tree()).behaviour(Model::DgxH100.behaviour())
}

fn of(bmc: &RunningBmc) -> Options {
    Options { credentials: Some(Credentials::new(bmc.username(), bmc.password())), ..options() }
}

async fn connect(bmc: &RunningBmc, options: Options) -> Result<Client, Error> {
    Client::connect(Target::new(bmc.url(), Trust::Pin(bmc.pin().parse().unwrap())), options).await
}

/// Reads the whole inventory and tells how many GPUs it found and what was odd.
async fn gpus_and_codes(bmc: &RunningBmc) -> (usize, Vec<String>) {
    let client = connect(bmc, of(bmc)).await.unwrap();
    let inventory = inventory(&client, &WalkOptions::default()).await.unwrap();
    client.close().await;
    (inventory.gpus.len(), inventory.diagnostics.into_iter().map(|d| d.code).collect())
}

#[tokio::test]
async fn a_whole_inventory_takes_one_session_and_few_requests_at_once() {
    let bmc = dgx().start().await.unwrap();
    let (gpus, _) = gpus_and_codes(&bmc).await;
    let counters = bmc.counters();
    assert_eq!(gpus, Model::DgxH100.gpu_count());
    assert_eq!((counters.logins, counters.peak_sessions, counters.live_sessions), (1, 1, 0));
    assert!(counters.peak_concurrency <= 4, "{counters:?}");
}

#[tokio::test]
async fn every_request_and_every_byte_is_counted() {
    let bmc = dgx().start().await.unwrap();
    let client = connect(&bmc, of(&bmc)).await.unwrap();
    inventory(&client, &WalkOptions::default()).await.unwrap();
    let counters = bmc.counters();
    assert_eq!((client.usage().count, client.usage().bytes), (counters.requests, counters.bytes));
}

#[tokio::test]
async fn quirk_01_an_inventory_is_whole_though_kept_connections_are_reset() {
    for action in [Action::Reset, Action::Close] {
        let fault = Fault::on("/redfish/v1/**", action).on_reused_connections().times(10);
        let bmc = dgx().fault(fault).start().await.unwrap();
        assert_eq!(gpus_and_codes(&bmc).await.0, 8);
    }
}

#[tokio::test]
async fn quirk_02_an_inventory_is_whole_though_no_session_is_left() {
    let bmc = dgx().start().await.unwrap();
    bmc.set_behaviour(|behaviour| behaviour.max_sessions = 0);
    let (gpus, codes) = gpus_and_codes(&bmc).await;
    assert_eq!(gpus, 8);
    assert!(codes.iter().any(|code| code == "bmc.sessions-exhausted"), "{codes:?}");
}

#[tokio::test]
async fn an_inventory_is_whole_though_the_session_ends_meanwhile() {
    let bmc = dgx().start().await.unwrap();
    let client = connect(&bmc, of(&bmc)).await.unwrap();
    bmc.expire_sessions();
    let inventory = inventory(&client, &WalkOptions::default()).await.unwrap();
    assert_eq!(inventory.gpus.len(), 8);
    client.close().await;
    assert_eq!((bmc.counters().logins, bmc.counters().live_sessions), (2, 0));
}

#[tokio::test]
async fn quirk_03_a_wrong_password_never_locks_the_account() {
    let bmc = dgx().start().await.unwrap();
    bmc.set_behaviour(|behaviour| behaviour.lockout_after = Some(3));
    let budget = Arc::new(LoginBudget::default());
    let with = |password: &str| Options {
        credentials: Some(Credentials::new(bmc.username(), password)),
        login_budget: Arc::clone(&budget),
        ..options()
    };
    for _ in 0..5 {
        assert!(connect(&bmc, with("wrong")).await.is_err());
    }
    assert_eq!(bmc.counters().failed_logins, 2);
    budget.reset();
    assert!(connect(&bmc, with(&bmc.password())).await.is_ok());
}

#[tokio::test]
async fn quirk_03_a_password_changed_while_reading_never_locks_the_account() {
    let bmc = dgx().start().await.unwrap();
    bmc.set_behaviour(|behaviour| behaviour.lockout_after = Some(3));
    let client = connect(&bmc, of(&bmc)).await.unwrap();
    bmc.set_password("another");
    bmc.expire_sessions();
    let error = inventory(&client, &WalkOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "bmc.unauthorized");
    assert!(bmc.counters().failed_logins <= 2, "{:?}", bmc.counters());
}

#[tokio::test]
async fn quirk_04_a_factory_password_is_told() {
    let bmc = dgx().start().await.unwrap();
    bmc.set_behaviour(|behaviour| behaviour.password_change_required = true);
    let outcome = match connect(&bmc, of(&bmc)).await {
        Ok(client) => client.get("/redfish/v1/Systems").await.map(|_| ()).map_err(|error| error.code()),
        Err(error) => Err(error.code()),
    };
    assert_eq!(outcome, Err("bmc.password-change-required"));
}

#[tokio::test]
async fn a_root_that_wants_credentials_hides_nothing() {
    let bmc = dgx().start().await.unwrap();
    bmc.set_behaviour(|behaviour| behaviour.root_requires_credentials = true);
    assert_eq!(gpus_and_codes(&bmc).await.0, 8);
}

#[tokio::test]
async fn a_certificate_not_yet_valid_over_the_pinned_key_is_only_a_diagnostic() {
    let bmc = dgx().certificate(CertificateKind::NotYetValid).start().await.unwrap();
    let (gpus, codes) = gpus_and_codes(&bmc).await;
    assert_eq!(gpus, 8);
    assert!(codes.iter().any(|code| code == "bmc.certificate.expired"), "{codes:?}");
}

#[tokio::test]
async fn a_version_1_certificate_of_the_simulator_has_its_own_code() {
    let bmc = dgx().certificate(CertificateKind::Version1).start().await.unwrap();
    assert_eq!(connect(&bmc, of(&bmc)).await.unwrap_err().code(), "bmc.certificate.x509-v1");
}

#[tokio::test]
async fn one_endless_answer_costs_one_resource() {
    let firmware = "/redfish/v1/UpdateService/FirmwareInventory";
    let fault = Fault::on(firmware, Action::Endless { bytes: 1 << 30 });
    let bmc = dgx().fault(fault).start().await.unwrap();
    let client = connect(&bmc, of(&bmc)).await.unwrap();
    let inventory = inventory(&client, &WalkOptions::default()).await.unwrap();
    assert_eq!((inventory.gpus.len(), inventory.firmware.len()), (8, 0));
    assert!(client.usage().bytes < 64 << 20, "{:?}", client.usage());
    let codes: Vec<_> = inventory.diagnostics.iter().map(|d| (d.code.as_str(), d.path.as_str())).collect();
    assert!(codes.contains(&("redfish.body.too-large", firmware)), "{codes:?}");
}

#[tokio::test]
async fn half_a_document_now_and_then_costs_nothing() {
    let fault = Fault::on("/redfish/v1/Systems/*", Action::Truncate { after: 20 }).times(2);
    let bmc = dgx().fault(fault).start().await.unwrap();
    let (gpus, codes) = gpus_and_codes(&bmc).await;
    assert_eq!(gpus, 8);
    assert!(!codes.iter().any(|code| code == "redfish.body.truncated"), "{codes:?}");
}

#[tokio::test]
async fn quirk_31_a_bmc_that_is_busy_now_and_then_costs_nothing() {
    let busy =
        Action::Status { code: 503, body: String::new(), headers: [("Retry-After", "0")].map(own).into() };
    let bmc = dgx().fault(Fault::on("/redfish/v1/Chassis/**", busy).times(2)).start().await.unwrap();
    let (gpus, codes) = gpus_and_codes(&bmc).await;
    assert_eq!(gpus, 8);
    assert!(!codes.iter().any(|code| code == "bmc.busy"), "{codes:?}");
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[tokio::test]
async fn a_deadline_ends_the_whole_reading() {
    let slow = Fault::on("/redfish/v1/Chassis/**", Action::Latency { mean_ms: 60_000, jitter_ms: 0 });
    let bmc = dgx().fault(slow).start().await.unwrap();
    let hurried = Options { deadline: Some(Duration::from_secs(2)), ..of(&bmc) };
    let client = connect(&bmc, hurried).await.unwrap();
    let error = inventory(&client, &WalkOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "bmc.deadline");
    client.close().await;
    assert_eq!(bmc.counters().live_sessions, 0);
}
