//! Changes: preconditions, answers, and what must not be sent twice.

use redfish::write::{Fault, Outcome, WriteError};
use serde_json::json;

use crate::machine::{MANAGER, RESET, Running, SESSIONS, SYSTEM};
use crate::server::{Reply, Seen};

/// What came as If-Match with each request of this kind.
fn if_match(running: &Running, method: &str, target: &str) -> Vec<Option<String>> {
    let log = running.bmc.log();
    log.iter().filter(|s| s.is(method, target)).map(|s| s.header("if-match").map(ToOwned::to_owned)).collect()
}

fn refused() -> Reply {
    Reply::message(412, "Base.1.8.PreconditionFailed")
}

#[tokio::test]
async fn a_patch_carries_the_etag_of_the_resource_itself() {
    let running = Running::good().await;
    let (client, _) = running.connect().await;
    let etag = running.machine().etag(SYSTEM);
    let outcome = client.patch(SYSTEM, &json!({"AssetTag": "x"})).await.unwrap();
    assert_eq!(outcome, Outcome::Done { body: None, location: None });
    assert_eq!(running.machine().tree[SYSTEM]["AssetTag"], "x");
    assert_eq!(if_match(&running, "PATCH", SYSTEM), [Some(format!("\"{etag}\""))]);
}

#[tokio::test]
async fn quirk_07_a_bmc_that_wants_its_etag_without_quotes_gets_it_so() {
    let running = Running::start(|_, seen| {
        let quoted = |seen: &Seen| seen.header("if-match").is_some_and(|etag| etag.contains('"'));
        (seen.method == "PATCH" && quoted(seen)).then(refused)
    })
    .await;
    let (client, _) = running.connect().await;
    assert!(client.patch(SYSTEM, &json!({"AssetTag": "x"})).await.is_ok());
    let sent: Vec<String> = if_match(&running, "PATCH", SYSTEM).into_iter().flatten().collect();
    assert_eq!(sent.len(), 2);
    assert!(sent[0].starts_with('"') && sent[1] == sent[0].trim_matches('"'), "{sent:?}");
}

#[tokio::test]
async fn quirk_07_a_bmc_that_takes_no_precondition_gets_none() {
    let running =
        Running::start(|_, seen| (seen.method == "PATCH" && seen.header("if-match").is_some()).then(refused))
            .await;
    let (client, _) = running.connect().await;
    assert!(client.patch(SYSTEM, &json!({"AssetTag": "x"})).await.is_ok());
    assert_eq!(if_match(&running, "PATCH", SYSTEM).last(), Some(&None));
}

#[tokio::test]
async fn quirk_07_an_action_goes_without_precondition_unless_the_bmc_asks_for_one() {
    let running =
        Running::start(|_, seen| (seen.is("POST", RESET) && seen.header("if-match").is_some()).then(refused))
            .await;
    let (client, _) = running.connect().await;
    assert!(client.post(RESET, &json!({"ResetType": "On"})).await.is_ok());
    assert_eq!(if_match(&running, "POST", RESET), [None]);

    let asks = Running::start(|_, seen| {
        (seen.is("POST", RESET) && seen.header("if-match").is_none())
            .then(|| Reply::message(428, "Base.1.8.PreconditionRequired"))
    })
    .await;
    let (client, _) = asks.connect().await;
    let etag = asks.machine().etag(SYSTEM);
    assert!(client.post(RESET, &json!({"ResetType": "On"})).await.is_ok());
    assert_eq!(if_match(&asks, "POST", RESET), [None, Some(format!("\"{etag}\""))]);
}

#[tokio::test]
async fn quirk_08_the_etag_that_the_collection_lacks_is_read_from_the_member() {
    let running = Running::start(|machine, seen| {
        let known = format!("\"{}\"", machine.etag(SYSTEM));
        (seen.is("PATCH", SYSTEM) && seen.header("if-match") != Some(known.as_str())).then(refused)
    })
    .await;
    let (client, _) = running.connect().await;
    let before = running.bmc.count("GET", SYSTEM);
    assert!(client.patch(SYSTEM, &json!({"AssetTag": "x"})).await.is_ok());
    assert_eq!(running.bmc.count("GET", SYSTEM), before + 1);
}

#[tokio::test]
async fn a_resource_changed_meanwhile_is_read_again_before_the_precondition_is_doubted() {
    let mut changed = false;
    let running = Running::start(move |machine, seen| {
        if seen.is("PATCH", SYSTEM) {
            if !std::mem::replace(&mut changed, true) {
                machine.set(SYSTEM, &json!({"AssetTag": "somebody else's"}));
                return Some(refused());
            }
            assert_eq!(seen.header("if-match"), Some(format!("\"{}\"", machine.etag(SYSTEM)).as_str()));
        }
        None
    })
    .await;
    let (client, _) = running.connect().await;
    assert!(client.patch(SYSTEM, &json!({"AssetTag": "ours"})).await.is_ok());
    assert_eq!(running.bmc.count("PATCH", SYSTEM), 2);
}

#[tokio::test]
async fn a_resource_without_etag_is_changed_without_or_with_any() {
    let running = Running::start(|machine, seen| {
        machine.etags = false;
        (seen.is("PATCH", SYSTEM) && seen.header("if-match").is_none())
            .then(|| Reply::message(428, "Base.1.8.PreconditionRequired"))
    })
    .await;
    let (client, _) = running.connect().await;
    assert!(client.patch(SYSTEM, &json!({"AssetTag": "x"})).await.is_ok());
    assert_eq!(if_match(&running, "PATCH", SYSTEM), [None, Some("*".to_owned())]);
}

#[tokio::test]
async fn a_bmc_that_refuses_every_precondition_is_told_apart() {
    let running = Running::start(|_, seen| (seen.method == "PATCH").then(refused)).await;
    let (client, _) = running.connect().await;
    let error = client.patch(SYSTEM, &json!({"AssetTag": "x"})).await.unwrap_err();
    assert_eq!(error.code(), "redfish.write.precondition");
}

#[tokio::test]
async fn every_answer_to_a_change_is_understood() {
    let task = json!({"@odata.id": "/redfish/v1/TaskService/Tasks/7", "@odata.type": "#Task.v1_7_0.Task",
        "TaskState": "Running"});
    let annotated = json!({"@odata.id": SYSTEM, "AssetTag@Message.ExtendedInfo":
        [{"MessageId": "Base.1.8.PropertyNotWritable", "MessageArgs": ["AssetTag"]}]});
    let with = |code: &str| {
        json!({"error": {"@Message.ExtendedInfo": [{"MessageId": format!("Base.1.8.{code}"),
        "MessageArgs": ["secret value", "AssetTag"], "RelatedProperties": ["#/AssetTag"]}]}})
    };
    let location = [("Location", "https://bmc.example/redfish/v1/TaskService/Monitors/7")];
    let cases = [
        (Reply::json(200, &json!({"@odata.id": SYSTEM, "AssetTag": "x"})), Ok("done")),
        (Reply::new(204, &[], ""), Ok("done")),
        (Reply::new(202, &location, &task.to_string()), Ok("accepted")),
        (Reply::new(202, &[("Location", "")], ""), Ok("accepted")),
        (Reply::json(200, &annotated), Err("redfish.write.not-writable")),
        (Reply::json(400, &with("PropertyNotWritable")), Err("redfish.write.not-writable")),
        (Reply::json(400, &with("PropertyUnknown")), Err("redfish.write.not-writable")),
        (Reply::json(400, &with("PropertyValueNotInList")), Err("redfish.write.value")),
        (Reply::message(409, "Base.1.8.ResourceInUse"), Err("redfish.write.conflict")),
        (Reply::message(400, "iLO.2.14.InvalidOperationForSystemState"), Err("redfish.write.conflict")),
        (Reply::html(405), Err("redfish.write.unsupported")),
        (Reply::html(501), Err("redfish.write.unsupported")),
        (Reply::html(403), Err("redfish.resource.forbidden")),
        (Reply::html(404), Err("redfish.resource.not-found")),
        (Reply::html(500), Err("redfish.write.refused")),
        (Reply::html(503), Err("bmc.busy")),
    ];
    for (reply, expected) in cases {
        let shown = format!("{expected:?}");
        let Reply::Whole(bytes) = reply else { panic!("a whole reply") };
        let running =
            Running::start(move |_, seen| seen.is("PATCH", SYSTEM).then(|| Reply::Whole(bytes.clone())))
                .await;
        let (client, _) = running.connect().await;
        let outcome = client.patch(SYSTEM, &json!({"AssetTag": "x"})).await;
        let found = match &outcome {
            Ok(Outcome::Done { .. }) => Ok("done"),
            Ok(Outcome::Accepted(_)) => Ok("accepted"),
            Err(error) => Err(error.code()),
        };
        assert_eq!(found, expected, "{shown}");
        assert!(!format!("{outcome:?}").contains("secret value"), "{outcome:?}");
        if let Err(WriteError::Property { problems, .. }) = outcome {
            assert_eq!(problems[0].property.as_deref(), Some("AssetTag"));
            assert!(problems[0].fault != Fault::Missing);
        }
    }
}

#[tokio::test]
async fn work_that_goes_on_gives_task_and_monitor_by_path_alone() {
    let task = json!({"@odata.id": "/redfish/v1/TaskService/Tasks/7", "TaskState": "New"}).to_string();
    let running = Running::start(move |_, seen| {
        let headers = [("Location", "https://elsewhere/redfish/v1/TaskMonitors/7?x=1"), ("Retry-After", "5")];
        seen.is("PATCH", SYSTEM).then(|| Reply::new(202, &headers, &task))
    })
    .await;
    let (client, _) = running.connect().await;
    let Outcome::Accepted(receipt) = client.patch(SYSTEM, &json!({"AssetTag": "x"})).await.unwrap() else {
        panic!("not accepted")
    };
    assert_eq!(receipt.task.as_deref(), Some("/redfish/v1/TaskService/Tasks/7"));
    assert_eq!(receipt.monitor.as_deref(), Some("/redfish/v1/TaskMonitors/7?x=1"));
    assert_eq!(receipt.retry_after, Some(std::time::Duration::from_secs(5)));
}

#[tokio::test]
async fn a_post_is_never_sent_again_after_a_lost_connection() {
    let running = Running::start(|_, seen| seen.is("POST", RESET).then(|| Reply::Cut(Vec::new()))).await;
    let (client, _) = running.connect().await;
    let error = client.post(RESET, &json!({"ResetType": "On"})).await.unwrap_err();
    assert_eq!(error.code(), "redfish.write.unsure");
    assert_eq!(running.resets(), ["On"]);
}

#[tokio::test]
async fn quirk_01_a_post_takes_a_connection_of_its_own() {
    let running = Running::good().await;
    let (client, _) = running.connect().await;
    client.post(RESET, &json!({"ResetType": "On"})).await.unwrap();
    let log = running.bmc.log();
    let post = log.iter().find(|seen| seen.is("POST", RESET)).unwrap();
    assert!(log.iter().filter(|seen| seen.connection == post.connection).count() == 1);
}

#[tokio::test]
async fn quirk_01_a_patch_is_sent_again_after_a_lost_connection() {
    let mut once = true;
    let running = Running::start(move |_, seen| {
        (seen.is("PATCH", SYSTEM) && std::mem::take(&mut once)).then(|| Reply::Cut(Vec::new()))
    })
    .await;
    let (client, _) = running.connect().await;
    assert!(client.patch(SYSTEM, &json!({"AssetTag": "x"})).await.is_ok());
    assert_eq!(running.bmc.count("PATCH", SYSTEM), 2);
}

#[tokio::test]
async fn a_post_that_the_bmc_says_it_did_not_do_is_sent_again() {
    for status in [503, 429] {
        let mut once = true;
        let running = Running::start(move |_, seen| {
            (seen.is("POST", RESET) && std::mem::take(&mut once)).then(|| Reply::html(status))
        })
        .await;
        let (client, _) = running.connect().await;
        assert!(client.post(RESET, &json!({"ResetType": "On"})).await.is_ok());
        assert_eq!(running.resets(), ["On", "On"]);
    }
    let gateway = Running::start(|_, seen| seen.is("POST", RESET).then(|| Reply::html(502))).await;
    let (client, _) = gateway.connect().await;
    let error = client.post(RESET, &json!({"ResetType": "On"})).await.unwrap_err();
    assert_eq!((error.code(), gateway.resets().len()), ("redfish.write.unsure", 1));
}

#[tokio::test]
async fn a_session_that_ran_out_is_replaced_while_writing() {
    let running = Running::good().await;
    let (client, _) = running.connect().await;
    running.machine().sessions.clear();
    assert!(client.post(RESET, &json!({"ResetType": "On"})).await.is_ok());
    assert_eq!(running.bmc.count("POST", SESSIONS), 2);
    assert_eq!(running.machine().power(), "On");
}

#[tokio::test]
async fn what_is_not_there_is_deleted() {
    let running = Running::good().await;
    let (client, _) = running.connect().await;
    assert!(client.delete("/redfish/v1/Nothing").await.is_ok());
    assert!(client.delete(MANAGER).await.is_ok());
    assert!(!running.machine().tree.contains_key(MANAGER));
}

#[tokio::test]
async fn quirk_40_nothing_is_written_to_another_host() {
    let running = Running::good().await;
    let (client, _) = running.connect().await;
    let error = client.post("https://10.0.0.2/redfish/v1/Systems", &json!({})).await.unwrap_err();
    assert_eq!(error.code(), "redfish.uri.cross-origin");
}
