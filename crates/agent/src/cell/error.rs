//! Why the agent and its cell do not come together.

use domain::agent::{CODES, NotACell, NotAToken};
use domain::permit::PermitError;
use domain::{Diagnose, Problem};
use std::path::PathBuf;
use std::time::Duration;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the cell.
    #[error(transparent)]
    Address(#[from] NotACell),
    /// The token.
    #[error(transparent)]
    Token(NotAToken),
    /// No enrolment is kept here.
    #[error("the agent is not enrolled: there is no {}", .0.display())]
    NotEnrolled(PathBuf),
    /// The file that says how to enrol.
    #[error("{} does not say how to enrol: {why}", path.display())]
    Enrolment {
        /// Which file.
        path: PathBuf,
        /// Where it cannot be read; nothing of what is in it.
        why: String,
    },
    /// The state directory.
    #[error("cannot use {}: {source}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate of ours.
    #[error("a key or certificate cannot be used: {0}")]
    Key(String),
    /// The cell does not answer.
    #[error("the cell at {cell} does not answer: {why}")]
    Unreachable {
        /// Its address.
        cell: String,
        /// Why.
        why: String,
    },
    /// It is not the cell.
    #[error("what answers at {cell} is not the agent's cell: {why}")]
    Untrusted {
        /// Its address.
        cell: String,
        /// Why.
        why: String,
    },
    /// The answer cannot be read.
    #[error("the answer of the cell cannot be read: {0}")]
    Answer(String),
    /// The cell said no.
    #[error("the cell refuses: {}", problem.message)]
    Refused {
        /// Why.
        problem: Box<Problem>,
        /// When to call again.
        retry_after: Option<Duration>,
    },
    /// Its permits cannot be taken.
    #[error(transparent)]
    Permit(#[from] PermitError),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> &str {
        match self {
            Self::Address(_) => "agent.cell-address",
            Self::Token(_) => "agent.token-malformed",
            Self::NotEnrolled(_) => "agent.not-enrolled",
            Self::Enrolment { .. } => "agent.enrolment-malformed",
            Self::State { .. } => "agent.state",
            Self::Key(_) => "agent.key",
            Self::Unreachable { .. } => "agent.cell-unreachable",
            Self::Untrusted { .. } => "agent.cell-untrusted",
            Self::Answer(_) => "agent.answer-malformed",
            Self::Refused { problem, .. } => &problem.code,
            Self::Permit(error) => error.code(),
        }
    }
}

impl Diagnose for Error {
    fn problem(&self) -> Problem {
        match self {
            Self::Refused { problem, .. } => (**problem).clone(),
            Self::Permit(error) => error.problem(),
            _ => {
                let problem = Problem::new(self.code(), self.to_string());
                match CODES.iter().find(|(code, ..)| *code == self.code()) {
                    Some((_, _, hint)) => problem.hint(*hint),
                    None => problem,
                }
            }
        }
    }
}
