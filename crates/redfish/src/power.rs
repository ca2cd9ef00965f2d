//! Power of the host: read, and changed so that it is so. A success code proves nothing (quirk 38): a command has worked when
//! the power state says so.

use std::time::{Duration, Instant};

use domain::{Diagnose, Problem};
use serde_json::Value;

use crate::action::Reset;
use crate::client::Client;
use crate::error;
use crate::host::Host;
use crate::reader::{ReadError, Reader as _, Resource};
use crate::write::WriteError;

/// `PowerState` of a system (`Resource.PowerState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// Powered on.
    On,
    /// Powered off; parts may still have power.
    Off,
    /// Between off and on.
    PoweringOn,
    /// Between on and off.
    PoweringOff,
    /// Paused.
    Paused,
}

impl PowerState {
    fn of(system: &Value) -> Option<Self> {
        const STATES: &[(&str, PowerState)] = &[
            ("On", PowerState::On),
            ("Off", PowerState::Off),
            ("PoweringOn", PowerState::PoweringOn),
            ("PoweringOff", PowerState::PoweringOff),
            ("Paused", PowerState::Paused),
        ];
        let text = system.get("PowerState")?.as_str()?.trim();
        STATES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, state)| *state)
    }

    /// As Redfish spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::Off => "Off",
            Self::PoweringOn => "PoweringOn",
            Self::PoweringOff => "PoweringOff",
            Self::Paused => "Paused",
        }
    }

    fn is_steady(self) -> bool {
        matches!(self, Self::On | Self::Off)
    }
}

/// What the power shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// On.
    On,
    /// Off: the operating system is asked first, and cut off when it takes too long.
    Off,
    /// Off at once.
    ForcedOff,
    /// Off, asked first, then on.
    Restarted,
    /// Off at once, then on.
    ForceRestarted,
}

/// How long to wait for what. [`Patience::scaled`] shortens all for simulated machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between two looks at the power state.
    pub poll: Duration,
    /// For the operating system to shut down when asked.
    pub graceful: Duration,
    /// For a command to take effect.
    pub effect: Duration,
    /// For a BMC that refuses a command in its present state (quirks 14 and 16).
    pub refusal: Duration,
    /// Between two tries of a refused command.
    pub retry: Duration,
    /// Between off and on.
    pub rest: Duration,
}

impl Default for Patience {
    /// Ironic waits 6 × 10 s for an iDRAC that refuses `On`; some servers take minutes to power off.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            poll: seconds(2),
            graceful: Duration::from_mins(5),
            effect: Duration::from_mins(3),
            refusal: seconds(90),
            retry: seconds(10),
            rest: seconds(5),
        }
    }
}

impl Patience {
    /// All times, multiplied.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |time: Duration| {
            Duration::try_from_secs_f64(time.as_secs_f64() * factor.max(0.0)).unwrap_or(Duration::MAX)
        };
        Self {
            poll: scale(self.poll),
            graceful: scale(self.graceful),
            effect: scale(self.effect),
            refusal: scale(self.refusal),
            retry: scale(self.retry),
            rest: scale(self.rest),
        }
    }
}

/// What was done, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerReport {
    /// The state before.
    pub before: PowerState,
    /// The state after; always the one wanted.
    pub after: PowerState,
    /// The ResetTypes sent, in order; empty if the state was right already.
    pub commands: Vec<&'static str>,
    /// How long it took.
    pub took: Duration,
}

/// Why the power is not what it shall be.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// Taken by the BMC, but nothing happened in time (quirk 38).
    #[error("the BMC took {command}, but after {after:?} the machine is {}", .found.as_str())]
    NoEffect {
        /// The ResetType.
        command: &'static str,
        /// The state found.
        found: PowerState,
        /// The state wanted.
        expected: PowerState,
        /// How long we waited.
        after: Duration,
    },
    /// Every suitable command was refused.
    #[error("the BMC refuses to bring the machine to {}", .expected.as_str())]
    Refused {
        /// The state wanted.
        expected: PowerState,
        /// The last refusal.
        #[source]
        source: WriteError,
    },
    /// The system tells no power state, or one that is unknown.
    #[error("the BMC does not tell the machine's power state")]
    Unknown,
    /// There is no reset action, or none of the kinds needed.
    #[error("the BMC offers no way to bring the machine to {}", .expected.as_str())]
    NoAction {
        /// The state wanted.
        expected: PowerState,
    },
    /// The BMC cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl PowerError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoEffect { .. } => "bmc.power-no-effect",
            Self::Refused { .. } => "bmc.power-refused",
            Self::Unknown => "bmc.power-unknown",
            Self::NoAction { .. } => "bmc.action-missing",
            Self::Read(error) => error.code(),
        }
    }
}

impl Diagnose for PowerError {
    fn problem(&self) -> Problem {
        let problem = |error: &Self| error::problem(error.code(), error.to_string());
        match self {
            Self::Read(error) => error.problem(),
            Self::NoEffect { found, expected, .. } => {
                problem(self).difference(found.as_str(), expected.as_str())
            }
            Self::Refused { source, .. } => {
                let mut problem = problem(self);
                problem.found = Some(source.problem().found.unwrap_or_else(|| source.to_string()));
                problem
            }
            _ => problem(self),
        }
    }
}

/// Reads the power state.
pub async fn state(client: &Client, host: &Host) -> Result<PowerState, PowerError> {
    PowerState::of(&client.get(&host.system).await?.body).ok_or(PowerError::Unknown)
}

/// Brings the power to what it shall be and verifies it. Nothing is sent if it is so already. May be dropped and called again at
/// any time. At the worst it takes the sum of all times of `patience`.
pub async fn set(
    client: &Client,
    host: &Host,
    target: Target,
    patience: Patience,
) -> Result<PowerReport, PowerError> {
    let mut run = Run { client, host, patience, commands: Vec::new() };
    let started = Instant::now();
    let before = run.steady_state().await?;
    match target {
        Target::On => run.reach_on(before).await?,
        Target::Off => run.reach_off(before, true).await?,
        Target::ForcedOff => run.reach_off(before, false).await?,
        Target::Restarted => run.restart(before, true).await?,
        Target::ForceRestarted => run.restart(before, false).await?,
    }
    let after = match target {
        Target::Off | Target::ForcedOff => PowerState::Off,
        _ => PowerState::On,
    };
    Ok(PowerReport { before, after, commands: run.commands, took: started.elapsed() })
}

const TO_ON: &[&str] = &["On", "ForceOn", "PushPowerButton"];
const TO_OFF_ASKING: &[&str] = &["GracefulShutdown", "PushPowerButton"];
const TO_OFF: &[&str] = &["ForceOff"];

/// One change of power under way.
struct Run<'a> {
    client: &'a Client,
    host: &'a Host,
    patience: Patience,
    commands: Vec<&'static str>,
}

impl Run<'_> {
    async fn reach_on(&mut self, now: PowerState) -> Result<(), PowerError> {
        if now == PowerState::On {
            Ok(())
        } else {
            self.command(TO_ON, PowerState::On, self.patience.effect).await
        }
    }

    async fn reach_off(&mut self, now: PowerState, ask: bool) -> Result<(), PowerError> {
        if now == PowerState::Off {
            return Ok(());
        }
        if ask {
            match self.command(TO_OFF_ASKING, PowerState::Off, self.patience.graceful).await {
                // The operating system does not hear, or nobody can ask it.
                Err(
                    PowerError::NoEffect { .. } | PowerError::Refused { .. } | PowerError::NoAction { .. },
                ) => {}
                outcome => return outcome,
            }
        }
        self.command(TO_OFF, PowerState::Off, self.patience.effect).await
    }

    /// Off, then on: both can be seen. A restart in one command can only where the BMC tells when the last one was, and hangs
    /// some machines (quirk 35).
    async fn restart(&mut self, now: PowerState, ask: bool) -> Result<(), PowerError> {
        if now == PowerState::Off {
            return self.reach_on(now).await;
        }
        let kinds: &[&'static str] = if ask { &["GracefulRestart"] } else { &["ForceRestart"] };
        let system = self.client.get(&self.host.system).await?;
        if !self.host.profile.restart_hangs(self.host.model.as_deref())
            && let Some(before) = last_reset(&system.body)
            && self.restart_at_once(&system, kinds, &before).await?
        {
            return Ok(());
        }
        self.reach_off(now, ask).await?;
        tokio::time::sleep(self.patience.rest).await;
        self.reach_on(PowerState::Off).await
    }

    /// Restarts in one command; false if that did not work and off and on is the way.
    async fn restart_at_once(
        &mut self,
        system: &Resource,
        kinds: &[&'static str],
        before: &str,
    ) -> Result<bool, PowerError> {
        let Some(reset) = Reset::of(self.client, &system.body, "#ComputerSystem.Reset").await? else {
            return Ok(false);
        };
        let Some(kind) = reset.among(kinds).first().copied() else { return Ok(false) };
        self.commands.push(kind);
        match reset.send(self.client, kind).await {
            Ok(_) | Err(WriteError::Unsure { .. }) => {}
            Err(error) => return fatal(error).map(|_| false),
        }
        let end = after(self.patience.effect);
        while Instant::now() < end {
            tokio::time::sleep(self.patience.poll).await;
            if let Some(system) = self.look().await?
                && last_reset(&system.body).is_some_and(|last| last != before)
                && PowerState::of(&system.body) == Some(PowerState::On)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends the first command that is taken, and waits for its effect.
    async fn command(
        &mut self,
        kinds: &[&'static str],
        expected: PowerState,
        patience: Duration,
    ) -> Result<(), PowerError> {
        let system = self.client.get(&self.host.system).await?;
        let reset = Reset::of(self.client, &system.body, "#ComputerSystem.Reset").await?;
        let mut refusal = None;
        for kind in
            reset.iter().flat_map(|reset| reset.among(kinds).into_iter().map(move |kind| (reset, kind)))
        {
            match self.try_command(kind.0, kind.1, expected, patience).await? {
                None => return Ok(()),
                Some(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(source) => Err(PowerError::Refused { expected, source }),
            None => Err(PowerError::NoAction { expected }),
        }
    }

    /// Sends one command, again while it is refused for the moment. The refusal if that stays; `None` once it has worked.
    async fn try_command(
        &mut self,
        reset: &Reset,
        kind: &'static str,
        expected: PowerState,
        patience: Duration,
    ) -> Result<Option<WriteError>, PowerError> {
        let refused_until = after(self.patience.refusal);
        loop {
            self.commands.push(kind);
            let refusal = match reset.send(self.client, kind).await {
                Ok(_) => return self.await_effect(kind, expected, patience).await.map(|()| None),
                // It may have been heard. Looking is safe, sending again would press the button twice.
                Err(WriteError::Unsure { .. }) => {
                    return self.await_effect(kind, expected, patience).await.map(|()| None);
                }
                Err(error) => fatal(error)?,
            };
            // "Not in this state" may mean "already in that state" (quirk 15).
            match self.look().await?.and_then(|system| PowerState::of(&system.body)) {
                Some(state) if state == expected => return Ok(None),
                Some(state) if !state.is_steady() => {
                    return self.await_effect(kind, expected, patience).await.map(|()| None);
                }
                _ => {}
            }
            // For a while after power-off "On" is refused (quirk 14), and anything while the BMC is not ready (quirk 16).
            if !refusal.is_passing() || Instant::now() >= refused_until {
                return Ok(Some(refusal));
            }
            tokio::time::sleep(self.patience.retry).await;
        }
    }

    /// Waits until the state is the one expected (quirk 38).
    async fn await_effect(
        &self,
        command: &'static str,
        expected: PowerState,
        patience: Duration,
    ) -> Result<(), PowerError> {
        let end = after(patience);
        let mut found = None;
        loop {
            if let Some(system) = self.look().await? {
                found = PowerState::of(&system.body).or(found);
                if found == Some(expected) {
                    return Ok(());
                }
            }
            if Instant::now() >= end {
                let found = found.ok_or(PowerError::Unknown)?;
                return Err(PowerError::NoEffect { command, found, expected, after: patience });
            }
            tokio::time::sleep(self.patience.poll).await;
        }
    }

    /// The state, once it is On or Off: what is between is on its way.
    async fn steady_state(&self) -> Result<PowerState, PowerError> {
        let end = after(self.patience.effect);
        loop {
            let now = state(self.client, self.host).await?;
            if now.is_steady() || Instant::now() >= end {
                return Ok(now);
            }
            tokio::time::sleep(self.patience.poll).await;
        }
    }

    /// Reads the system; `None` for what passes: BMCs stumble while the power changes (quirk 36).
    async fn look(&self) -> Result<Option<Resource>, PowerError> {
        match self.client.get(&self.host.system).await {
            Ok(system) => Ok(Some(system)),
            Err(error) if error.is_passing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The time after so long, which may be longer than clocks go.
fn after(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait.min(Duration::from_hours(24))).unwrap_or(now)
}

/// When the system was last reset, where the BMC tells and knows it.
fn last_reset(system: &Value) -> Option<String> {
    let text = system.get("LastResetTime")?.as_str()?;
    (!text.is_empty() && !text.starts_with("0000") && !text.starts_with("1970")).then(|| text.to_owned())
}

/// A refusal, unless it concerns the BMC as a whole.
fn fatal(error: WriteError) -> Result<WriteError, PowerError> {
    match error {
        WriteError::Read(error @ ReadError::Bmc(_)) if !error.is_passing() => Err(error.into()),
        refusal => Ok(refusal),
    }
}
