//! No secret in what people see: errors, debug output, reports.

use std::sync::Arc;

use domain::Diagnose;
use redfish::accounts::{ADMINISTRATOR, Accounts};
use redfish::host::Host;
use redfish::rotation::{Patience, Rotation};
use redfish::{Credentials, Guards, Options, Target, Trust, power};
use serde_json::json;

use crate::machine::{Running, as_user};
use crate::server::{PASSWORD, Reply, Seen, USER, options};

const NEW: &str = "Planted-Secret-2";

/// A BMC that repeats all it was sent in every place that an answer has.
fn echo(status: u16, seen: &Seen) -> Reply {
    let said = format!("{} {}", seen.body, seen.headers.values().cloned().collect::<Vec<_>>().join(" "));
    let told = [PASSWORD, NEW].into_iter().find(|secret| said.contains(secret)).unwrap_or(PASSWORD);
    Reply::json(
        status,
        &json!({"error": {"code": format!("Base.1.8.{told}"), "message": said,
        "@Message.ExtendedInfo": [
            {"MessageId": format!("Base.1.8.{told}"), "Message": said, "MessageArgs": [said, told],
             "RelatedProperties": [format!("#/{told}")]},
            {"MessageId": "Base.1.8.PropertyValueNotInList", "MessageArgs": [told], "RelatedProperties": [told]},
        ]}}),
    )
}

fn check(place: &str, shown: &str) {
    for secret in [PASSWORD, NEW, "token-1", "cm9vdDpjYWx2aW4"] {
        assert!(!shown.contains(secret), "{place} shows {secret}: {shown}");
    }
}

fn shown<E: std::error::Error + Diagnose>(error: &E) -> String {
    let mut text = format!("{error} {error:?} {}", serde_json::to_string(&error.problem()).unwrap());
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text} {cause} {cause:?}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn no_password_and_no_token_shows_in_any_error_of_a_bmc_that_repeats_them() {
    for status in [400, 403, 404, 405, 409, 412, 500, 503] {
        let running = Running::start(move |_, seen| {
            let login = seen.target.ends_with("/Sessions");
            (seen.method != "GET" && seen.method != "DELETE" && !login).then(|| echo(status, seen))
        })
        .await;
        let (client, host) = running.connect().await;
        let accounts = Accounts::of(&client).await.unwrap();
        let own = accounts.own().await.unwrap();
        let new = Credentials::new("other", NEW);
        check("change_password", &shown(&accounts.change_password(&own, NEW).await.unwrap_err()));
        check("create", &shown(&accounts.create(&new, ADMINISTRATOR).await.unwrap_err()));
        let hurried = power::Patience::default().scaled(0.0);
        check("power", &shown(&power::set(&client, &host, power::Target::On, hurried).await.unwrap_err()));
        check("client", &format!("{client:?} {host:?} {accounts:?} {:?}", client.login_budget()));
        check("diagnostics", &format!("{:?}", redfish::Reader::diagnostics(&client)));
    }
}

#[tokio::test]
async fn no_password_shows_in_errors_of_reading_and_logging_in() {
    for status in [400, 401, 403, 409, 500, 503] {
        let running =
            Running::start(move |_, seen| (seen.target != "/redfish/v1/").then(|| echo(status, seen))).await;
        let guards = Guards::default();
        let guard = guards.of(&running.bmc.url()).unwrap();
        let connect = Options { guard: Some(Arc::clone(&guard)), ..as_user(USER, PASSWORD) };
        check("options", &format!("{connect:?}"));
        match running.bmc.connect_with(connect).await {
            Err(error) => check("connect", &shown(&error)),
            Ok(client) => check("find", &shown(&Host::find(&client, None).await.unwrap_err())),
        }
        let (old, new) = (Credentials::new(USER, PASSWORD), Credentials::new(USER, NEW));
        let target = Target::new(running.bmc.url(), Trust::Pin(running.bmc.shown.pin));
        let plain = options();
        let rotation = Rotation {
            target: &target,
            options: &plain,
            guard: &guard,
            old: &old,
            new: &new,
            patience: Patience::default(),
        };
        check("rotation", &format!("{rotation:?} {guard:?} {guards:?}"));
        if let Err(error) = rotation.settle().await {
            check("settle", &shown(&error));
        }
        if let Err(error) = rotation.rotate().await {
            check("rotate", &shown(&error));
        }
    }
}
