//! Work that goes on after 202.

use std::time::Duration;

use redfish::task::{Patience, TaskEnd, follow};
use redfish::write::Receipt;
use serde_json::{Value, json};

use crate::machine::Running;
use crate::server::Reply;

const TASK: &str = "/redfish/v1/TaskService/Tasks/1";

fn patience() -> Patience {
    let long = Duration::from_secs(20);
    Patience { every: Duration::from_millis(1), appears: long, deadline: long }
}

fn receipt() -> Receipt {
    Receipt { task: Some(TASK.to_owned()), ..Receipt::default() }
}

fn state(state: &str) -> Reply {
    Reply::json(200, &json!({"@odata.id": TASK, "TaskState": state}))
}

/// Follows a task whose looks are answered in this order, the last one for ever.
async fn followed(looks: Vec<Reply>, receipt: &Receipt, patience: Patience) -> TaskEnd {
    let mut looks: Vec<Vec<u8>> = looks
        .into_iter()
        .rev()
        .map(|look| match look {
            Reply::Whole(bytes) => bytes,
            _ => panic!("a whole reply"),
        })
        .collect();
    let running = Running::start(move |_, seen| {
        (seen.target.starts_with("/redfish/v1/TaskService")).then(|| {
            let now = if looks.len() > 1 { looks.pop().unwrap() } else { looks[0].clone() };
            Reply::Whole(now)
        })
    })
    .await;
    let (client, _) = running.connect().await;
    follow(&client, receipt, patience).await.unwrap()
}

fn completed() -> TaskEnd {
    TaskEnd::Completed { messages: Vec::new() }
}

#[tokio::test]
async fn quirk_17_a_task_just_made_may_be_missing_at_first() {
    let looks = vec![Reply::html(404), Reply::html(404), state("Running"), state("Completed")];
    assert_eq!(followed(looks, &receipt(), patience()).await, completed());
}

#[tokio::test]
async fn quirk_17_a_task_that_is_gone_is_no_failure() {
    let looks = vec![state("Running"), Reply::message(404, "Base.1.8.ResourceMissingAtURI")];
    assert_eq!(followed(looks, &receipt(), patience()).await, TaskEnd::Vanished);
}

#[tokio::test]
async fn quirk_17_a_task_never_seen_is_no_failure() {
    let soon = Patience { appears: Duration::from_millis(50), ..patience() };
    assert_eq!(followed(vec![Reply::html(404)], &receipt(), soon).await, TaskEnd::Vanished);
}

#[tokio::test]
async fn quirk_18_a_task_that_is_new_is_waited_for() {
    let looks = vec![state("New"), state("Starting"), state("Pending"), state("Completed")];
    assert_eq!(followed(looks, &receipt(), patience()).await, completed());
}

#[tokio::test]
async fn quirk_18_without_a_location_there_is_nothing_to_follow() {
    let nothing = Receipt::default();
    assert_eq!(followed(vec![Reply::html(500)], &nothing, patience()).await, TaskEnd::Vanished);
}

#[tokio::test]
async fn a_monitor_tells_by_its_status() {
    let monitor =
        Receipt { monitor: Some("/redfish/v1/TaskService/TaskMonitors/1".to_owned()), ..Receipt::default() };
    let running = || Reply::new(202, &[("Retry-After", "0")], "");
    let done = vec![running(), running(), Reply::new(204, &[], "")];
    assert_eq!(followed(done, &monitor, patience()).await, completed());
    let failed = vec![running(), Reply::html(400)];
    let end = TaskEnd::Failed { state: "status 400".to_owned(), messages: Vec::new() };
    assert_eq!(followed(failed, &monitor, patience()).await, end);
}

#[tokio::test]
async fn a_task_that_fails_tells_its_state_and_messages() {
    let failed: Value = json!({"@odata.id": TASK, "TaskState": "Exception", "TaskStatus": "Critical", "Messages": [
        {"MessageId": "IDRAC.2.8.RED064", "Message": "Unable to apply"}, {"Message": null}]});
    let TaskEnd::Failed { state, messages } =
        followed(vec![Reply::json(200, &failed)], &receipt(), patience()).await
    else {
        panic!("did not fail")
    };
    assert_eq!(state, "Exception");
    assert_eq!((messages.len(), messages[0].id.as_str()), (1, "IDRAC.2.8.RED064"));
}

#[tokio::test]
async fn a_job_of_a_vendor_is_a_task_too() {
    let job = |state: &str| Reply::json(200, &json!({"@odata.id": TASK, "JobState": state}));
    let looks = vec![job("Scheduled"), job("Running"), job("CompletedWithErrors")];
    assert!(matches!(followed(looks, &receipt(), patience()).await, TaskEnd::Failed { .. }));
}

#[tokio::test]
async fn a_bmc_that_is_busy_meanwhile_is_asked_again() {
    let looks =
        vec![state("Running"), Reply::html(503), Reply::html(503), Reply::html(503), state("Completed")];
    assert_eq!(followed(looks, &receipt(), patience()).await, completed());
}

#[tokio::test]
async fn a_task_that_does_not_end_is_still_running_at_the_deadline() {
    let hurried = Patience { deadline: Duration::from_millis(50), ..patience() };
    let running =
        Reply::json(200, &json!({"@odata.id": TASK, "TaskState": "Running", "PercentComplete": 40}));
    assert_eq!(
        followed(vec![running], &receipt(), hurried).await,
        TaskEnd::StillRunning { percent: Some(40) }
    );
}
