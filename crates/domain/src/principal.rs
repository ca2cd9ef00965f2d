//! Who may do what to a cell (DESIGN §5.11). `tenant-admin` comes with tenants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a principal may do. Each role may do what the ones before it may, except that an auditor only reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads machines, GPUs, classes.
    Viewer,
    /// Reads everything, events included.
    Auditor,
    /// Reads everything; plans and applies.
    Operator,
    /// All of it, and tokens.
    Admin,
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read inventory and classes.
    Read,
    /// Read the event log.
    Audit,
    /// Make and apply plans.
    Change,
    /// Make and revoke tokens.
    Administer,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Auditor, Self::Operator, Self::Admin];

    /// As written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Reads [`Self::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether the role has the permission.
    pub fn may(self, permission: Permission) -> bool {
        match permission {
            Permission::Read => true,
            Permission::Audit => !matches!(self, Self::Viewer),
            Permission::Change => matches!(self, Self::Operator | Self::Admin),
            Permission::Administer => matches!(self, Self::Admin),
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who is calling: what a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of the token.
    pub name: String,
    /// Its role.
    pub role: Role,
}
