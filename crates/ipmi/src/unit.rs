//! Units of sensors (IPMI 2.0 tables 43-1 and 43-15).

/// By number (table 43-15).
const NAMES: [&str; 93] = [
    "",
    "degrees C",
    "degrees F",
    "degrees K",
    "Volts",
    "Amps",
    "Watts",
    "Joules",
    "Coulombs",
    "VA",
    "Nits",
    "lumen",
    "lux",
    "Candela",
    "kPa",
    "PSI",
    "Newton",
    "CFM",
    "RPM",
    "Hz",
    "microseconds",
    "milliseconds",
    "seconds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "mil",
    "inches",
    "feet",
    "cubic inches",
    "cubic feet",
    "mm",
    "cm",
    "m",
    "cubic cm",
    "cubic m",
    "liters",
    "fluid ounces",
    "radians",
    "steradians",
    "revolutions",
    "cycles",
    "gravities",
    "ounces",
    "pounds",
    "foot-pounds",
    "ounce-inches",
    "gauss",
    "gilberts",
    "henry",
    "millihenry",
    "farad",
    "microfarad",
    "ohms",
    "siemens",
    "mole",
    "becquerel",
    "ppm",
    "reserved",
    "decibels",
    "dBA",
    "dBC",
    "gray",
    "sievert",
    "color temperature degrees K",
    "bits",
    "kilobits",
    "megabits",
    "gigabits",
    "bytes",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "words",
    "double words",
    "quad words",
    "lines",
    "hits",
    "misses",
    "retries",
    "resets",
    "overruns",
    "underruns",
    "collisions",
    "packets",
    "messages",
    "characters",
    "errors",
    "correctable errors",
    "uncorrectable errors",
    "fatal errors",
    "grams",
];
const RATES: [&str; 7] = ["", "microsecond", "millisecond", "second", "minute", "hour", "day"];

/// The unit of a sensor's values. Shown as people write it: "degrees C", "Watts", "% ", "packets per second".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unit {
    flags: u8,
    base: u8,
    modifier: u8,
}

impl Unit {
    /// From the three bytes of a record; the number format in the first does not count.
    pub fn new(flags: u8, base: u8, modifier: u8) -> Self {
        Self { flags: flags & 0x3f, base, modifier }
    }

    pub(crate) fn encode(self) -> [u8; 3] {
        [self.flags, self.base, self.modifier]
    }

    /// Whether values are percentages.
    pub fn is_percentage(self) -> bool {
        self.flags & 0x01 != 0
    }
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |number: u8| NAMES.get(usize::from(number)).copied().unwrap_or("unknown");
        let percent = if self.is_percentage() { "%" } else { "" };
        let space = if self.is_percentage() && self.base != 0 { " " } else { "" };
        write!(f, "{percent}{space}{}", name(self.base))?;
        match self.flags >> 1 & 0x03 {
            1 => write!(f, "/{}", name(self.modifier))?,
            2 => write!(f, " × {}", name(self.modifier))?,
            _ => {}
        }
        match RATES.get(usize::from(self.flags >> 3 & 0x07)) {
            Some(rate) if !rate.is_empty() => write!(f, " per {rate}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_shown_as_people_write_them() {
        let shown = |flags, base, modifier| Unit::new(flags, base, modifier).to_string();
        assert_eq!(shown(0, 1, 0), "degrees C");
        assert_eq!(shown(1, 0, 0), "%");
        assert_eq!(shown(3 << 3, 85, 0), "packets per second");
        assert_eq!(shown(1 << 1, 46, 22), "foot-pounds/seconds");
        assert_eq!(shown(2 << 1, 6, 24), "Watts × hours");
        assert_eq!(shown(0, 92, 0), "grams");
        assert_eq!(shown(0, 200, 0), "unknown");
    }
}
