//! Where cell and service log in with one account, the BMC counts the failures of both: somebody changes its password, and neither
//! locks it.

use crate::rotation::Rack;
use reqwest::Method;
use serde_json::{Value, json};
use sim::{Action, Fault};

const CHANGED: &str = "somebody-elses-1";

impl Rack {
    /// A BMC that locks the account at the third refusal in a row.
    async fn strict() -> Self {
        let rack = Self::new().await;
        rack.bmc.set_behaviour(|behaviour| behaviour.lockout_after = Some(3));
        rack
    }

    /// Somebody changes the password of the BMC after the cell has read it, and before Ironic is told of the machine.
    async fn changed_before_ironic_verifies() -> Self {
        let rack = Self::strict().await;
        let away = Action::Status { code: 503, body: "{}".into(), headers: [].into() };
        rack.line.ironic.faults().add(Fault::on("**", away));
        rack.line.declare().await;
        rack.line.waits_for(&rack.name, "ironic.busy").await;
        rack.change_password();
        rack.line.ironic.faults().clear();
        rack
    }

    fn change_password(&self) {
        self.bmc.set_password(CHANGED);
        self.bmc.expire_sessions();
    }

    /// Waits until the refusal is told, and Ironic was told to leave the machine alone.
    async fn refused_and_held(&self) -> Value {
        let is_refused = |machine: &Value| {
            let waits = machine["waiting"]["problem"]["code"].as_str().unwrap_or_default();
            ["bmc.unauthorized", "bmc.login-withheld", "ironic.verify-failed"].contains(&waits)
        };
        self.line.until(&self.name, |machine| is_refused(machine) && self.is_held()).await
    }

    fn is_held(&self) -> bool {
        self.line.ironic.node(&self.name).is_some_and(|node| node.maintenance)
    }

    async fn refresh(&self) {
        let path = format!("/api/v1/machines/{}/refresh", self.name);
        assert!(self.line.client.call("POST", &path, None).await.0 < 300);
    }

    /// On the shelf; then somebody changed the password of its BMC.
    async fn available_and_changed() -> Self {
        let rack = Self::strict().await;
        rack.line.declare().await;
        rack.line.arrive("available").await;
        rack.change_password();
        rack
    }

    /// In service, and held: somebody changed the password of its BMC.
    async fn in_service_and_refused() -> Self {
        let rack = Self::strict().await;
        rack.line.declare().await;
        rack.line.arrive("available").await;
        rack.line.assign(json!({ "baseCluster": "pool" }), "in-service").await;
        rack.change_password();
        rack.refresh().await;
        rack.refused_and_held().await;
        rack
    }

    async fn let_go(&self) {
        self.line.until(&self.name, |machine| machine["waiting"].is_null() && !self.is_held()).await;
    }

    /// Has it tried once more, for the same reason.
    async fn tried_again(&self) {
        let attempts = |machine: &Value| machine["waiting"]["attempts"].as_u64().unwrap_or_default();
        let before = attempts(&self.line.until(&self.name, |machine| !machine["waiting"].is_null()).await);
        self.refresh().await;
        self.line.until(&self.name, |machine| attempts(machine) > before).await;
    }

    fn failures_of_ironic(&self) -> usize {
        self.logins.lock().unwrap().iter().filter(|(_, opens)| !opens).count()
    }

    fn is_not_locked(&self) {
        assert!(!self.bmc.is_locked_out(&self.user()));
        let row = self.bmc.longest_row_of_failed_logins();
        assert!(row <= 2, "{row} logins in a row were refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_ironic_is_refused_with_is_tried_once_by_it_and_once_by_the_cell_until_another_is_declared()
 {
    let rack = Rack::changed_before_ironic_verifies().await;
    let told = rack.refused_and_held().await;
    assert!(told["waiting"]["problem"]["message"].as_str().unwrap().contains("401"), "{told}");
    assert_eq!((rack.failures_of_ironic(), rack.bmc.failed_logins(&rack.user())), (1, 1));
    // Asked again and again, and given a wrong guess: one login is left, and then none.
    rack.line.redeclare(&json!({}), "a-wrong-guess-1").await;
    rack.line.waits_for(&rack.name, "bmc.unauthorized").await;
    for _ in 0..3 {
        rack.refresh().await;
        rack.line.waits_for(&rack.name, "bmc.login-withheld").await;
    }
    rack.line.pass(jiff::SignedDuration::from_mins(30));
    rack.line.waits_for(&rack.name, "bmc.login-withheld").await;
    assert_eq!((rack.failures_of_ironic(), rack.bmc.failed_logins(&rack.user())), (1, 2));
    assert!(rack.is_held());
    rack.is_not_locked();
}

#[tokio::test(flavor = "multi_thread")]
async fn ironic_goes_on_once_the_right_password_is_declared() {
    let rack = Rack::changed_before_ironic_verifies().await;
    rack.refused_and_held().await;
    rack.line.redeclare(&json!({}), CHANGED).await;
    rack.line.arrive("available").await;
    assert!(!rack.is_held());
    assert_eq!(rack.logins.lock().unwrap().last(), Some(&(rack.user(), true)));
    assert_eq!((rack.failures_of_ironic(), rack.bmc.failed_logins(&rack.user())), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_in_service_whose_password_was_changed_is_held_in_ironic_until_the_right_one_is_declared() {
    let rack = Rack::in_service_and_refused().await;
    rack.line.arrive("in-service").await;
    assert_eq!(rack.bmc.failed_logins(&rack.user()), 1);

    rack.line.redeclare(&json!({}), CHANGED).await;
    rack.let_go().await;
    assert_eq!(rack.bmc.failed_logins(&rack.user()), 1);
    let node = rack.line.ironic.node(&rack.name).unwrap();
    assert_eq!(rack.line.ironic.deploys(&node.uuid), 1);
    rack.line.release().await;
    rack.is_not_locked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_bmc_refuses_the_shared_account_can_still_be_retired() {
    let rack = Rack::available_and_changed().await;
    rack.refresh().await;
    rack.refused_and_held().await;
    rack.line.want(&rack.name, json!({ "retire": true })).await;
    rack.line.arrive("retired").await;
    assert!(rack.line.ironic.nodes().is_empty());
    rack.is_not_locked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_says_nothing_of_credentials_is_followed_by_one_login_and_holds_nothing() {
    use sim::ironic::{NodeFault, Operation};
    let rack = Rack::strict().await;
    rack.line.ironic.add_node_fault(NodeFault::fails(Operation::Inspect, Some("the agent is lost")).times(1));
    rack.line.ironic.record_requests();
    let before = rack.bmc.counters().logins;
    rack.line.declare().await;
    rack.line.arrive("available").await;
    assert_eq!(rack.bmc.counters().logins - before, 2, "it is read, and asked once more");
    let held = rack
        .line
        .ironic
        .recorded_requests()
        .into_iter()
        .find(|sent| sent.target.ends_with("/maintenance") && sent.method == "PUT");
    assert!(held.is_none(), "{held:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_held_is_let_go_with_another_account_once_that_is_declared() {
    let rack = Rack::in_service_and_refused().await;
    rack.bmc.add_account("another", "anothers-own-1");
    rack.line.redeclare(&json!({ "username": "another" }), "anothers-own-1").await;
    rack.let_go().await;
    let (_, node) = rack.line.ironic.request(Method::GET, &format!("/v1/nodes/{}", rack.name), None);
    assert_eq!(node["driver_info"]["redfish_username"], "another");
    rack.is_not_locked();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ironic_that_does_not_hear_that_it_is_let_go_costs_no_login_more_and_hears_it_from_a_cell_started_anew()
 {
    let rack = Rack::in_service_and_refused().await;
    let deaf = Fault::on("**/maintenance", Action::status(503, "{}")).method("DELETE");
    rack.line.ironic.faults().add(deaf);
    rack.line.redeclare(&json!({}), CHANGED).await;
    rack.line.waits_for(&rack.name, "ironic.busy").await;
    let logins = rack.bmc.counters().logins;
    for _ in 0..2 {
        rack.tried_again().await;
    }
    assert_eq!(rack.bmc.counters().logins, logins);
    let line = rack.line.restart().await;
    let rack = Rack { line, ..rack };
    rack.tried_again().await;
    assert!(rack.is_held());
    rack.line.ironic.faults().clear();
    rack.refresh().await;
    rack.let_go().await;
    assert_eq!(rack.bmc.failed_logins(&rack.user()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_does_not_say_whether_it_takes_the_password_has_nothing_let_go() {
    let rack = Rack::in_service_and_refused().await;
    let silent = ["**/Sessions", "**/Systems"]
        .map(|path| rack.bmc.add_fault(Fault::on(path, Action::status(503, "{}"))));
    rack.line.redeclare(&json!({}), CHANGED).await;
    rack.line.waits_for(&rack.name, "bmc.busy").await;
    rack.tried_again().await;
    assert!(rack.is_held());
    for fault in silent {
        rack.bmc.remove_fault(fault);
    }
    rack.refresh().await;
    rack.let_go().await;
    rack.is_not_locked();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_ironic_cannot_be_told_to_leave_the_machine_alone_the_cell_does_not_log_in_either() {
    let rack = Rack::available_and_changed().await;
    let deaf = Fault::on("**/maintenance", Action::status(503, "{}")).method("PUT");
    rack.line.ironic.faults().add(deaf);
    rack.refresh().await;
    rack.line.waits_for(&rack.name, "bmc.unauthorized").await;
    for _ in 0..3 {
        rack.tried_again().await;
    }
    assert!(!rack.is_held());
    assert_eq!(rack.bmc.failed_logins(&rack.user()), 1);
    rack.line.ironic.faults().clear();
    rack.refresh().await;
    rack.refused_and_held().await;
    assert!(!rack.bmc.is_locked_out(&rack.user()));
}
