//! Exit codes: part of the interface, documented in `--help` and `docs/reference/exit-codes.md`.

use domain::Problem;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    Failed,
    Usage,
    BadInput,
    NotFound,
    Refused,
    Unreachable,
    NotApplied,
    Interrupted,
}

impl Exit {
    pub(crate) const ALL: [Self; 9] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::BadInput,
        Self::NotFound,
        Self::Refused,
        Self::Unreachable,
        Self::NotApplied,
        Self::Interrupted,
    ];

    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::BadInput => 3,
            Self::NotFound => 4,
            Self::Refused => 5,
            Self::Unreachable => 6,
            Self::NotApplied => 7,
            Self::Interrupted => 130,
        }
    }

    /// What it means.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failed => "failed",
            Self::Usage => "wrong use of the command line",
            Self::BadInput => "a bad file, address or declaration",
            Self::NotFound => "not found",
            Self::Refused => "refused: credentials, permissions, pin or trust",
            Self::Unreachable => "unreachable, busy or timed out",
            Self::NotApplied => "the plan was declined or is stale",
            Self::Interrupted => {
                "interrupted (SIGINT or SIGTERM); a server that was asked to end, and did, gives 0"
            }
        }
    }

    /// The code of one problem decides; the one place where codes become exit codes.
    pub(crate) fn of(problem: &Problem) -> Self {
        let code = problem.code.as_str();
        match code {
            "bmc.unreachable"
            | "bmc.timeout"
            | "bmc.unresolved"
            | "bmc.busy"
            | "bmc.deadline"
            | "api.too-slow"
            | "cell.unreachable"
            | "cell.timeout"
            | "ipmi.unreachable"
            | "ipmi.timeout"
            | "ipmi.busy"
            | "ipmi.session-lost"
            | "ipmi.sessions-exhausted" => Self::Unreachable,
            "bmc.trust-required"
            | "bmc.pin-mismatch"
            | "bmc.unauthorized"
            | "bmc.locked-out"
            | "bmc.login-withheld"
            | "bmc.password-change-required"
            | "bmc.address-outside-networks"
            | "ipmi.unauthorized"
            | "ipmi.privilege"
            | "ipmi.forbidden"
            | "ipmi.key-mismatch"
            | "api.unauthorized"
            | "api.forbidden"
            | "api.host-not-allowed" => Self::Refused,
            "bmc.address-invalid"
            | "bmc.ca-invalid"
            | "context.malformed"
            | "api.bad-request"
            | "ipmi.credentials-invalid"
            | "machine.ipmi-pin"
            | "machine.ipmi-rotate"
            | "machine.ipmi-zone"
            | "machine.no-credentials"
            | "machine.two-credentials"
            | "machine.no-password"
            | "site.no-networks"
            | "class.requires-nothing"
            | "jurisdiction.not-nested"
            | "jurisdiction.outside-cell"
            | "cell.jurisdiction-missing"
            | "cell.jurisdiction-fixed"
            | "store.bad-url"
            | "sim.site"
            | "sim.site-syntax"
            | "sim.recording"
            | "sim.unknown-model" => Self::BadInput,
            "context.unknown" => Self::NotFound,
            "gpu.accept-stale" | "plan.declined" | "plan.stale" | "plan.unconfirmed" => Self::NotApplied,
            _ if code.starts_with("bmc.certificate.") => Self::Refused,
            _ if code.ends_with(".not-found") => Self::NotFound,
            _ if ["input.", "config.", "declaration."].iter().any(|prefix| code.starts_with(prefix)) => {
                Self::BadInput
            }
            _ => Self::Failed,
        }
    }

    /// As `--help` tells it.
    pub(crate) fn help() -> String {
        let lines = Self::ALL.map(|exit| format!("  {:>3}  {}", exit.code(), exit.meaning()));
        format!("Exit codes:\n{}", lines.join("\n"))
    }

    /// As `docs/reference/exit-codes.md` tells it.
    pub(crate) fn reference() -> String {
        let rows: String =
            Self::ALL.iter().map(|exit| format!("| {} | {} |\n", exit.code(), exit.meaning())).collect();
        format!("# Exit codes of `bailiwick`\n\n| code | meaning |\n|---|---|\n{rows}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ends_share_a_number() {
        let mut codes = Exit::ALL.map(Exit::code).to_vec();
        codes.dedup();
        assert_eq!(codes.len(), Exit::ALL.len());
    }

    #[test]
    fn what_keeps_us_out_is_told_from_what_is_away() {
        let of = |code: &str| Exit::of(&Problem::new(code, ""));
        assert_eq!(of("bmc.certificate.expired"), Exit::Refused);
        assert_eq!(of("bmc.unreachable"), Exit::Unreachable);
        assert_eq!(of("declaration.unknown-field"), Exit::BadInput);
        assert_eq!(of("declaration.not-found"), Exit::NotFound);
        assert_eq!(of("something.new"), Exit::Failed);
    }
}
