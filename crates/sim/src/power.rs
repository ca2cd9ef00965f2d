//! Power states of systems and how resets change them. Nothing runs in the background: a state is worked out when it is read.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::behaviour::PowerStyle;

/// `PowerState` of a system, without the transitional ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// Powered on.
    On,
    /// Powered off.
    Off,
}

impl PowerState {
    /// As Redfish spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::Off => "Off",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "On" => Some(Self::On),
            "Off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// Why a reset was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetRefused {
    /// There is no such `ResetType`.
    UnknownKind,
    /// Not in the present state.
    Conflict,
}

/// A `ResetType`, as far as it matters for the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetKind {
    On,
    Off,
    Restart,
    ForceRestart,
    Button,
}

/// What a reset does to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It stays as it is.
    None,
    /// It ends at once, however long the BMC goes on to show it as on.
    Ends,
    /// It ends, if it runs, and starts at this time.
    Starts(Instant),
    /// It ends and starts no more, though the BMC shows it as on (quirk 35).
    Hangs,
}

impl ResetKind {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "On" | "ForceOn" => Some(Self::On),
            "ForceOff" | "GracefulShutdown" => Some(Self::Off),
            "ForceRestart" => Some(Self::ForceRestart),
            "GracefulRestart" | "PowerCycle" | "Nmi" => Some(Self::Restart),
            "PushPowerButton" => Some(Self::Button),
            _ => None,
        }
    }
}

/// The states that resets have led to, by system; a system never reset is not here.
#[derive(Debug, Default)]
pub(crate) struct Power(HashMap<String, Change>);

#[derive(Debug)]
struct Change {
    before: PowerState,
    after: PowerState,
    at: Instant,
    went_off: Option<Instant>,
}

impl Power {
    /// The state to show for this system, where a reset had a part in it.
    pub(crate) fn shown(&self, system: &str) -> Option<PowerState> {
        if self.0.is_empty() {
            return None;
        }
        let change = self.0.get(system)?;
        Some(if Instant::now() >= change.at { change.after } else { change.before })
    }

    pub(crate) fn reset(
        &mut self,
        system: &str,
        now: PowerState,
        kind: ResetKind,
        style: PowerStyle,
    ) -> Result<Effect, ResetRefused> {
        let restarts = matches!(kind, ResetKind::Restart | ResetKind::ForceRestart);
        let after = match (kind, now) {
            (ResetKind::On, _)
            | (ResetKind::Button, PowerState::Off)
            | (ResetKind::Restart | ResetKind::ForceRestart, PowerState::On) => PowerState::On,
            (ResetKind::Off, _) | (ResetKind::Button, PowerState::On) => PowerState::Off,
            (ResetKind::Restart | ResetKind::ForceRestart, PowerState::Off) => {
                return Err(ResetRefused::Conflict);
            }
        };
        let changes = after != now;
        if !changes && !restarts && style.conflict_if_already {
            return Err(ResetRefused::Conflict);
        }
        let last = self.0.get(system);
        // Where the last change is still to be shown, it has happened to the host all the same.
        let really = last.map_or(now, |change| change.after);
        let turns_on = after == PowerState::On && really == PowerState::Off;
        let went_off = last.and_then(|change| change.went_off);
        if turns_on && went_off.is_some_and(|off| off.elapsed() < style.on_refused_after_off) {
            return Err(ResetRefused::Conflict);
        }
        let mut at = Instant::now() + if changes { style.delay } else { Duration::ZERO };
        if turns_on && !changes {
            // Still shown as on: it goes off when it was to, and comes back after the time that takes.
            at = last.map_or(at, |change| change.at) + style.delay;
        }
        let effect = match after {
            PowerState::Off if really == PowerState::On => Effect::Ends,
            PowerState::On if kind == ResetKind::ForceRestart && style.force_restart_hangs => Effect::Hangs,
            PowerState::On if turns_on || restarts => Effect::Starts(at),
            _ => Effect::None,
        };
        let went_off = if effect == Effect::Ends { Some(at) } else { went_off };
        self.0.insert(system.to_owned(), Change { before: now, after, at, went_off });
        Ok(effect)
    }

    /// The host switches itself off: nothing refuses that, and it takes no time.
    pub(crate) fn switch_off(&mut self, system: &str) {
        let at = Instant::now();
        let off = PowerState::Off;
        self.0.insert(system.to_owned(), Change { before: off, after: off, at, went_off: Some(at) });
    }
}
