//! What can go wrong, each with a stable code and a hint.

use crate::agents::AgentError;
use domain::{Diagnose, Digest, Kind, MachineState, Name, Problem};
use std::path::PathBuf;

/// Why a call to the store failed. What a call refuses, it leaves as it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL of the database is of no kind that this store knows.
    #[error("{0}")]
    BadUrl(String),
    /// No connection to the database, or none became free in time.
    #[error("the database does not answer")]
    Unreachable(#[source] sqlx::Error),
    /// Another process has this `SQLite` file open.
    #[error("{} is in use by another cell", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The database was last used by a newer Bailiwick.
    #[error("the database has schema version {found}; this program knows versions up to {expected}")]
    NewerVersion {
        /// Version of the database.
        found: i64,
        /// Newest version that this program knows.
        expected: i64,
    },
    /// No space is left.
    #[error("the disk of the database is full")]
    Full(#[source] sqlx::Error),
    /// The database, or the place it is in, cannot be written.
    #[error("the database cannot be written")]
    ReadOnly(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file is no database, or a row of it does not read back.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// Anything else that the database refuses.
    #[error("the database refused a request")]
    Failed(#[source] sqlx::Error),
    /// A file or directory could not be made or read.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Others than its owner can read the key file.
    #[error("others can read the key file {}", path.display())]
    KeyPermissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The database holds sealed values, and the key file is not there.
    #[error("the key file {} is missing, and the database holds what it sealed", path.display())]
    KeyMissing {
        /// The key file.
        path: PathBuf,
    },
    /// The key file is no key file.
    #[error("{} is not a key file", path.display())]
    KeyMalformed {
        /// The key file.
        path: PathBuf,
    },
    /// The key is not the one that sealed this database.
    #[error("the key in {} is not the one that sealed this database", path.display())]
    KeyWrong {
        /// The key file.
        path: PathBuf,
    },
    /// A sealed value does not open: it was changed, or moved from another row.
    #[error("the sealed {purpose} of {subject} was changed outside Bailiwick")]
    Unsealable {
        /// Whose secret.
        subject: String,
        /// What it is for.
        purpose: &'static str,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// A value that is set once has another value already.
    #[error("{key} of this database is {found:?} and stays so")]
    MetaConflict {
        /// Which value.
        key: String,
        /// What it is.
        found: String,
        /// What was to be set.
        wanted: String,
    },
    /// No such declared object.
    #[error("there is no {kind}/{name}")]
    NotFound {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: Name,
    },
    /// No plan has this digest.
    #[error("there is no plan {0}")]
    PlanUnknown(Digest),
    /// What is declared has changed since the plan was made.
    #[error("what is declared has changed since plan {0} was made")]
    PlanStale(Digest),
    /// The digest of a plan is not that of its content.
    #[error("plan {0} was changed on the way: its digest is not that of its content")]
    PlanNotGenuine(Digest),
    /// The declaration of a machine changed while a step of it was under way.
    #[error("the declaration of {machine} changed while this step was under way")]
    Superseded {
        /// Which machine.
        machine: Name,
    },
    /// The step does not follow from the machine's state.
    #[error("{machine} is {found}, not {expected}")]
    WrongState {
        /// Which machine.
        machine: Name,
        /// Its state.
        found: MachineState,
        /// The state that the step needs.
        expected: MachineState,
    },
    /// The provisioning service holds something of the machine.
    #[error("{machine} is {state}: the provisioning service holds it")]
    InUse {
        /// Which machine.
        machine: Name,
        /// Its state.
        state: MachineState,
    },
    /// The BMC has a password that nobody but the cell knows.
    #[error("the BMC of {0} has a password that only this cell knows")]
    OwnPassword(Name),
    /// What would be recorded does not follow from what there is.
    #[error("{machine} does not become {to} without the record of its erasure")]
    NoErasure {
        /// Which machine.
        machine: Name,
        /// The state that was asked for.
        to: MachineState,
    },
    /// The BMC shows another key than before.
    #[error("the BMC of {machine} shows another key than the one pinned")]
    PinChanged {
        /// Which machine.
        machine: Name,
        /// The key it shows.
        found: Digest,
        /// The key that is pinned.
        expected: Digest,
    },
    /// Another machine has this serial number.
    #[error("{machine} shows serial {serial}, which {holder} has already")]
    DuplicateSerial {
        /// Which machine.
        machine: Name,
        /// The serial.
        serial: String,
        /// The machine that has it.
        holder: Name,
    },
    /// Another machine has this UUID.
    #[error("{machine} shows UUID {uuid}, which {holder} has already")]
    DuplicateUuid {
        /// Which machine.
        machine: Name,
        /// The UUID.
        uuid: String,
        /// The machine that has it.
        holder: Name,
    },
    /// An agent is not let in.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A live token has this name.
    #[error("there is a token {0:?} already")]
    TokenExists(String),
    /// No token has this name.
    #[error("there is no token {0:?}")]
    TokenUnknown(String),
}

/// Every code of this crate with its meaning and a hint, sorted by code; `docs/reference/codes.md` is made from it.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "agent.ended",
        "The agent's certificate is of an enrolment that has ended: it was enrolled anew, or its machine was set aside, erased or installed anew.",
        "enrol it with a token of `bailiwick agent-token MACHINE`; if nobody did any of these, find out who has a copy of its key",
    ),
    (
        "agent.not-allowed",
        "The state of the machine lets no agent in.",
        "`bailiwick why MACHINE` tells what it waits for; only a machine whose identity was checked, and that is not set aside or erased, has an agent",
    ),
    (
        "agent.other-machine",
        "The agent runs on another machine than the one that its token or certificate is for: the system UUIDs differ.",
        "make a token for the machine that it runs on; never copy the state of one agent to another machine",
    ),
    (
        "agent.token-late",
        "The one-time token of an agent has ended.",
        "make another with `bailiwick agent-token MACHINE`",
    ),
    (
        "agent.token-unknown",
        "Nobody made this one-time token here, or a newer one took its place.",
        "make another with `bailiwick agent-token MACHINE`; look at whether `--cell` names the cell that made it",
    ),
    (
        "agent.token-used",
        "The one-time token of an agent was used already, by another key.",
        "make another with `bailiwick agent-token MACHINE`; if nobody used this one, somebody else has seen it: quarantine the machine",
    ),
    (
        "declaration.not-found",
        "No object of this kind and name is declared.",
        "`bailiwick get` lists what there is",
    ),
    (
        "gpu.duplicate",
        "Two machines show the same GPU.",
        "one of the two BMCs is out of date or lies: look at both, and let the machine that lost the GPU be read again",
    ),
    (
        "machine.duplicate-serial",
        "Another enrolled machine has the same serial number.",
        "the same hardware is declared twice, or two BMC addresses were exchanged: correct `spec.bmc.address`, or delete one of the two",
    ),
    (
        "machine.duplicate-uuid",
        "Another enrolled machine has the same system UUID.",
        "the same hardware is declared twice, or its vendor gave one UUID to two boards: correct the declaration, or have the UUID set anew",
    ),
    (
        "machine.in-use",
        "The provisioning service holds something of the machine, so its declaration does not go, nor its site change.",
        "`bailiwick retire MACHINE` erases it and takes it from the service; then delete it",
    ),
    (
        "machine.no-erasure",
        "A machine would leave its use without the record of its erasure.",
        "this is a mistake of the program: report it",
    ),
    (
        "machine.own-password",
        "The cell has given the machine's BMC a password of its own making, which would be lost with the declaration.",
        "`bailiwick retire MACHINE` gives the BMC its declared password back; then delete it",
    ),
    (
        "machine.pin-changed",
        "The BMC shows another public key than the one pinned when it was discovered.",
        "if the BMC or its certificate was replaced by you, declare the new key in `spec.bmc.pin`; else treat it as an attack",
    ),
    (
        "machine.superseded",
        "The declaration of the machine changed while a step of it was under way; what the step found is not recorded.",
        "nothing to do: the next step starts from the new declaration",
    ),
    (
        "machine.wrong-state",
        "The step does not follow from the state that the machine is in.",
        "nothing to do: the next step starts from the state that it is in",
    ),
    (
        "plan.not-found",
        "No plan has this digest.",
        "make one with `bailiwick plan -f …` at this very cell, and apply the digest that it prints",
    ),
    (
        "plan.not-genuine",
        "The digest of the plan is not that of its content.",
        "make the plan again; what carries it changed it on the way",
    ),
    (
        "plan.stale",
        "What is declared has changed since the plan was made.",
        "make it again with `bailiwick plan -f …`, review what it says now, and apply the digest that it prints",
    ),
    (
        "store.bad-url",
        "The URL of the database is of no kind that the store knows.",
        "write sqlite:///path/to/file or postgres://user@host/database",
    ),
    (
        "store.corrupt",
        "The file is no database of Bailiwick, or a row of it does not read back.",
        "restore the database from a backup; keep the damaged file to look at",
    ),
    ("store.failed", "The database refused a request.", "see the cause below and the log of the database"),
    (
        "store.file",
        "A file or directory that the store needs could not be made or read.",
        "see the cause below; the cell needs to own the directory of its data",
    ),
    (
        "store.full",
        "The disk of the database is full. What was under way is undone.",
        "make room on that disk; the cell goes on by itself",
    ),
    (
        "store.key-malformed",
        "The key file does not hold a key.",
        "put the right file back: one line of `bailiwick-key-v1:` and 64 hexadecimal digits",
    ),
    (
        "store.key-missing",
        "The database holds sealed credentials, and the file of the key that sealed them is not there.",
        "put the key file back from its backup; without it, credentials have to be declared again into a new database",
    ),
    (
        "store.key-permissions",
        "Others than its owner can read the key file.",
        "run `chmod 600` on it; if others could have read it, give the BMCs new passwords",
    ),
    (
        "store.key-wrong",
        "The key is not the one that sealed this database.",
        "name the key file that belongs to this database",
    ),
    (
        "store.locked",
        "Another process has this SQLite database open.",
        "stop the other cell, or give this one a database of its own; several replicas need PostgreSQL",
    ),
    (
        "store.meta-conflict",
        "A value that is set once for a database, such as its cell's jurisdiction, has another value.",
        "correct the configuration, or use a database of its own for the other cell",
    ),
    (
        "store.newer-version",
        "The database was last used by a newer Bailiwick. Nothing was changed.",
        "install that version or a newer one, or restore the backup made before the upgrade",
    ),
    ("store.random", "The system gives no random bytes.", "see why `getrandom` fails on this system"),
    (
        "store.read-only",
        "The database, or the directory it is in, cannot be written.",
        "give the cell's user write permission, or see why the disk is mounted read-only",
    ),
    (
        "store.unreachable",
        "The database does not answer.",
        "see whether PostgreSQL runs at that address and lets this user in; the cell tries again by itself",
    ),
    (
        "store.unsealable",
        "A sealed value does not open: it was changed, or moved from another row, outside Bailiwick.",
        "apply the machine's declaration again with its password; find out who can write to the database",
    ),
    ("token.exists", "A live token has this name.", "choose another name, or revoke that token first"),
    ("token.not-found", "No token has this name.", "`bailiwick token list` shows them"),
];

impl StoreError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadUrl(_) => "store.bad-url",
            Self::Unreachable(_) => "store.unreachable",
            Self::Locked { .. } => "store.locked",
            Self::NewerVersion { .. } => "store.newer-version",
            Self::Full(_) => "store.full",
            Self::ReadOnly(_) => "store.read-only",
            Self::Corrupt(_) => "store.corrupt",
            Self::Failed(_) => "store.failed",
            Self::File { .. } => "store.file",
            Self::KeyPermissions { .. } => "store.key-permissions",
            Self::KeyMissing { .. } => "store.key-missing",
            Self::KeyMalformed { .. } => "store.key-malformed",
            Self::KeyWrong { .. } => "store.key-wrong",
            Self::Unsealable { .. } => "store.unsealable",
            Self::Random(_) => "store.random",
            Self::MetaConflict { .. } => "store.meta-conflict",
            Self::NotFound { .. } => "declaration.not-found",
            Self::PlanUnknown(_) => "plan.not-found",
            Self::PlanStale(_) => "plan.stale",
            Self::PlanNotGenuine(_) => "plan.not-genuine",
            Self::Superseded { .. } => "machine.superseded",
            Self::WrongState { .. } => "machine.wrong-state",
            Self::InUse { .. } => "machine.in-use",
            Self::OwnPassword(_) => "machine.own-password",
            Self::NoErasure { .. } => "machine.no-erasure",
            Self::PinChanged { .. } => "machine.pin-changed",
            Self::DuplicateSerial { .. } => "machine.duplicate-serial",
            Self::DuplicateUuid { .. } => "machine.duplicate-uuid",
            Self::Agent(error) => error.code(),
            Self::TokenExists(_) => "token.exists",
            Self::TokenUnknown(_) => "token.not-found",
        }
    }

    /// Whether the same call may succeed later although nobody changes the request: a full disk, a server that is away.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Full(_) | Self::ReadOnly(_) | Self::Failed(_))
    }

    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> StoreError {
        let path = path.into();
        move |source| match source.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
                Self::ReadOnly(format!("cannot {what} {}: {source}", path.display()).into())
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::Full(sqlx::Error::Io(source))
            }
            _ => Self::File { what, path, source },
        }
    }
}

pub(crate) fn hint_of(code: &str) -> &'static str {
    CODES.iter().find(|(known, ..)| *known == code).map_or("", |(_, _, hint)| hint)
}

impl Diagnose for StoreError {
    fn problem(&self) -> Problem {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        let problem = Problem::new(self.code(), message).hint(hint_of(self.code()));
        match self {
            Self::NewerVersion { found, expected } => {
                problem.difference(found.to_string(), format!("{expected} or less"))
            }
            Self::KeyPermissions { path, mode } => {
                problem.difference(format!("mode {mode:03o}"), "mode 600").at(path.display().to_string())
            }
            Self::MetaConflict { found, wanted, .. } => problem.difference(wanted, found),
            Self::WrongState { found, expected, .. } => {
                problem.difference(found.to_string(), expected.to_string())
            }
            Self::Agent(AgentError::OtherMachine { found, expected, .. }) => {
                problem.difference(found.as_deref().unwrap_or("no system UUID"), expected)
            }
            Self::PinChanged { found, expected, .. } => {
                problem.difference(found.to_string(), expected.to_string())
            }
            _ => problem,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable(error),
            sqlx::Error::Configuration(cause) => Self::BadUrl(cause.to_string()),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            sqlx::Error::Database(cause) => {
                let code = cause.code().unwrap_or_default().into_owned();
                if cause.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                    from_sqlite(&code, error)
                } else {
                    from_postgres(&code, error)
                }
            }
            _ => Self::Failed(error),
        }
    }
}

/// By SQLite's extended result codes (<https://sqlite.org/rescode.html>); the low byte is the primary code.
fn from_sqlite(code: &str, error: sqlx::Error) -> StoreError {
    let extended: i32 = code.parse().unwrap_or_default();
    match (extended, extended & 0xff) {
        // SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: no room for the index of the write-ahead log
        (_, 13) | (4874, _) => StoreError::Full(error),
        // SQLITE_READONLY
        (_, 8) => StoreError::ReadOnly(error.into()),
        // SQLITE_BUSY, SQLITE_LOCKED
        (_, 5 | 6) => StoreError::Unreachable(error),
        // SQLITE_CORRUPT, SQLITE_NOTADB
        (_, 11 | 26) => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Failed(error),
    }
}

/// By SQLSTATE (PostgreSQL documentation, appendix A).
fn from_postgres(code: &str, error: sqlx::Error) -> StoreError {
    match code {
        // disk_full
        "53100" => StoreError::Full(error),
        // read_only_sql_transaction
        "25006" => StoreError::ReadOnly(error.into()),
        // invalid_catalog_name; too_many_connections; shut down, crashed, starting
        "3D000" | "53300" | "57P01" | "57P02" | "57P03" => StoreError::Unreachable(error),
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => StoreError::Corrupt(error.to_string()),
        // connection exceptions, invalid authorization
        _ if code.starts_with("08") || code.starts_with("28") => StoreError::Unreachable(error),
        _ => StoreError::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_sorted_and_each_has_a_meaning_and_a_hint() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(CODES.iter().all(|(_, meaning, hint)| meaning.ends_with('.') && !hint.is_empty()));
    }

    #[test]
    fn a_problem_tells_the_cause_and_what_to_do() {
        let problem = StoreError::NewerVersion { found: 9, expected: 1 }.problem();
        assert_eq!(problem.code, "store.newer-version");
        assert_eq!((problem.found.as_deref(), problem.expected.as_deref()), (Some("9"), Some("1 or less")));
        assert!(problem.hint.unwrap().contains("install"));
    }
}
