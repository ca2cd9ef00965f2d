//! Why a change was not made.

use domain::{Diagnose, Problem};

use crate::error::{self, Error};
use crate::reader::ReadError;

/// What is wrong with one property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be written here.
    NotWritable,
    /// There is no such property or parameter here.
    Unknown,
    /// The value is not accepted: list, form, type, range, length.
    Value,
    /// It must be there and is not.
    Missing,
}

/// A property that the BMC did not take. Values are not told: they may be secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyProblem {
    /// Its name, if it is one of those sent.
    pub property: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Single properties were not taken. Others of the same change may have been.
    #[error("{uri} does not take {}", list(.problems))]
    Property {
        /// The path.
        uri: String,
        /// Which, and why; never empty.
        problems: Vec<PropertyProblem>,
    },
    /// 409, or another status with a message that says "not in this state".
    #[error("{uri} refuses this in its present state")]
    Conflict {
        /// The path.
        uri: String,
        /// The first MessageId of the answer.
        message_id: Option<String>,
    },
    /// 412 or 428 to every form of precondition.
    #[error("{uri} takes the change neither with its ETag nor without")]
    Precondition {
        /// The path.
        uri: String,
    },
    /// 405 or 501.
    #[error("{uri} cannot be changed this way")]
    Unsupported {
        /// The path.
        uri: String,
    },
    /// Any other refusal.
    #[error("{uri} answers with status {status}")]
    Refused {
        /// The path.
        uri: String,
        /// The status.
        status: u16,
        /// The first MessageId of the answer.
        message_id: Option<String>,
    },
    /// There is no answer, but the BMC may have acted.
    #[error("no answer from {uri}: {reason}; the change may have been made")]
    Unsure {
        /// The path.
        uri: String,
        /// What the network says.
        reason: String,
    },
    /// Nothing was changed, for reasons that reading has too.
    #[error(transparent)]
    Read(#[from] ReadError),
}

fn list(problems: &[PropertyProblem]) -> String {
    let name =
        |problem: &PropertyProblem| problem.property.clone().unwrap_or_else(|| "a property".to_owned());
    problems.iter().map(name).collect::<Vec<_>>().join(", ")
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Read(error.into())
    }
}

impl WriteError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Property { problems, .. } => {
                let unwritable = |p: &PropertyProblem| matches!(p.fault, Fault::NotWritable | Fault::Unknown);
                if problems.iter().any(unwritable) {
                    "redfish.write.not-writable"
                } else {
                    "redfish.write.value"
                }
            }
            Self::Conflict { .. } => "redfish.write.conflict",
            Self::Precondition { .. } => "redfish.write.precondition",
            Self::Unsupported { .. } => "redfish.write.unsupported",
            Self::Refused { .. } => "redfish.write.refused",
            Self::Unsure { .. } => "redfish.write.unsure",
            Self::Read(error) => error.code(),
        }
    }

    /// Whether the same change may work a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Unsure { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Read(error) => error.is_passing(),
            Self::Property { .. } | Self::Precondition { .. } | Self::Unsupported { .. } => false,
        }
    }

    fn uri(&self) -> Option<&str> {
        match self {
            Self::Property { uri, .. }
            | Self::Conflict { uri, .. }
            | Self::Precondition { uri }
            | Self::Unsupported { uri }
            | Self::Refused { uri, .. }
            | Self::Unsure { uri, .. } => Some(uri),
            Self::Read(error) => error.uri(),
        }
    }
}

impl Diagnose for WriteError {
    fn problem(&self) -> Problem {
        if let Self::Read(error) = self {
            return error.problem();
        }
        let mut problem = error::problem(self.code(), self.to_string());
        problem.at = self.uri().map(ToOwned::to_owned);
        if let Self::Conflict { message_id, .. } | Self::Refused { message_id, .. } = self {
            problem.found.clone_from(message_id);
        }
        problem
    }
}
