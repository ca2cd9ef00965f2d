//! Logging in: sessions that are few, refusals that may be mistakes, accounts that must not be locked.

use std::sync::Arc;
use std::time::Duration;

use redfish::{Authentication, Client, Credentials, LoginBudget, Reader as _};

use crate::server::{Bmc, Reply, Seen, options};

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const SYSTEM: &str = "/redfish/v1/Systems/1";

fn by_basic(bmc: &Bmc) -> Vec<Seen> {
    bmc.log().into_iter().filter(|seen| seen.header("authorization").is_some()).collect()
}

async fn wrong_password(bmc: &Bmc) -> Result<Client, redfish::Error> {
    bmc.connect_with(redfish::Options { credentials: Some(Credentials::new("root", "wrong")), ..options() })
        .await
}

#[tokio::test]
async fn one_session_serves_all_requests_and_is_deleted_at_the_end() {
    let bmc = Bmc::good().await;
    let client = bmc.connect().await.unwrap();
    for _ in 0..5 {
        client.get(SYSTEM).await.unwrap();
    }
    assert_eq!((bmc.logins(), bmc.open_sessions(), by_basic(&bmc).len()), (1, 1, 0));
    client.close().await;
    assert_eq!(bmc.open_sessions(), 0);
}

#[tokio::test]
async fn a_dropped_client_deletes_its_session() {
    let bmc = Bmc::good().await;
    let client = bmc.connect().await.unwrap();
    let clone = client.clone();
    drop(client);
    assert_eq!(bmc.open_sessions(), 1);
    drop(clone);
    while bmc.open_sessions() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_session_is_deleted_also_when_the_time_is_up() {
    let bmc = Bmc::start(|_, seen| (seen.target == "/redfish/v1/Slow").then_some(Reply::Silence)).await;
    let client =
        bmc.connect_with(redfish::Options { deadline: Some(Duration::from_secs(2)), ..options() }).await;
    let client = client.unwrap();
    let error = client.get("/redfish/v1/Slow").await.unwrap_err();
    assert_eq!((error.code(), error.is_fatal()), ("bmc.deadline", true));
    client.close().await;
    assert_eq!(bmc.open_sessions(), 0);
}

#[tokio::test]
async fn the_service_root_read_while_connecting_is_not_read_twice() {
    let bmc = Bmc::good().await;
    let client = bmc.connect().await.unwrap();
    assert_eq!(client.get("/redfish/v1").await.unwrap().body["Vendor"], "Contoso");
    assert_eq!(bmc.count("GET", "/redfish/v1/"), 1);
    assert_eq!(client.usage().count, 2);
}

#[tokio::test]
async fn a_wrong_password_is_tried_twice_and_no_more() {
    let bmc = Bmc::good().await;
    assert_eq!(wrong_password(&bmc).await.unwrap_err().code(), "bmc.unauthorized");
    assert_eq!(bmc.log().iter().filter(|seen| seen.method == "POST").count(), 2);
    assert!(by_basic(&bmc).is_empty());
}

#[tokio::test]
async fn a_wrong_password_without_sessions_is_tried_twice_and_no_more() {
    let bmc = Bmc::start(|_, seen| seen.is("POST", SESSIONS).then(|| Reply::html(404))).await;
    assert_eq!(wrong_password(&bmc).await.unwrap_err().code(), "bmc.unauthorized");
    assert_eq!(by_basic(&bmc).len(), 2);
}

#[tokio::test]
async fn a_bmc_that_says_400_to_wrong_credentials_sees_them_twice_and_no_more() {
    let bmc = Bmc::start(|_, seen| seen.is("POST", SESSIONS).then(|| Reply::html(400))).await;
    assert_eq!(wrong_password(&bmc).await.unwrap_err().code(), "bmc.unauthorized");
    assert_eq!(bmc.logins() + by_basic(&bmc).len(), 2);
}

#[tokio::test]
async fn quirk_02_session_pool_exhausted_falls_back_to_basic() {
    let bmc =
        Bmc::start(|_, seen| seen.is("POST", SESSIONS).then(|| Reply::message(503, "IDRAC.2.8.RAC0218")))
            .await;
    let client = bmc.connect().await.unwrap();
    assert!(client.get(SYSTEM).await.is_ok());
    let codes: Vec<_> = client.diagnostics().into_iter().map(|d| d.code).collect();
    assert_eq!(codes, ["bmc.sessions-exhausted"]);
    assert_eq!(bmc.logins(), 1, "asked for a session again");
}

#[tokio::test]
async fn quirk_02_an_exhausted_pool_is_no_failed_login() {
    let bmc =
        Bmc::start(|_, seen| seen.is("POST", SESSIONS).then(|| Reply::message(503, "IDRAC.2.8.RAC0218")))
            .await;
    let one = redfish::Options {
        login_budget: Arc::new(LoginBudget::new(1, Duration::from_hours(1))),
        ..options()
    };
    for _ in 0..3 {
        assert!(bmc.connect_with(one.clone()).await.is_ok());
    }
}

#[tokio::test]
async fn quirk_02_a_logout_answered_with_401_is_over() {
    let bmc = Bmc::start(|model, seen| {
        (seen.method == "DELETE").then(|| {
            model.sessions.clear();
            Reply::message(401, "Base.1.8.NoValidSession")
        })
    })
    .await;
    let client = bmc.connect().await.unwrap();
    client.close().await;
    assert_eq!(bmc.log().iter().filter(|seen| seen.method == "DELETE").count(), 1);
}

#[tokio::test]
async fn a_session_whose_location_names_another_host_is_deleted_here() {
    let bmc = Bmc::start(|model, seen| {
        seen.is("POST", SESSIONS).then(|| {
            model.sessions.insert("t".to_owned(), format!("{SESSIONS}/7"));
            let location = format!("https://bmc.example{SESSIONS}/7");
            Reply::new(201, &[("X-Auth-Token", "t"), ("Location", &location)], "{}")
        })
    })
    .await;
    bmc.connect().await.unwrap().close().await;
    assert_eq!(bmc.open_sessions(), 0);
}

#[tokio::test]
async fn basic_authentication_can_be_asked_for() {
    let bmc = Bmc::good().await;
    let basic = redfish::Options { authentication: Authentication::Basic, ..options() };
    assert!(bmc.connect_with(basic).await.unwrap().get(SYSTEM).await.is_ok());
    assert_eq!(bmc.logins(), 0);
}

#[tokio::test]
async fn quirk_03_one_401_with_a_valid_session_is_forgiven() {
    let mut once = true;
    let bmc = Bmc::start(move |_, seen| {
        (seen.target == SYSTEM && std::mem::take(&mut once))
            .then(|| Reply::message(401, "Base.1.8.NoValidSession"))
    })
    .await;
    let client = bmc.connect().await.unwrap();
    assert!(client.get(SYSTEM).await.is_ok());
    assert_eq!(bmc.logins(), 1);
}

#[tokio::test]
async fn quirk_03_one_401_at_login_is_forgiven() {
    let mut once = true;
    let bmc = Bmc::start(move |_, seen| {
        (seen.target == SESSIONS && std::mem::take(&mut once))
            .then(|| Reply::message(401, "Base.1.8.Whatever"))
    })
    .await;
    assert!(bmc.connect().await.is_ok());
    assert_eq!(bmc.logins(), 2);
}

#[tokio::test]
async fn quirk_03_one_401_to_basic_authentication_is_forgiven() {
    let mut refuse = false;
    let bmc = Bmc::start(move |_, seen| {
        refuse = !refuse && seen.target == SYSTEM;
        refuse.then(|| Reply::message(401, "Base.1.8.Whatever"))
    })
    .await;
    let basic = redfish::Options { authentication: Authentication::Basic, ..options() };
    let client = bmc.connect_with(basic).await.unwrap();
    for _ in 0..5 {
        assert!(client.get(SYSTEM).await.is_ok());
    }
}

#[tokio::test]
async fn a_session_that_ran_out_is_replaced_by_one_login() {
    let bmc = Bmc::start(|model, seen| {
        (seen.target == "/redfish/v1/Expire").then(|| {
            model.sessions.clear();
            Reply::message(404, "Base.1.8.ResourceMissingAtURI")
        })
    })
    .await;
    let client = bmc.connect().await.unwrap();
    assert!(client.get("/redfish/v1/Expire").await.is_err());
    let read = futures_util::future::join_all((0..8).map(|_| client.get(SYSTEM))).await;
    assert!(read.iter().all(Result::is_ok), "{read:?}");
    assert_eq!((bmc.logins(), bmc.open_sessions()), (2, 1));
}

#[tokio::test]
async fn a_resource_that_always_says_401_costs_one_resource() {
    let bmc = Bmc::start(|_, seen| {
        (seen.target == "/redfish/v1/Odd").then(|| Reply::message(401, "Base.1.8.ResourceAtUriUnauthorized"))
    })
    .await;
    let client = bmc.connect().await.unwrap();
    for _ in 0..10 {
        assert_eq!(client.get("/redfish/v1/Odd").await.unwrap_err().code(), "redfish.resource.unauthorized");
        assert!(client.get(SYSTEM).await.is_ok());
    }
    assert!(bmc.logins() <= 6, "{} logins", bmc.logins());
    assert_eq!(bmc.open_sessions(), 1);
}

#[tokio::test]
async fn quirk_03_a_password_changed_while_reading_is_believed_after_the_strikes() {
    let mut changed = false;
    let bmc = Bmc::start(move |_, seen| {
        changed |= seen.target == "/redfish/v1/Change";
        (changed && seen.has_credentials()).then(|| Reply::message(401, "Base.1.8.Whatever"))
    })
    .await;
    let roomy = Arc::new(LoginBudget::new(100, Duration::from_hours(1)));
    let client = bmc.connect_with(redfish::Options { login_budget: roomy, ..options() }).await.unwrap();
    let error = client.get("/redfish/v1/Change").await.unwrap_err();
    assert_eq!((error.code(), error.is_fatal()), ("bmc.unauthorized", true));
    assert_eq!(bmc.logins(), 1 + 3);
}

#[tokio::test]
async fn quirk_03_all_clients_of_a_bmc_share_the_budget_of_failed_logins() {
    let bmc = Bmc::good().await;
    let budget = Arc::new(LoginBudget::new(3, Duration::from_hours(1)));
    let wrong = redfish::Options {
        credentials: Some(Credentials::new("root", "wrong")),
        login_budget: Arc::clone(&budget),
        ..options()
    };
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(bmc.connect_with(wrong.clone()).await.unwrap_err().code());
    }
    assert_eq!(codes, ["bmc.unauthorized", "bmc.unauthorized", "bmc.login-withheld", "bmc.login-withheld"]);
    assert_eq!(bmc.logins(), 3);
    budget.reset();
    let right = redfish::Options { login_budget: budget, ..options() };
    assert!(bmc.connect_with(right).await.is_ok());
}

#[tokio::test]
async fn a_bmc_that_says_that_it_locked_the_account_is_not_asked_again() {
    let bmc =
        Bmc::start(|_, seen| seen.is("POST", SESSIONS).then(|| Reply::message(401, "IDRAC.2.8.RAC0212")))
            .await;
    assert_eq!(bmc.connect().await.unwrap_err().code(), "bmc.locked-out");
    assert_eq!(bmc.logins(), 1);
}

#[tokio::test]
async fn quirk_04_a_password_to_be_changed_is_told_apart_from_a_wrong_one() {
    let bmc = Bmc::start(|_, seen| {
        seen.is("POST", SESSIONS).then(|| Reply::message(403, "Base.1.8.PasswordChangeRequired"))
    })
    .await;
    assert_eq!(bmc.connect().await.unwrap_err().code(), "bmc.password-change-required");
    assert_eq!(bmc.logins(), 1);
}

#[tokio::test]
async fn quirk_04_a_session_good_only_for_changing_the_password_is_deleted() {
    let bmc = Bmc::start(|model, seen| {
        seen.is("POST", SESSIONS).then(|| {
            model.sessions.insert("t".to_owned(), format!("{SESSIONS}/7"));
            let body = r#"{"@Message.ExtendedInfo":[{"MessageId":"Base.1.8.PasswordChangeRequired"}]}"#;
            Reply::new(201, &[("X-Auth-Token", "t"), ("Location", &format!("{SESSIONS}/7"))], body)
        })
    })
    .await;
    assert_eq!(bmc.connect().await.unwrap_err().code(), "bmc.password-change-required");
    assert_eq!(bmc.open_sessions(), 0);
}

#[tokio::test]
async fn quirk_04_an_xhtml_page_may_carry_the_message() {
    let bmc = Bmc::start(|_, seen| {
        (seen.target == SYSTEM).then(|| {
            let page = "<?xml version=\"1.0\"?><html><p>Base.1.0.PasswordChangeRequired</p></html>";
            Reply::new(403, &[("Content-Type", "application/xhtml+xml")], page)
        })
    })
    .await;
    let error = bmc.connect().await.unwrap().get(SYSTEM).await.unwrap_err();
    assert_eq!((error.code(), error.is_fatal()), ("bmc.password-change-required", true));
}

#[tokio::test]
async fn quirk_04_another_xhtml_page_under_403_costs_one_resource() {
    let bmc = Bmc::start(|_, seen| (seen.target == SYSTEM).then(|| Reply::html(403))).await;
    let error = bmc.connect().await.unwrap().get(SYSTEM).await.unwrap_err();
    assert_eq!((error.code(), error.is_fatal()), ("redfish.resource.forbidden", false));
}

#[tokio::test]
async fn quirk_44_messages_in_another_language_and_without_registry_are_understood() {
    let bmc = Bmc::start(|_, seen| {
        (seen.target == SYSTEM).then(|| {
            let body = r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"Contoso.PasswordChangeRequired",
                "Message":"Сначала смените пароль"}]}}"#;
            Reply::new(403, &[("Content-Type", "application/json; charset=utf-8")], body)
        })
    })
    .await;
    let error = bmc.connect().await.unwrap().get(SYSTEM).await.unwrap_err();
    assert_eq!(error.code(), "bmc.password-change-required");
}

#[tokio::test]
async fn quirk_29_account_slots_that_are_empty_are_ordinary_resources() {
    let slot = serde_json::json!({"@odata.id": "/redfish/v1/AccountService/Accounts/2", "Id": "2",
        "UserName": "", "Enabled": false, "RoleId": "None", "Locked": null});
    let answer = slot.clone();
    let bmc =
        Bmc::start(move |_, seen| seen.target.ends_with("Accounts/2").then(|| Reply::json(200, &answer)))
            .await;
    let client = bmc.connect().await.unwrap();
    assert_eq!(client.get("/redfish/v1/AccountService/Accounts/2").await.unwrap().body, slot);
}

#[tokio::test]
async fn a_service_root_that_asks_for_credentials_is_read_with_them() {
    let bmc = Bmc::start(|_, seen| {
        (seen.is("GET", "/redfish/v1/") && !seen.has_credentials()).then(|| Reply::html(401))
    })
    .await;
    let client = bmc.connect().await.unwrap();
    assert_eq!(client.get("/redfish/v1/").await.unwrap().body["Vendor"], "Contoso");
}
