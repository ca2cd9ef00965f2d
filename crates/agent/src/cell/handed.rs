//! An agent that enrols by itself: whoever set the host up, a cell above all, has left a file in its state directory that says how
//! (`domain::agent::Enrolment`).

use super::error::Error;
use super::identity::StateDir;
use super::report::{back_off, jitter};
use domain::Diagnose as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How soon it is looked again at what another agent of this host does.
const SOON: Duration = Duration::from_secs(1);

/// What one try came to.
enum Tried {
    /// There is no such file, or none any more.
    Settled,
    /// Another agent of this host is at it.
    Another,
}

/// Enrols as the file says, and takes it away; does nothing where there is none. An enrolment of before counts no more: the host was
/// set up anew. Ends when there is nothing left to do, or when it is cancelled.
///
/// What does not succeed is tried again, ever more rarely: the cell may be away, the machine be no node yet, and a token that is of
/// no use any more may be replaced, in the file or by [`super::enrol`]. With such a token, an agent that was enrolled before goes on
/// as it is: whether that still holds is the cell's to say.
pub async fn enrol_by_file(dir: &StateDir, system_uuid: Option<String>, stop: &CancellationToken) {
    let mut failures = 0;
    loop {
        let tried = tokio::select! {
            () = stop.cancelled() => return,
            tried = attempt(dir, system_uuid.clone()) => tried,
        };
        let pause = match tried {
            Ok(Tried::Settled) => return,
            Ok(Tried::Another) => SOON,
            Err(error) => {
                let problem = error.problem();
                let (code, hint) = (error.code(), problem.hint.as_deref());
                if is_final(&error) && dir.identity().is_ok() {
                    tracing::warn!(
                        code,
                        hint,
                        "not enrolled anew, so it goes on as it was before: {problem}"
                    );
                    return;
                }
                let pause = back_off(failures, &error);
                failures += 1;
                tracing::warn!(code, hint, again_in = ?pause, "not enrolled yet: {problem}");
                pause
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(jitter(pause)) => {}
        }
    }
}

async fn attempt(dir: &StateDir, system_uuid: Option<String>) -> Result<Tried, Error> {
    // Nearly always: then nobody is waited for.
    if matches!(dir.enrolment(), Ok(None)) {
        return Ok(Tried::Settled);
    }
    // During an update two agents run on a host. The second would end the enrolment of the first, or find the token used.
    let Some(_alone) = dir.lock()? else { return Ok(Tried::Another) };
    let Some(enrolment) = dir.enrolment()? else { return Ok(Tried::Settled) };
    let cell = enrolment.cell.to_string();
    let identity = super::enrol(dir, &cell, &enrolment.token, system_uuid).await?;
    tracing::info!(machine = %identity.machine, cell, "enrolled");
    Ok(Tried::Settled)
}

/// Whether the token is of no use to this host any more, however often it asks.
fn is_final(error: &Error) -> bool {
    matches!(
        error.code(),
        "agent.other-machine"
            | "agent.token-late"
            | "agent.token-malformed"
            | "agent.token-unknown"
            | "agent.token-used"
    )
}

#[cfg(test)]
mod tests;
