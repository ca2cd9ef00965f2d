//! What a machine's GPUs may be parted into (Multi-Instance GPU), as people declare it: `1g.10gb`, `3g.40gb@4`, `*`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Partitions that GPUs may be parted into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// Every profile of a GPU, at each of its placements: `*`.
    All,
    /// One profile, as NVML names it.
    Of {
        /// Its name.
        profile: String,
        /// The first memory slice of the one placement that is meant; each placement where absent.
        start: Option<u32>,
    },
}

/// A text that names no partitions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no partitions: write a profile such as 1g.10gb, a profile and its first memory slice such as 3g.40gb@4, or *"
)]
pub struct NoPartitions(pub String);

impl Partitions {
    /// Whether a partition of this profile that begins at this memory slice is meant.
    pub fn include(&self, name: &str, at: u32) -> bool {
        match self {
            Self::All => true,
            Self::Of { profile, start } => profile == name && start.is_none_or(|start| start == at),
        }
    }

    /// Whether a partition of this profile is meant, at some place.
    pub fn may_be(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of { profile, .. } => profile == name,
        }
    }
}

impl FromStr for Partitions {
    type Err = NoPartitions;

    fn from_str(text: &str) -> Result<Self, NoPartitions> {
        let (profile, start) = match text.rsplit_once('@') {
            Some((profile, start)) => {
                (profile, Some(start.parse().map_err(|_| NoPartitions(text.to_owned()))?))
            }
            None => (text, None),
        };
        match (profile, start) {
            ("*", None) => Ok(Self::All),
            _ if profile.is_empty() || profile.contains(['*', '@']) => Err(NoPartitions(text.to_owned())),
            _ => Ok(Self::Of { profile: profile.to_owned(), start }),
        }
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Of { profile, start: None } => f.write_str(profile),
            Self::Of { profile, start: Some(start) } => write!(f, "{profile}@{start}"),
        }
    }
}

impl Serialize for Partitions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Partitions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Partitions {
    fn schema_name() -> Cow<'static, str> {
        "Partitions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(\*|[^*@]+(@[0-9]+)?)$",
            "description": "A profile of Multi-Instance GPU such as `1g.10gb`, at each of its placements; `3g.40gb@4` at the one that begins at that memory slice; `*` for every profile.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for text in ["*", "1g.10gb", "1g.10gb+me", "3g.40gb@4"] {
            assert_eq!(text.parse::<Partitions>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_none_is_refused() {
        for text in
            ["", "@4", "*@4", "*g", "a@b@4", "3g.40gb@", "3g.40gb@x", "3g.40gb@-1", "3g.40gb@4294967296"]
        {
            assert_eq!(text.parse::<Partitions>(), Err(NoPartitions(text.to_owned())));
        }
    }

    #[test]
    fn a_place_means_that_one_alone() {
        let partitions: Partitions = "3g.40gb@4".parse().unwrap();
        assert!(partitions.include("3g.40gb", 4));
        assert!(!partitions.include("3g.40gb", 0));
        assert!(!partitions.include("4g.40gb", 4));
    }
}
