//! Sessions, lock-out, passwords.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::time::Duration;

use bailiwick_sim::{AccountStyle, Action, Behaviour, Bmc, Fault, HostOptions, Model, RestartStyle};
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::{Subject, body, header, small_tree};

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

async fn with(change: impl FnOnce(&mut Behaviour)) -> Subject {
    let mut behaviour = Behaviour::default();
    change(&mut behaviour);
    Subject::start(Bmc::builder(small_tree()).behaviour(behaviour)).await
}

#[tokio::test]
async fn a_session_opens_the_bmc_until_it_is_deleted() {
    let subject = Subject::small().await;
    let login = subject.log_in("admin", &subject.bmc.password()).await;
    assert_eq!(login.status(), 201);
    let (token, location) =
        (header(&login, "x-auth-token").to_owned(), header(&login, "location").to_owned());
    assert_eq!(body(login).await["@odata.id"], location.as_str());
    let with_token = |method, target: &str| subject.anonymous(method, target).header("x-auth-token", &token);

    assert_eq!(with_token(Method::GET, "/redfish/v1/Systems").send().await.unwrap().status(), 200);
    assert_eq!(subject.json(SESSIONS).await["Members@odata.count"], 1);
    assert_eq!(subject.json(&location).await["UserName"], "admin");
    assert_eq!(subject.bmc.counters().live_sessions, 1);

    assert_eq!(with_token(Method::DELETE, &location).send().await.unwrap().status(), 204);
    assert_eq!(with_token(Method::GET, "/redfish/v1/Systems").send().await.unwrap().status(), 401);
    let counters = subject.bmc.counters();
    assert_eq!((counters.logins, counters.live_sessions, counters.peak_sessions), (1, 0, 1));
}

#[tokio::test]
async fn a_full_pool_is_503_and_says_rac0218() {
    let subject = with(|behaviour| behaviour.max_sessions = 2).await;
    let password = subject.bmc.password();
    for _ in 0..2 {
        assert_eq!(subject.log_in("admin", &password).await.status(), 201);
    }
    let full = subject.log_in("admin", &password).await;
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    let id = body(full).await["error"]["@Message.ExtendedInfo"][0]["MessageId"].as_str().unwrap().to_owned();
    assert!(id.ends_with("RAC0218"), "{id}");
    assert_eq!(subject.status("/redfish/v1/Systems").await, 200, "Basic needs no session");
}

#[tokio::test]
async fn a_login_with_a_wrong_password_is_401_and_counted() {
    let subject = Subject::small().await;
    assert_eq!(subject.log_in("admin", "wrong").await.status(), 401);
    let counters = subject.bmc.counters();
    assert_eq!((counters.logins, counters.failed_logins), (0, 1));
}

#[tokio::test]
async fn a_login_without_a_password_is_400() {
    let subject = Subject::small().await;
    let request = subject.anonymous(Method::POST, SESSIONS).body("{\"UserName\":\"admin\"}");
    assert_eq!(request.send().await.unwrap().status(), 400);
    let request = subject.anonymous(Method::POST, SESSIONS).body("no json");
    assert_eq!(request.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn expired_sessions_are_refused() {
    let subject = Subject::small().await;
    let login = subject.log_in("admin", &subject.bmc.password()).await;
    let token = header(&login, "x-auth-token").to_owned();
    subject.bmc.expire_sessions();
    let request = subject.anonymous(Method::GET, "/redfish/v1/Systems").header("x-auth-token", &token);
    assert_eq!(request.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn failed_logins_in_a_row_lock_out_even_the_right_password() {
    let subject = with(|behaviour| behaviour.lockout_after = Some(3)).await;
    for _ in 0..2 {
        subject.log_in("admin", "wrong").await;
    }
    assert_eq!(subject.status("/redfish/v1/Systems").await, 200, "a right one forgives the two before");
    for _ in 0..3 {
        subject.log_in("admin", "wrong").await;
    }
    assert_eq!(subject.status("/redfish/v1/Systems").await, 401);
    subject.bmc.unlock();
    assert_eq!(subject.status("/redfish/v1/Systems").await, 200);
}

#[tokio::test]
async fn a_changed_password_is_the_only_one() {
    let subject = Subject::small().await;
    let old = subject.bmc.password();
    subject.bmc.set_password("another");
    assert_eq!(subject.log_in("admin", &old).await.status(), 401);
    assert_eq!(subject.log_in("admin", "another").await.status(), 201);
}

#[tokio::test]
async fn a_factory_password_must_be_changed_first() {
    let subject = with(|behaviour| behaviour.password_change_required = true).await;
    let refused = subject.get("/redfish/v1/Systems").await;
    assert_eq!(refused.status(), 403);
    let code = body(refused).await["error"]["code"].as_str().unwrap().to_owned();
    assert!(code.ends_with("PasswordChangeRequired"), "{code}");
    assert_eq!(subject.status("/redfish/v1").await, 200);
}

#[tokio::test]
async fn a_root_behind_credentials_is_401() {
    let subject = with(|behaviour| behaviour.root_requires_credentials = true).await;
    assert_eq!(subject.anonymous(Method::GET, "/redfish/v1").send().await.unwrap().status(), 401);
    assert_eq!(subject.status("/redfish/v1").await, 200);
}

const ACCOUNTS: &str = "/redfish/v1/AccountService/Accounts";

async fn model(change: impl FnOnce(&mut Behaviour)) -> Subject {
    let mut behaviour = Behaviour::default();
    change(&mut behaviour);
    let builder = Bmc::builder(Model::DgxH100.tree()).behaviour(behaviour);
    Subject::start(builder.bootable(HostOptions::default())).await
}

#[tokio::test]
async fn an_account_is_made_used_and_removed() {
    let subject = model(|_| {}).await;
    let new = json!({"UserName": "ironic", "Password": "first-password", "RoleId": "Operator"});
    let created = subject.post(ACCOUNTS, &new).await;
    assert_eq!(created.status(), 201);
    let account = header(&created, "location").to_owned();
    assert_eq!(subject.json(ACCOUNTS).await["Members@odata.count"], 2);
    assert!(subject.json(&account).await["Password"].is_null());
    assert_eq!(subject.log_in("ironic", "first-password").await.status(), 201);
    let change = subject.patch(&account, &json!({"Password": "second-password"})).await;
    assert_eq!(change.status(), 200);
    assert_eq!(subject.log_in("ironic", "first-password").await.status(), 401);
    assert_eq!((subject.bmc.failed_logins("ironic"), subject.bmc.failed_logins("admin")), (1, 0));
    let removed = subject.request(Method::DELETE, &account).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    assert_eq!(subject.log_in("ironic", "second-password").await.status(), 401);
}

#[tokio::test]
async fn a_role_limits_what_an_account_does() {
    let subject = model(|_| {}).await;
    let new = json!({"UserName": "reader", "Password": "first-password", "RoleId": "ReadOnly"});
    let account = header(&subject.post(ACCOUNTS, &new).await, "location").to_owned();
    let as_reader =
        |method, target: &str| subject.anonymous(method, target).basic_auth("reader", Some("first-password"));
    assert_eq!(as_reader(Method::GET, "/redfish/v1/Systems").send().await.unwrap().status(), 200);
    let off = as_reader(Method::POST, "/redfish/v1/Systems/DGX/Actions/ComputerSystem.Reset");
    assert_eq!(off.body("{\"ResetType\": \"ForceOff\"}").send().await.unwrap().status(), 403);
    let admin = as_reader(Method::PATCH, &format!("{ACCOUNTS}/1")).body("{\"Password\": \"taken-over\"}");
    assert_eq!(admin.send().await.unwrap().status(), 403);
    let own = as_reader(Method::PATCH, &account).body("{\"Password\": \"second-password\"}");
    assert_eq!(own.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn quirk_29_accounts_may_be_slots() {
    let subject = model(|behaviour| behaviour.accounts = AccountStyle::Slots(16)).await;
    assert_eq!(subject.json(ACCOUNTS).await["Members@odata.count"], 16);
    let new =
        json!({"UserName": "ironic", "Password": "first-password", "RoleId": "Operator", "Enabled": true});
    assert_eq!(subject.post(ACCOUNTS, &new).await.status(), 405);
    assert_eq!(subject.patch(&format!("{ACCOUNTS}/3"), &new).await.status(), 200);
    assert_eq!(subject.log_in("ironic", "first-password").await.status(), 201);
}

#[tokio::test]
async fn quirk_04_changing_the_factory_password_opens_the_rest() {
    let subject = model(|behaviour| behaviour.password_change_required = true).await;
    assert_eq!(subject.status("/redfish/v1/Systems").await, 403);
    assert_eq!(subject.json(&format!("{ACCOUNTS}/1")).await["PasswordChangeRequired"], true);
    let changed = subject.patch(&format!("{ACCOUNTS}/1"), &json!({"Password": "another-word"})).await;
    assert_eq!(changed.status(), 200);
    assert_eq!(subject.bmc.password(), "another-word");
    assert_eq!(subject.status("/redfish/v1/Systems").await, 200);
}

#[tokio::test]
async fn a_lock_out_ends_after_its_time() {
    let lock = |behaviour: &mut Behaviour| {
        (behaviour.lockout_after, behaviour.lockout_for) = (Some(2), Some(Duration::from_hours(1)));
    };
    let subject = model(lock).await;
    assert_eq!(subject.json("/redfish/v1/AccountService").await["AccountLockoutDuration"], 3600);
    for _ in 0..2 {
        subject.log_in("admin", "wrong").await;
    }
    assert!(subject.bmc.is_locked_out("admin"));
    assert_eq!(subject.status("/redfish/v1/Systems").await, 401);
    subject.bmc.set_behaviour(|behaviour| behaviour.lockout_for = Some(Duration::ZERO));
    assert_eq!(subject.status("/redfish/v1/Systems").await, 200);
}

#[tokio::test]
async fn a_restarted_bmc_knows_no_session_and_maybe_its_factory_password_again() {
    let subject = model(|behaviour| behaviour.restart.factory_accounts = true).await;
    let factory = subject.bmc.password();
    subject.patch(&format!("{ACCOUNTS}/1"), &json!({"Password": "rotated-word"})).await;
    assert_eq!(subject.log_in("admin", "rotated-word").await.status(), 201);
    let restart = "/redfish/v1/Managers/BMC/Actions/Manager.Reset";
    let answer = subject.post(restart, &json!({"ResetType": "GracefulRestart"})).await;
    assert_eq!(answer.status(), 204);
    assert_eq!((subject.bmc.counters().restarts, subject.bmc.counters().live_sessions), (1, 0));
    assert_eq!(subject.log_in("admin", &factory).await.status(), 201);
}

#[tokio::test]
async fn a_bmc_that_restarts_ends_connections_and_takes_none() {
    let subject = model(|behaviour| {
        behaviour.restart = RestartStyle { takes: Duration::from_hours(1), factory_accounts: false };
    })
    .await;
    subject.bmc.add_fault(Fault::on("/redfish/v1/Chassis", Action::RestartBmc).times(1));
    assert_eq!(subject.status("/redfish/v1/Systems").await, 200);
    assert!(subject.request(Method::GET, "/redfish/v1/Chassis").send().await.is_err());
    assert!(subject.request(Method::GET, "/redfish/v1/Systems").send().await.is_err());
    assert_eq!(subject.bmc.counters().restarts, 1);
}
