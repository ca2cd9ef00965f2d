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
    Button,
}

impl ResetKind {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "On" | "ForceOn" => Some(Self::On),
            "ForceOff" | "GracefulShutdown" => Some(Self::Off),
            "ForceRestart" | "GracefulRestart" | "PowerCycle" | "Nmi" => Some(Self::Restart),
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
    ) -> Result<(), ResetRefused> {
        let after = match (kind, now) {
            (ResetKind::On, _)
            | (ResetKind::Button, PowerState::Off)
            | (ResetKind::Restart, PowerState::On) => PowerState::On,
            (ResetKind::Off, _) | (ResetKind::Button, PowerState::On) => PowerState::Off,
            (ResetKind::Restart, PowerState::Off) => return Err(ResetRefused::Conflict),
        };
        let changes = after != now;
        if !changes && kind != ResetKind::Restart && style.conflict_if_already {
            return Err(ResetRefused::Conflict);
        }
        let went_off = self.0.get(system).and_then(|change| change.went_off);
        let too_early = |off: Instant| off.elapsed() < style.on_refused_after_off;
        if changes && after == PowerState::On && went_off.is_some_and(too_early) {
            return Err(ResetRefused::Conflict);
        }
        let at = Instant::now() + if changes { style.delay } else { Duration::ZERO };
        let went_off = if after == PowerState::Off && changes { Some(at) } else { went_off };
        self.0.insert(system.to_owned(), Change { before: now, after, at, went_off });
        Ok(())
    }
}
