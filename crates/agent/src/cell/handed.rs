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

/// What an agent's file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByFile {
    /// There is none, or none any more: it is enrolled, or nobody has said how.
    Done,
    /// It is of no use, and the agent was enrolled before.
    Refused,
    /// It may be of use later, and the agent was enrolled before: [`enrol_later`] goes on with it.
    Later,
    /// It was told to stop.
    Stopped,
}

/// Enrols as the file says, and takes it away; does nothing where there is none. An enrolment of before counts no more: the host was
/// set up anew.
///
/// What does not succeed is tried again, ever more rarely: the cell may be away, the machine be no node yet, and a token that is of
/// no use any more may be replaced, in the file or by [`super::enrol`]. An agent that was enrolled before does not wait for that, but
/// goes on as it is: whether that still holds is the cell's to say, and meanwhile pods are to end on this host.
pub async fn enrol_by_file(dir: &StateDir, system_uuid: Option<String>, stop: &CancellationToken) -> ByFile {
    enrolling(dir, system_uuid, stop, false).await
}

/// The same for an agent that goes on meanwhile. Once it is enrolled anew it must begin anew.
pub async fn enrol_later(dir: &StateDir, system_uuid: Option<String>, stop: &CancellationToken) -> ByFile {
    enrolling(dir, system_uuid, stop, true).await
}

async fn enrolling(
    dir: &StateDir,
    system_uuid: Option<String>,
    stop: &CancellationToken,
    patient: bool,
) -> ByFile {
    let mut failures = 0;
    loop {
        let tried = tokio::select! {
            () = stop.cancelled() => return ByFile::Stopped,
            tried = attempt(dir, system_uuid.clone()) => tried,
        };
        let pause = match tried {
            Ok(Tried::Settled) => return ByFile::Done,
            Ok(Tried::Another) => SOON,
            Err(error) => {
                let problem = error.problem();
                let (code, hint) = (error.code(), problem.hint.as_deref());
                if (is_final(&error) || !patient) && dir.identity().is_ok() {
                    tracing::warn!(
                        code,
                        hint,
                        "not enrolled anew, so it goes on as it was before: {problem}"
                    );
                    return if is_final(&error) { ByFile::Refused } else { ByFile::Later };
                }
                let pause = back_off(failures, &error);
                failures += 1;
                tracing::warn!(code, hint, again_in = ?pause, "not enrolled yet: {problem}");
                pause
            }
        };
        tokio::select! {
            () = stop.cancelled() => return ByFile::Stopped,
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
