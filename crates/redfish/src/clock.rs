//! The BMC's clock (quirk 41): a wrong one makes certificates and attestation fail. Measured against ours, and set.

use std::time::{Duration, Instant};

use domain::{Diagnose, Problem};
use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::client::Client;
use crate::error;
use crate::host::Host;
use crate::reader::{ReadError, Reader as _};
use crate::write::WriteError;

/// What the BMC's clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The BMC's time.
    pub bmc: Timestamp,
    /// How far it is ahead of ours; negative if behind. Half of the round trip is taken off.
    pub skew: SignedDuration,
    /// The skew is right by plus or minus so much: half of the round trip, and half a second where the BMC shows whole seconds.
    pub uncertainty: Duration,
    /// The offset from UTC in which the BMC writes its time.
    pub offset: Offset,
    /// Whether it follows NTP servers, where it says so.
    pub ntp: Option<bool>,
}

impl Reading {
    /// Whether the clock is surely wrong by more than `tolerance`.
    pub fn is_off(&self, tolerance: Duration) -> bool {
        self.skew.unsigned_abs() > tolerance.saturating_add(self.uncertainty)
    }
}

/// What was done about a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It was right.
    Right(Reading),
    /// It was set, and is right now.
    Set {
        /// Before.
        before: Reading,
        /// After.
        after: Reading,
    },
}

/// How patiently a clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the new time to show.
    pub effect: Duration,
    /// Between two looks.
    pub every: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { effect: Duration::from_secs(30), every: Duration::from_secs(2) }
    }
}

/// Why a clock is not right.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// There is no manager, no `DateTime`, or one that cannot be read.
    #[error("the BMC does not tell the time")]
    Unknown,
    /// It follows NTP servers and is wrong all the same: setting it would not last.
    #[error("the BMC's clock is off by {skew:#} although it follows NTP servers")]
    NtpManaged {
        /// How far it is ahead.
        skew: SignedDuration,
    },
    /// `DateTime` cannot be written.
    #[error("the BMC's clock cannot be set; it is off by {skew:#}")]
    ReadOnly {
        /// How far it is ahead.
        skew: SignedDuration,
    },
    /// Taken, but the clock is as wrong as before.
    #[error("the BMC took the time, but its clock is still off by {skew:#}")]
    NoEffect {
        /// How far it is ahead.
        skew: SignedDuration,
    },
    /// Refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<ReadError> for ClockError {
    fn from(error: ReadError) -> Self {
        Self::Write(error.into())
    }
}

impl ClockError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "bmc.clock-unknown",
            Self::NtpManaged { .. } => "bmc.clock-ntp",
            Self::ReadOnly { .. } => "bmc.clock-read-only",
            Self::NoEffect { .. } => "bmc.clock-no-effect",
            Self::Write(error) => error.code(),
        }
    }
}

impl Diagnose for ClockError {
    fn problem(&self) -> Problem {
        match self {
            Self::Write(error) => error.problem(),
            _ => error::problem(self.code(), self.to_string()),
        }
    }
}

/// Reads the BMC's clock.
pub async fn read(client: &Client, host: &Host) -> Result<Reading, ClockError> {
    let manager = host.manager.as_deref().ok_or(ClockError::Unknown)?;
    let (before, started) = (Timestamp::now(), Instant::now());
    let body = client.get(manager).await?.body;
    let trip = SignedDuration::try_from(started.elapsed()).unwrap_or(SignedDuration::MAX);
    let text = body.get("DateTime").and_then(Value::as_str).ok_or(ClockError::Unknown)?;
    let zone = body.get("DateTimeLocalOffset").and_then(Value::as_str);
    let time = Shown::parse(text, zone).ok_or(ClockError::Unknown)?;
    let ours = before.saturating_add(trip / 2).unwrap_or(before);
    let within = if time.whole_seconds { SignedDuration::from_millis(500) } else { SignedDuration::ZERO };
    Ok(Reading {
        bmc: time.at,
        skew: time.at.duration_since(ours) + within,
        uncertainty: (trip / 2 + within).unsigned_abs(),
        offset: time.offset,
        ntp: follows_ntp(client, &body).await?,
    })
}

/// Sets the clock to ours if it is off by more than `tolerance`, and verifies it.
pub async fn set(
    client: &Client,
    host: &Host,
    tolerance: Duration,
    patience: Patience,
) -> Result<Report, ClockError> {
    let before = read(client, host).await?;
    let skew = before.skew;
    if !before.is_off(tolerance) {
        return Ok(Report::Right(before));
    }
    if before.ntp == Some(true) {
        return Err(ClockError::NtpManaged { skew });
    }
    let manager = host.manager.as_deref().ok_or(ClockError::Unknown)?;
    let body = json!({"DateTime": written(Timestamp::now(), before.offset)});
    match client.patch(manager, &body).await {
        Ok(_) => {}
        Err(WriteError::Property { .. } | WriteError::Unsupported { .. }) => {
            return Err(ClockError::ReadOnly { skew });
        }
        Err(error) => return Err(error.into()),
    }
    let started = Instant::now();
    loop {
        match read(client, host).await {
            Ok(after) if !after.is_off(tolerance) => return Ok(Report::Set { before, after }),
            Ok(after) if started.elapsed() >= patience.effect => {
                return Err(ClockError::NoEffect { skew: after.skew });
            }
            Err(ClockError::Write(error)) if error.is_passing() && started.elapsed() < patience.effect => {}
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(patience.every).await;
    }
}

async fn follows_ntp(client: &Client, manager: &Value) -> Result<Option<bool>, ReadError> {
    let Some(link) = manager.get("NetworkProtocol").and_then(|link| link.get("@odata.id")?.as_str()) else {
        return Ok(None);
    };
    match client.get(link).await {
        Ok(protocols) => Ok(protocols.body.get("NTP").and_then(|ntp| ntp.get("ProtocolEnabled")?.as_bool())),
        Err(error @ ReadError::Bmc(_)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A time as a BMC wrote it.
struct Shown {
    at: Timestamp,
    offset: Offset,
    whole_seconds: bool,
}

impl Shown {
    /// Reads `DateTime`. Its offset may be missing, or without colon (quirk 25); then `DateTimeLocalOffset` tells, else it is UTC.
    fn parse(text: &str, zone: Option<&str>) -> Option<Self> {
        let text = text.trim();
        let pieces = Pieces::parse(text).ok()?;
        let time = pieces.date().to_datetime(pieces.time()?);
        let zone = || {
            let spelled = format!("1970-01-01T00:00:00{}", zone?.trim());
            Pieces::parse(&spelled).ok()?.to_numeric_offset()
        };
        let offset = pieces.to_numeric_offset().or_else(zone).unwrap_or(Offset::UTC);
        Some(Self { at: offset.to_timestamp(time).ok()?, offset, whole_seconds: !text.contains('.') })
    }
}

/// A time as BMCs take it: whole seconds, to the nearest, in the offset that the BMC itself uses.
fn written(time: Timestamp, offset: Offset) -> String {
    let nearest = time.saturating_add(SignedDuration::from_millis(500)).unwrap_or(time);
    let local = nearest.to_zoned(TimeZone::fixed(offset));
    local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: Option<&str>) -> Option<String> {
        Shown::parse(text, zone).map(|shown| shown.at.to_string())
    }

    #[test]
    fn quirk_41_the_time_is_read_in_every_form_that_bmcs_write() {
        let noon = Some("2026-11-21T12:00:00Z".to_owned());
        assert_eq!(at("2026-11-21T12:00:00Z", None), noon);
        assert_eq!(at("2026-11-21T06:00:00-06:00", None), noon);
        assert_eq!(at("2026-11-21T06:00:00-0600", None), noon);
        assert_eq!(at(" 2026-11-21T18:00:00 ", Some("+06:00")), noon);
        assert_eq!(at("2026-11-21T12:00:00", None), noon);
        for wrong in ["", "0000-00-00T00:00:00Z", "00:00:00Z", "yesterday", "2026-11-21"] {
            assert_eq!(at(wrong, None), None, "{wrong}");
        }
    }

    #[test]
    fn quirk_41_the_time_is_written_to_the_nearest_second_in_the_offset_of_the_bmc() {
        let time: Timestamp = "2026-11-21T11:59:59.6Z".parse().unwrap();
        assert_eq!(written(time, Offset::constant(-6)), "2026-11-21T06:00:00-06:00");
        assert_eq!(written(time, Offset::UTC), "2026-11-21T12:00:00+00:00");
    }

    #[test]
    fn a_clock_is_wrong_only_beyond_tolerance_and_uncertainty() {
        let reading = |skew| Reading {
            bmc: Timestamp::UNIX_EPOCH,
            skew: SignedDuration::from_secs(skew),
            uncertainty: Duration::from_secs(1),
            offset: Offset::UTC,
            ntp: None,
        };
        let tolerance = Duration::from_secs(5);
        assert!(!reading(6).is_off(tolerance) && !reading(-6).is_off(tolerance));
        assert!(reading(7).is_off(tolerance) && reading(-7).is_off(tolerance));
    }
}
