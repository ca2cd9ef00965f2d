//! Sessions, lock-out, passwords.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use bailiwick_sim::{Behaviour, Bmc};
use reqwest::{Method, StatusCode};
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
