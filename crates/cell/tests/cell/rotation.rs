//! Passwords of a BMC that the cell makes itself: the factory's is replaced before the machine is handed over, the service has
//! an account of its own, and no failed login is spent that the BMC would count.

use crate::line::Line;
use reqwest::Method;
use serde_json::{Value, json};
use sim::ironic::IronicBuilder;
use sim::{Action, Bmc, Fault};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The account of the provisioning service.
const SERVICE: &str = "bw-provisioner";

/// With what an Ironic logged in at each verification, and whether the BMC took it.
pub(crate) type Logins = Arc<Mutex<Vec<(String, bool)>>>;

/// An Ironic that logs in with what it was told, each time that it verifies a node; the BMC counts that as any login.
fn logging_in(
    bmcs: &Arc<Mutex<BTreeMap<String, Arc<Bmc>>>>,
    logins: &Logins,
) -> impl FnOnce(IronicBuilder) -> IronicBuilder {
    let (bmcs, logins) = (Arc::clone(bmcs), Arc::clone(logins));
    move |ironic| {
        ironic.credential_check(move |node| {
            let text = |key: &str| node.driver_info.get(key).and_then(Value::as_str).unwrap_or_default();
            let (username, password) = (text("redfish_username"), text("redfish_password"));
            let bmcs = bmcs.lock().unwrap();
            let opens = bmcs.get(text("redfish_address")).is_some_and(|bmc| bmc.log_in(username, password));
            logins.lock().unwrap().push((username.to_owned(), opens));
            if opens {
                Ok(())
            } else {
                Err(format!("HTTP GET {}/redfish/v1/ returned code 401", text("redfish_address")))
            }
        })
    }
}

pub(crate) struct Rack {
    pub line: Line,
    pub name: String,
    pub bmc: Arc<Bmc>,
    pub factory: String,
    pub logins: Logins,
}

impl Rack {
    pub(crate) async fn new() -> Self {
        let (bmcs, logins) = (Arc::default(), Logins::default());
        let line = Line::with(1, logging_in(&bmcs, &logins), |_| {}).await;
        let machine = &line.site.machines()[0];
        let (name, factory) = (machine.name.clone(), machine.password.clone());
        let bmc = Arc::clone(line.site.bmc(&name).unwrap());
        let address = format!("https://{}:{}", machine.address, machine.port);
        bmcs.lock().unwrap().insert(address, Arc::clone(&bmc));
        Self { line, name, bmc, factory, logins }
    }

    /// Declared, with the wish that its password be replaced.
    async fn declare(&self) {
        self.line.declare_with(&json!({ "rotate": true })).await;
    }

    pub(crate) fn user(&self) -> String {
        self.bmc.username()
    }

    async fn kinds(&self, kind: &str) -> usize {
        self.line.history(&self.name).await.iter().filter(|event| *event == kind).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_factory_password_is_replaced_before_the_machine_is_handed_over_and_comes_back_when_it_retires() {
    let rack = Rack::new().await;
    rack.declare().await;
    rack.line.arrive("available").await;
    assert!(!rack.bmc.opens(&rack.user(), &rack.factory), "the factory password still opens");
    assert_eq!(rack.bmc.failed_logins(&rack.user()), 0);
    let logins = rack.logins.lock().unwrap().clone();
    assert!(!logins.is_empty() && logins.iter().all(|(user, opens)| user == SERVICE && *opens), "{logins:?}");
    assert_eq!(rack.kinds("machine.credentials-rotated").await, 2);

    // Reading it again needs the new one.
    rack.bmc.expire_sessions();
    rack.line.mended(&rack.name, "available").await;
    let lost = rack
        .line
        .client
        .call(
            "POST",
            "/api/v1/plans",
            Some(json!({
                "delete": [{ "kind": "Machine", "name": rack.name }],
            })),
        )
        .await;
    let digest = lost.1["digest"].as_str().unwrap();
    let (status, refused) =
        rack.line.client.call("POST", &format!("/api/v1/plans/{digest}/apply"), None).await;
    assert_eq!((status, &refused["code"]), (409, &json!("machine.in-use")), "{refused}");

    rack.line.want(&rack.name, json!({ "retire": true })).await;
    rack.line.arrive("retired").await;
    assert!(rack.bmc.opens(&rack.user(), &rack.factory), "the declared password does not open");
    assert_eq!(rack.kinds("machine.credentials-restored").await, 1);
    assert_eq!(rack.bmc.failed_logins(&rack.user()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_was_reset_to_its_factory_password_is_given_its_own_again() {
    let rack = Rack::new().await;
    rack.declare().await;
    rack.line.arrive("available").await;
    rack.bmc.set_behaviour(|behaviour| behaviour.restart.factory_accounts = true);
    rack.bmc.restart();
    assert!(rack.bmc.opens(&rack.user(), &rack.factory));
    rack.line.mended(&rack.name, "available").await;
    rack.line.until(&rack.name, |_| !rack.bmc.opens(&rack.user(), &rack.factory)).await;
    while rack.kinds("machine.credentials-in-use").await < 2 {
        tokio::task::yield_now().await;
    }
    // Ironic knows that account already; held meanwhile, it is let go.
    let node = rack.line.ironic.node(&rack.name).unwrap();
    assert!(!node.maintenance);
    rack.line.want(&rack.name, json!({ "baseCluster": "pool" })).await;
    rack.line.arrive("in-service").await;
    // Sessions end with the reset; the password of our making is refused as often as it takes to believe it.
    assert!(rack.bmc.failed_logins(&rack.user()) <= 2, "{}", rack.bmc.failed_logins(&rack.user()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_factory_password_that_has_to_be_changed_first_is_changed() {
    let rack = Rack::new().await;
    rack.bmc.set_behaviour(|behaviour| behaviour.password_change_required = true);
    rack.declare().await;
    rack.line.arrive("available").await;
    assert!(!rack.bmc.opens(&rack.user(), &rack.factory));
    assert_eq!(rack.bmc.failed_logins(&rack.user()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ironic_that_polls_the_machine_already_is_held_while_its_account_is_replaced() {
    let rack = Rack::new().await;
    let machine = &rack.line.site.machines()[0];
    let node = json!({ "name": "by-hand", "driver": "redfish", "driver_info": {
        "redfish_address": format!("https://{}:{}", machine.address, machine.port),
        "redfish_username": machine.username, "redfish_password": machine.password,
    } });
    let (status, _) = rack.line.ironic.request(Method::POST, "/v1/nodes", Some(&node));
    assert_eq!(status, 201);
    rack.line.ironic.record_requests();
    rack.declare().await;
    rack.line.arrive("available").await;
    assert_eq!(rack.line.ironic.nodes().len(), 1, "taken over");
    let logins = rack.logins.lock().unwrap().clone();
    assert!(logins.iter().all(|(_, opens)| *opens), "{logins:?}");
    let log = rack.line.ironic.recorded_requests();
    let at = |method: &str, path: &str| {
        log.iter().position(|entry| entry.method == method && entry.target.ends_with(path))
    };
    let (held, let_go) = (at("PUT", "/maintenance").unwrap(), at("DELETE", "/maintenance").unwrap());
    assert!(held < let_go);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_somebody_changed_on_the_bmc_traps_nothing_and_locks_nothing() {
    let rack = Rack::new().await;
    rack.declare().await;
    rack.line.arrive("available").await;
    rack.line.assign(json!({ "baseCluster": "pool" }), "in-service").await;
    rack.bmc.set_password("somebody-elses-1");
    rack.bmc.expire_sessions();
    let (status, _) =
        rack.line.client.call("POST", &format!("/api/v1/machines/{}/refresh", rack.name), None).await;
    assert!(status < 300);
    rack.line
        .until(&rack.name, |machine| machine["waiting"]["problem"]["code"] == "bmc.login-withheld")
        .await;
    // No more logins are spent than the BMC bears. Neither ours nor the declared one opens: the node is cared for all the same.
    rack.line.assign(json!({ "baseCluster": "pool", "drain": true }), "draining").await;
    rack.line.assign(json!({ "quarantine": { "reason": "who was that?" } }), "quarantined").await;

    // What people declare is what is tried next, once the BMC bears another login.
    rack.line.redeclare(&json!({ "rotate": true }), "somebody-elses-1").await;
    while rack.kinds("machine.credentials-prepared").await < 3 {
        tokio::task::yield_now().await;
    }
    assert!(!rack.bmc.is_locked_out(&rack.user()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_wish_back_keeps_what_is_in_force_and_the_machine_goes_on() {
    let rack = Rack::new().await;
    let refused = Action::Status { code: 405, body: String::new(), headers: [].into() };
    // A BMC that makes no accounts: the service's account never comes.
    rack.bmc.add_fault(Fault::on("**/AccountService/Accounts", refused).method("POST"));
    rack.declare().await;
    rack.line.until(&rack.name, |machine| machine["waiting"]["problem"].is_object()).await;
    rack.line.redeclare(&json!({}), &rack.factory).await;
    rack.line.arrive("available").await;
    assert!(!rack.bmc.opens(&rack.user(), &rack.factory), "the cell's own stays");
    let logins = rack.logins.lock().unwrap().clone();
    assert!(logins.iter().all(|(_, opens)| *opens), "{logins:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retirement_taken_back_after_the_declared_password_was_given_back_gives_the_bmc_its_own_again() {
    let rack = Rack::new().await;
    rack.declare().await;
    rack.line.arrive("available").await;
    let refused = Action::Status { code: 503, body: String::new(), headers: [].into() };
    let stays = rack.bmc.add_fault(Fault::on("**/Accounts/*", refused).method("DELETE"));
    rack.line.want(&rack.name, json!({ "retire": true })).await;
    rack.line.until(&rack.name, |machine| machine["waiting"]["problem"].is_object()).await;
    assert!(rack.bmc.opens(&rack.user(), &rack.factory), "the declared password does not open");
    rack.bmc.remove_fault(stays);
    rack.line.unassign().await;
    rack.line.mended(&rack.name, "available").await;
    rack.line.until(&rack.name, |_| !rack.bmc.opens(&rack.user(), &rack.factory)).await;
    assert_eq!(rack.bmc.failed_logins(&rack.user()), 0);
}
