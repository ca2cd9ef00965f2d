//! Reporting: at once when something changes, as long as that is not all the time, else when the cell said to; less and less often
//! while the cell is away.

use super::error::Error;
use super::gate::{Gate, uptime};
use super::identity::{Identity, NotKept, StateDir};
use super::pace::Pace;
use super::wire::{self, Client};
use domain::agent::{
    LONGEST_TEXT, MOST_PREPARED, MOST_PROBLEMS, MOST_SCRUBS, PreparedDevice, RENEW, REPORT, RenewAnswer,
    RenewRequest, Report, ReportAnswer, ScrubRecord,
};
use domain::permit::HeldPermits;
use domain::probe::Probe;
use domain::{Diagnose as _, Problem};
use jiff::Timestamp;
use rcgen::KeyPair;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What changes within this time is reported together.
const GATHER: Duration = Duration::from_millis(50);

/// How long after a failure the next try comes, at first and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);

/// Whatever the cell says, there is no sooner and no later report than this.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_mins(10);

/// How the host stands: what a report tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// What the driver told last.
    pub probe: Arc<Probe>,
    /// Since when the kubelet has the plugin registered.
    pub registered: Option<Timestamp>,
    /// Devices prepared for claims.
    pub prepared: Vec<PreparedDevice>,
    /// What keeps the agent from its work.
    pub problems: Vec<Problem>,
    /// The last scrubs, oldest first.
    pub scrubs: Vec<ScrubRecord>,
}

/// Reports to the cell.
pub struct Reporter {
    dir: StateDir,
    identity: Identity,
    boot_id: Option<String>,
    client: Client,
    host: watch::Receiver<Host>,
    permits: watch::Sender<Option<Arc<HeldPermits>>>,
    /// Whether the cell has answered a report, knowing all that it tells.
    answered: watch::Sender<bool>,
    /// Scrubs that the cell knows: they are told once.
    known_scrubs: Vec<ScrubRecord>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Reporter {
    /// For the agent that is enrolled here, on this start of the host, if that can be told. The gate knows the permits of an earlier
    /// run of the same start at once.
    pub fn new(
        dir: StateDir,
        boot_id: Option<String>,
        host: watch::Receiver<Host>,
    ) -> Result<(Self, Gate), Error> {
        let identity = dir.identity()?;
        let held = dir.permits(&identity, boot_id.as_deref()).map(Arc::new);
        let (permits, seen) = watch::channel(held);
        let (answered, told) = watch::channel(false);
        let client = client(&identity)?;
        Ok((
            Self { dir, identity, boot_id, client, host, permits, answered, known_scrubs: Vec::new() },
            Gate::new(seen, told),
        ))
    }

    /// Who the agent is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Runs until it is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        let mut pace = Pace::new(Instant::now());
        loop {
            self.host.mark_unchanged();
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = self.turn() => result,
            };
            let (pause, patient) = match result {
                Ok(pause) => {
                    failures = 0;
                    (pause, false)
                }
                Err(error) => {
                    let pause = back_off(failures, &error);
                    failures += 1;
                    tracing::warn!(code = error.code(), again_in = ?pause, "{}", error.problem());
                    (pause, true)
                }
            };
            let due = Instant::now() + jitter(pause);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
                // While the cell is away, what changes waits with the rest.
                () = self.changed(&pace), if !patient => pace.spend(Instant::now()),
            }
        }
    }

    async fn changed(&mut self, pace: &Pace) {
        if self.host.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(pace.wait(Instant::now()).max(GATHER)).await;
    }

    /// Renews the certificate if it is time, and reports. Gives the time until the next report.
    async fn turn(&mut self) -> Result<Duration, Error> {
        if Timestamp::now() >= self.identity.renewal()?
            && let Err(error) = self.renew().await
        {
            // It is not over until the certificate is.
            tracing::warn!(code = error.code(), "the certificate is not renewed yet: {}", error.problem());
        }
        let mut answer = self.report(false).await?;
        if answer.probe_wanted {
            answer = self.report(true).await?;
        }
        self.answered.send_if_modified(|answered| !std::mem::replace(answered, true));
        let next = next_report(answer.next_report_seconds);
        let until_renewal = self.identity.renewal()?.duration_since(Timestamp::now());
        let until_renewal = Duration::try_from(until_renewal).unwrap_or_default();
        // One that is due and failed is tried again with the next report.
        Ok(if until_renewal.is_zero() { next } else { next.min(until_renewal) })
    }

    async fn report(&mut self, with_probe: bool) -> Result<ReportAnswer, Error> {
        let (report, scrubs) = {
            let host = self.host.borrow();
            let mut prepared = host.prepared.clone();
            prepared.truncate(MOST_PREPARED);
            let report = Report {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                digest: host.probe.digest(),
                registered: host.registered,
                boot_id: self.boot_id.clone().unwrap_or_default(),
                prepared,
                problems: bounded(host.problems.clone()),
                scrubs: untold(&host.scrubs, &self.known_scrubs),
                probe: with_probe.then(|| Box::new(Probe::clone(&host.probe))),
            };
            (report, host.scrubs.clone())
        };
        // Before the call: what it takes counts as time that has passed.
        let asked = uptime();
        let answer: ReportAnswer = self.client.call(REPORT, &report).await?;
        self.take(&answer, asked)?;
        if answer.kept {
            self.known_scrubs = scrubs;
        }
        Ok(answer)
    }

    /// Takes the permits of an answer.
    fn take(&self, answer: &ReportAnswer, asked: Duration) -> Result<(), Error> {
        let permits = answer.permits.open(&self.identity.permit_key, &self.identity.machine)?;
        let held = HeldPermits::new(permits, asked);
        if let Some(before) = self.permits.borrow().as_ref() {
            held.may_replace(before)?;
        }
        match self.dir.keep_permits(&answer.permits, self.boot_id.as_deref(), asked) {
            Ok(()) => {}
            // They are in force all the same: they may hold fewer than those of before.
            Err(NotKept::Forgotten(error)) => {
                tracing::warn!(code = error.code(), "no permits are kept over a restart: {error}");
            }
            Err(NotKept::Stale(error)) => tracing::error!(
                code = error.code(),
                "permits of before come back with a restart of the agent, until the cell answers: {error}"
            ),
        }
        self.permits.send_replace(Some(Arc::new(held)));
        Ok(())
    }

    /// Takes another certificate, for another key.
    async fn renew(&mut self) -> Result<(), Error> {
        let key = KeyPair::generate().map_err(|error| Error::Key(error.to_string()))?;
        let request = RenewRequest { csr: super::request(&key)? };
        let answer: RenewAnswer = self.client.call(RENEW, &request).await?;
        let renewed = Identity {
            key: key.serialize_pem(),
            certificate: answer.certificate,
            received: Timestamp::now(),
            ..self.identity.clone()
        };
        renewed.life()?;
        let client = client(&renewed)?;
        self.dir.keep(&renewed)?;
        (self.identity, self.client) = (renewed, client);
        tracing::info!("the certificate is renewed");
        Ok(())
    }
}

/// Problems as they are reported: in one order, each once, and no more and no longer ones than the cell takes. What programs of
/// others have said is in them.
pub(crate) fn bounded(mut problems: Vec<Problem>) -> Vec<Problem> {
    for problem in &mut problems {
        let Problem { message, hint, found, expected, at, .. } = problem;
        for text in std::iter::once(message).chain([hint, found, expected, at].into_iter().flatten()) {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        }
    }
    let key = |problem: &Problem| (problem.code.clone(), problem.at.clone(), problem.message.clone());
    problems.sort_by_cached_key(key);
    problems.dedup();
    problems.truncate(MOST_PROBLEMS);
    problems
}

/// The newest scrubs that the cell does not know, with texts no longer than it keeps.
fn untold(scrubs: &[ScrubRecord], known: &[ScrubRecord]) -> Vec<ScrubRecord> {
    let mut untold: Vec<_> = scrubs.iter().filter(|scrub| !known.contains(scrub)).cloned().collect();
    untold.drain(..untold.len().saturating_sub(MOST_SCRUBS));
    for failure in untold.iter_mut().filter_map(|scrub| scrub.failure.as_mut()) {
        failure.truncate(failure.floor_char_boundary(LONGEST_TEXT));
    }
    untold
}

fn client(identity: &Identity) -> Result<Client, Error> {
    Ok(Client::new(identity.cell.parse()?, wire::by_certificate(identity)?))
}

fn next_report(seconds: u64) -> Duration {
    Duration::from_secs(seconds).clamp(SOONEST, LATEST)
}

/// Doubles with each failure; never before the cell said.
pub(super) fn back_off(failures: u32, error: &Error) -> Duration {
    let pause = FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST);
    match error {
        Error::Refused { retry_after: Some(after), .. } => pause.max((*after).min(LATEST)),
        _ => pause,
    }
}

/// A tenth more or less, so that agents that began together do not go on together.
pub(super) fn jitter(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without random bytes there is no jitter, which is no harm.
    let _ = getrandom::fill(&mut byte);
    pause.mul_f64(0.9 + 0.2 * f64::from(byte[0]) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_are_never_shorter_than_the_cell_asked_for() {
        let away = Error::Unreachable { cell: String::new(), why: String::new() };
        let pauses: Vec<_> = (0..8).map(|failures| back_off(failures, &away).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(back_off(u32::MAX, &away), LONGEST);
        let problem = Box::new(Problem::new("agent.too-often", ""));
        let busy = Error::Refused { problem, retry_after: Some(Duration::from_secs(90)) };
        assert_eq!(back_off(0, &busy).as_secs(), 90);
        let problem = Box::new(Problem::new("agent.too-often", ""));
        let ever = Error::Refused { problem, retry_after: Some(Duration::MAX) };
        assert_eq!(back_off(0, &ever), LATEST);
    }

    #[test]
    fn no_cell_makes_an_agent_report_without_end_or_never_again() {
        assert_eq!([0, 20, u64::MAX].map(next_report), [SOONEST, Duration::from_secs(20), LATEST]);
    }

    #[test]
    fn problems_are_reported_in_one_order_each_once_and_cut_where_a_character_ends() {
        let problem = |code: &str, text: &str| Problem::new(code, text).at("x");
        let long = "ä".repeat(LONGEST_TEXT);
        let one = bounded(vec![problem("b", &long), problem("a", ""), problem("b", &long)]);
        let other = bounded(vec![problem("a", ""), problem("b", &long)]);
        assert_eq!(one, other);
        assert_eq!((one.len(), one[1].message.len()), (2, LONGEST_TEXT));
        let many = (0..1000).map(|number| problem("a", &number.to_string())).collect();
        assert_eq!(bounded(many).len(), MOST_PROBLEMS);
    }

    #[test]
    fn jitter_is_a_tenth_at_most() {
        for _ in 0..100 {
            let pause = jitter(Duration::from_secs(10));
            assert!((9.0..=11.0).contains(&pause.as_secs_f64()), "{pause:?}");
        }
    }
}
