//! Accounts: made, or slots.

use redfish::Credentials;
use redfish::accounts::{ADMINISTRATOR, Accounts};
use serde_json::json;

use crate::machine::{ACCOUNTS, Running, as_user};
use crate::server::{PASSWORD, Reply, USER};

fn new() -> Credentials {
    Credentials::new("bailiwick", "own-password-1")
}

#[tokio::test]
async fn an_account_is_made_used_and_deleted() {
    let running = Running::good().await;
    let (client, _) = running.connect().await;
    let accounts = Accounts::of(&client).await.unwrap();
    let made = accounts.create(&new(), ADMINISTRATOR).await.unwrap();
    assert_eq!((made.username.as_deref(), made.role.as_deref()), (Some("bailiwick"), Some("Administrator")));
    assert!(running.bmc.connect_with(as_user("bailiwick", "own-password-1")).await.is_ok());
    // Done twice it is done once.
    accounts.create(&new(), ADMINISTRATOR).await.unwrap();
    assert_eq!(accounts.list().await.unwrap().len(), 2);
    accounts.remove("bailiwick").await.unwrap();
    accounts.remove("bailiwick").await.unwrap();
    assert_eq!(accounts.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn quirk_29_where_accounts_are_slots_the_first_free_one_from_three_is_filled_and_disabled_again() {
    let running = Running::good().await;
    {
        let mut machine = running.machine();
        machine.slots = true;
        machine.set("/redfish/v1", &json!({"Vendor": "Dell"}));
        machine.tree.remove(&format!("{ACCOUNTS}/1"));
        machine.put_account("1", "", "");
        machine.put_account("2", USER, PASSWORD);
        machine.put_account("3", "somebody", "x");
        for id in ["4", "5", "12"] {
            machine.put_account(id, "", "");
        }
    }
    let (client, _) = running.connect().await;
    let accounts = Accounts::of(&client).await.unwrap();
    let made = accounts.create(&new(), ADMINISTRATOR).await.unwrap();
    assert_eq!(made.id, "4");
    assert!(running.machine().knows("bailiwick", "own-password-1"));
    accounts.remove("bailiwick").await.unwrap();
    assert!(!running.machine().knows("bailiwick", "own-password-1"));
    assert_eq!(accounts.list().await.unwrap().len(), 6);
}

#[tokio::test]
async fn quirk_29_slots_are_found_out_where_the_vendor_is_not_known_for_them() {
    let running = Running::good().await;
    running.machine().slots = true;
    running.machine().put_account("2", "", "");
    let (client, _) = running.connect().await;
    let accounts = Accounts::of(&client).await.unwrap();
    assert_eq!(accounts.create(&new(), ADMINISTRATOR).await.unwrap().id, "2");
    let other = Credentials::new("other", "x");
    assert_eq!(accounts.create(&other, ADMINISTRATOR).await.unwrap_err().code(), "bmc.account-no-slot");
}

#[tokio::test]
async fn the_account_in_use_is_not_taken_away() {
    let running = Running::good().await;
    let (client, _) = running.connect().await;
    let accounts = Accounts::of(&client).await.unwrap();
    assert_eq!(accounts.remove(USER).await.unwrap_err().code(), "bmc.account-own");
    assert_eq!(accounts.disable(USER).await.unwrap_err().code(), "bmc.account-own");
    assert_eq!(accounts.disable("nobody").await.unwrap_err().code(), "bmc.account-not-found");
}

#[tokio::test]
async fn quirk_38_an_account_that_is_not_there_after_a_success_is_an_error() {
    let running = Running::start(|_, seen| seen.is("POST", ACCOUNTS).then(|| Reply::new(201, &[], ""))).await;
    let (client, _) = running.connect().await;
    let accounts = Accounts::of(&client).await.unwrap();
    assert_eq!(accounts.create(&new(), ADMINISTRATOR).await.unwrap_err().code(), "bmc.account-no-effect");
}

#[tokio::test]
async fn a_password_that_the_bmc_does_not_accept_is_told_without_repeating_it() {
    let body = json!({"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.8.PropertyValueFormatError",
        "Message": "The value own-password-1 is bad", "MessageArgs": ["own-password-1", "Password"]}]}});
    let running =
        Running::start(move |_, seen| (seen.method == "PATCH").then(|| Reply::json(400, &body))).await;
    let (client, _) = running.connect().await;
    let accounts = Accounts::of(&client).await.unwrap();
    let own = accounts.own().await.unwrap();
    let error = accounts.change_password(&own, "own-password-1").await.unwrap_err();
    assert_eq!(error.code(), "bmc.password-unacceptable");
    assert!(!format!("{error} {error:?}").contains("own-password-1"));
}

#[tokio::test]
async fn the_lock_out_policy_of_the_bmc_lowers_the_budget() {
    let running = Running::good().await;
    running.machine().set(
        "/redfish/v1/AccountService",
        &json!({"AccountLockoutThreshold": 2, "AccountLockoutDuration": 3600}),
    );
    let (client, _) = running.connect().await;
    Accounts::of(&client).await.unwrap().learn_lockout().await.unwrap();
    let limit = client.login_budget().limit();
    assert_eq!((limit.failures, limit.window.as_secs()), (1, 3_600));
}

#[tokio::test]
async fn quirk_04_a_session_that_may_do_nothing_else_changes_its_own_password() {
    let account = format!("{ACCOUNTS}/1");
    for tells_where in [true, false] {
        let path = account.clone();
        let running = Running::start(move |machine, seen| {
            let factory = machine.passwords[&path] == PASSWORD;
            let own = seen.target == path;
            if !factory || own || seen.target == "/redfish/v1/" || seen.method == "DELETE" {
                return None;
            }
            let args = if tells_where { json!([path]) } else { json!([]) };
            let entry = json!({"MessageId": "Base.1.8.PasswordChangeRequired", "MessageArgs": args});
            if seen.target.ends_with("/Sessions") {
                let _ = machine.answer(seen);
                let token = machine.sessions.keys().next().cloned().unwrap();
                let body = json!({"@Message.ExtendedInfo": [entry]}).to_string();
                return Some(Reply::new(201, &[("X-Auth-Token", &token)], &body));
            }
            Some(Reply::json(403, &json!({"error": {"@Message.ExtendedInfo": [entry]}})))
        })
        .await;
        assert_eq!(running.bmc.connect().await.unwrap_err().code(), "bmc.password-change-required");
        let limited = redfish::Options { limited: true, ..as_user(USER, PASSWORD) };
        let client = running.bmc.connect_with(limited).await.unwrap();
        assert!(client.must_change_password() && client.is_authenticated());
        let accounts = Accounts::of(&client).await.unwrap();
        assert_eq!(accounts.own().await.unwrap(), account);
        accounts.change_password(&account, "own-password-1").await.unwrap();
        assert!(running.machine().knows(USER, "own-password-1"));
    }
}
