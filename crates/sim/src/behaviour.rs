//! How a BMC behaves where vendors differ.

use std::time::Duration;

/// The behaviours of one BMC. The default is an orderly one.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// What `ETag` headers look like.
    pub etags: Etags,
    /// What `$expand` does.
    pub expand: Expand,
    /// How many sessions fit into the pool (quirk 2).
    pub max_sessions: usize,
    /// After so many failed logins in a row every login is refused, until [`crate::Bmc::unlock`].
    pub lockout_after: Option<u32>,
    /// Whether even the service root wants credentials.
    pub root_requires_credentials: bool,
    /// Whether every request but the root's is answered with 403 PasswordChangeRequired (quirk 4).
    pub password_change_required: bool,
    /// Whether a PATCH without `If-Match` is refused with 428 (RFC 6585).
    pub requires_if_match: bool,
    /// Whether answers are compressed for clients that offer gzip, which changes their ETag (quirk 5).
    pub compresses: bool,
    /// How resets go.
    pub power: PowerStyle,
}

/// What `ETag` headers look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Etags {
    /// What the resource's `@odata.etag` says; none where it says nothing.
    #[default]
    Recorded,
    /// `"…"`, from the body.
    Strong,
    /// `W/"…"`, from the body (quirk 5).
    Weak,
    /// `""` always (quirk 6).
    Empty,
    /// None at all (quirk 9).
    None,
}

/// What `$expand` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expand {
    /// What the service root's `ProtocolFeaturesSupported` says; where it says nothing, 501.
    #[default]
    AsAdvertised,
    /// Members come without their required properties, whatever is advertised (quirk 19).
    DropsFields,
    /// The query is ignored.
    Ignored,
    /// 400 whatever is advertised (quirk 19).
    Rejected,
}

/// How resets go.
#[derive(Clone, Copy, Debug)]
pub struct PowerStyle {
    /// How long a change takes.
    pub delay: Duration,
    /// Whether a reset into the present state is 409 (Dell) instead of 204 (quirk 15).
    pub conflict_if_already: bool,
    /// For how long after a power-off `On` is refused with 409 (quirk 14).
    pub on_refused_after_off: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            etags: Etags::default(),
            expand: Expand::default(),
            max_sessions: 8,
            lockout_after: None,
            root_requires_credentials: false,
            password_change_required: false,
            requires_if_match: false,
            compresses: false,
            power: PowerStyle {
                delay: Duration::ZERO,
                conflict_if_already: false,
                on_refused_after_off: Duration::ZERO,
            },
        }
    }
}
