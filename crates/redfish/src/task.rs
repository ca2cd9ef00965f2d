//! Following work that goes on after an answer of 202 (quirks 17 and 18).
//!
//! A task tells how work went, never whether it took effect: BMCs forget tasks, finish them before the work is done, or give
//! none. Whoever started the work verifies the result.

use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode, header};
use serde_json::Value;

use crate::client::Client;
use crate::message::Messages;
use crate::reader::ReadError;
use crate::retry;
use crate::write::{Change, Outcome, Receipt, Repeat, WriteError};

/// Messages of a task that are kept, and characters of each.
const MESSAGES: usize = 50;
const TEXT: usize = 300;

/// How patiently a task is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between two looks, unless the BMC asks for more.
    pub every: Duration,
    /// How long a task just made may be 404 (quirk 17).
    pub appears: Duration,
    /// When following ends.
    pub deadline: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { every: seconds(5), appears: seconds(30), deadline: Duration::from_mins(30) }
    }
}

/// How following a task ended. Verify the result in every case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// The BMC says that the work is done.
    Completed {
        /// What it says of it.
        messages: Vec<TaskMessage>,
    },
    /// The BMC says that the work failed or was stopped.
    Failed {
        /// Its TaskState, as spelled, or `status NNN` of a monitor.
        state: String,
        /// What it says of it.
        messages: Vec<TaskMessage>,
    },
    /// There is nothing to follow: no Location, a task never seen, or one that is gone. Not a failure.
    Vanished,
    /// The deadline came first.
    StillRunning {
        /// `PercentComplete`, where it is told.
        percent: Option<u8>,
    },
}

/// One message of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskMessage {
    /// Its MessageId.
    pub id: String,
    /// Its text, shortened; in whatever language the BMC speaks.
    pub text: String,
}

/// What one look shows.
enum Look {
    Running { percent: Option<u8>, retry_after: Option<Duration> },
    Ended(TaskEnd),
    Missing,
}

/// Follows a task or its monitor until it ends.
pub async fn follow(client: &Client, receipt: &Receipt, patience: Patience) -> Result<TaskEnd, WriteError> {
    // The task itself tells more than its monitor, and some monitors tell nothing (quirk 18).
    let Some(uri) = receipt.task.as_deref().or(receipt.monitor.as_deref()) else {
        return Ok(TaskEnd::Vanished);
    };
    let started = Instant::now();
    let (mut seen, mut percent, mut wait) = (false, None, receipt.retry_after);
    loop {
        let left = patience.deadline.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(TaskEnd::StillRunning { percent });
        }
        tokio::time::sleep(wait.take().unwrap_or(Duration::ZERO).max(patience.every).min(left)).await;
        match look(client, uri).await {
            Ok(Look::Ended(end)) => return Ok(end),
            Ok(Look::Running { percent: now, retry_after }) => {
                (seen, wait) = (true, retry_after);
                percent = now.or(percent);
            }
            Ok(Look::Missing) if seen || started.elapsed() >= patience.appears => {
                return Ok(TaskEnd::Vanished);
            }
            // A busy or restarting BMC; what it did shows later.
            Ok(Look::Missing) => {}
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for work that goes on, for as long as a person would; how it ended shows by what was changed.
pub(crate) async fn finish(client: &Client, outcome: Outcome) -> Result<(), WriteError> {
    let patience =
        Patience { every: Duration::from_secs(1), deadline: Duration::from_mins(1), ..Patience::default() };
    match outcome {
        Outcome::Done { .. } => Ok(()),
        Outcome::Accepted(receipt) => follow(client, &receipt, patience).await.map(|_| ()),
    }
}

async fn look(client: &Client, uri: &str) -> Result<Look, WriteError> {
    let change = Change { method: Method::GET, uri, payload: None, repeat: Repeat::Freely };
    let answer = client.inner.send(&change, None).await?;
    let asked = answer.header(&header::RETRY_AFTER).and_then(|v| retry::retry_after(v, SystemTime::now()));
    let body: Value = serde_json::from_slice(&answer.body.bytes).unwrap_or_default();
    if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Ok(Look::Missing);
    }
    let messages = || client.inner.task_messages(&body);
    let state = ["TaskState", "JobState"].iter().find_map(|name| body.get(*name)?.as_str());
    if let (true, Some(state)) = (answer.status.is_success(), state) {
        let critical = ["TaskStatus", "JobStatus"].iter().any(|name| {
            body.get(*name).and_then(Value::as_str).is_some_and(|s| s.eq_ignore_ascii_case("Critical"))
        });
        return Ok(match phase(state) {
            Phase::Done if !critical => Look::Ended(TaskEnd::Completed { messages: messages() }),
            Phase::Done | Phase::Failed => {
                Look::Ended(TaskEnd::Failed { state: shorten(state), messages: messages() })
            }
            Phase::Running => {
                let percent = body.get("PercentComplete").and_then(Value::as_u64);
                Look::Running {
                    percent: percent.and_then(|p| u8::try_from(p.min(100)).ok()),
                    retry_after: asked,
                }
            }
        });
    }
    match answer.status {
        StatusCode::ACCEPTED => Ok(Look::Running { percent: None, retry_after: asked }),
        status if status.is_success() => Ok(Look::Ended(TaskEnd::Completed { messages: messages() })),
        // The monitor answers as the operation itself would have: these are about the way, not about the work.
        status if retry::is_transient(status, &Messages::of_body(&answer.body.bytes)) => {
            Err(ReadError::Busy { uri: uri.to_owned(), message_id: None }.into())
        }
        StatusCode::FORBIDDEN => Err(ReadError::Forbidden { uri: uri.to_owned(), message_id: None }.into()),
        status => {
            let state = format!("status {}", status.as_u16());
            Ok(Look::Ended(TaskEnd::Failed { state, messages: messages() }))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Done,
    Failed,
}

/// What a TaskState or JobState means. What is not known goes on, until the deadline; `New` is a task not yet begun (quirk 18).
fn phase(state: &str) -> Phase {
    const ENDS: &[(&str, Phase)] = &[
        ("Completed", Phase::Done),
        ("CompletedOK", Phase::Done),
        ("RebootCompleted", Phase::Done),
        ("Exception", Phase::Failed),
        ("Killed", Phase::Failed),
        ("Cancelled", Phase::Failed),
        ("Failed", Phase::Failed),
        ("CompletedWithErrors", Phase::Failed),
        ("RebootFailed", Phase::Failed),
    ];
    let bare: String = state.chars().filter(char::is_ascii_alphabetic).collect();
    ENDS.iter().find(|(name, _)| bare.eq_ignore_ascii_case(name)).map_or(Phase::Running, |(_, phase)| *phase)
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT).collect()
}

impl crate::client::Inner {
    /// The messages of a task, without what would repeat our password.
    fn task_messages(&self, body: &Value) -> Vec<TaskMessage> {
        let entries = body.get("Messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let password = self.identity.credentials.as_ref().map(|credentials| credentials.password.as_str());
        let tells =
            |text: &str| password.is_some_and(|password| !password.is_empty() && text.contains(password));
        let text = |entry: &Value, name: &str| {
            entry
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !tells(text))
                .map(shorten)
                .unwrap_or_default()
        };
        entries
            .iter()
            .take(MESSAGES)
            .map(|entry| TaskMessage { id: text(entry, "MessageId"), text: text(entry, "Message") })
            .filter(|message| !message.id.is_empty() || !message.text.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quirk_18_a_task_that_is_new_is_running() {
        for state in ["New", "Starting", "Running", "Pending", "Suspended", "Service", "Scheduled", "Odd", ""]
        {
            assert_eq!(phase(state), Phase::Running, "{state}");
        }
    }

    #[test]
    fn ends_are_known_however_they_are_spelled() {
        assert_eq!(phase("completed"), Phase::Done);
        assert_eq!(phase("Completed "), Phase::Done);
        assert_eq!(phase("Completed with errors"), Phase::Failed);
        for state in ["Exception", "Killed", "Cancelled", "Failed"] {
            assert_eq!(phase(state), Phase::Failed, "{state}");
        }
    }
}
