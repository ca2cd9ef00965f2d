//! Spans of time as people write them: `90s`, `30m`, `12h`, `30d`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(Duration);

impl Span {
    pub(crate) fn duration(self) -> Duration {
        self.0
    }
}

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no span of time; write 90s, 30m, 12h or 30d");
        let mut seconds: u64 = 0;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..at].parse().map_err(|_| wrong())?;
            let unit = rest[at..].chars().next().ok_or_else(wrong)?;
            let (_, size) = UNITS.iter().find(|(known, _)| *known == unit).ok_or_else(wrong)?;
            seconds =
                number.checked_mul(*size).and_then(|more| seconds.checked_add(more)).ok_or_else(wrong)?;
            rest = &rest[at + 1..];
        }
        if seconds == 0 { Err(wrong()) } else { Ok(Self(Duration::from_secs(seconds))) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_secs();
        for (unit, size) in UNITS {
            if left >= size {
                write!(f, "{}{unit}", left / size)?;
                left %= size;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_back_from_its_text() {
        for text in ["90s", "30m", "12h", "30d", "1h30m"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
        assert_eq!("1h30m".parse::<Span>().unwrap().duration(), Duration::from_mins(90));
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for wrong in ["", "0s", "5", "h", "5x", "-1h", "1.5h", "99999999999999999999d", "5ä"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
