//! What can go wrong: with the plugin as a whole, and with one claim.

use domain::permit::PermitError;
use std::path::PathBuf;

/// Why the plugin does not work at all.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// A socket could not be made.
    #[error("cannot listen at {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The path of a socket is longer than the kernel allows.
    #[error("the path {} has {length} bytes, and a socket's path at most {limit}", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Another process listens there.
    #[error("another process listens at {}", path.display())]
    SocketInUse {
        /// Where.
        path: PathBuf,
    },
    /// The plugin's own directory cannot be used.
    #[error("cannot use {}", path.display())]
    State {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl PluginError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Socket { .. } => "plugin.socket.failed",
            Self::SocketPath { .. } => "plugin.socket.path-too-long",
            Self::SocketInUse { .. } => "plugin.socket.in-use",
            Self::State { .. } => "plugin.state.unusable",
        }
    }
}

/// Why a claim is not prepared, or not given back. The kubelet shows it in the pod's events, and tries again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its UID is no UID, so it names no files.
    #[error("the claim's UID {uid:?} is not made of letters, digits and dashes")]
    ClaimUid {
        /// As the kubelet gave it.
        uid: String,
    },
    /// The API server could not be asked.
    #[error("the claim could not be read: {reason}")]
    ClaimUnread {
        /// Why.
        reason: String,
    },
    /// The API server does not know it.
    #[error("claim {namespace}/{name} does not exist")]
    ClaimGone {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// There is another claim of the same name.
    #[error("the claim has UID {found}, and {expected} was asked for: it was deleted and made anew")]
    ClaimReplaced {
        /// UID in the API server.
        found: String,
        /// UID the kubelet gave.
        expected: String,
    },
    /// The scheduler gave it nothing, or took it back.
    #[error("the claim is not allocated")]
    ClaimNotAllocated,
    /// It has no device of our driver.
    #[error("the claim's allocation has no device of {}", crate::DRIVER)]
    ClaimWithoutDevices,
    /// It was allocated other devices than those it holds here.
    #[error("the claim still holds {held} here and is now allocated {allocated}; those are given back first")]
    ClaimReallocated {
        /// Devices in the checkpoint.
        held: String,
        /// Devices in the allocation.
        allocated: String,
    },
    /// It was given back while it was being prepared.
    #[error("the claim was given back while it was being prepared")]
    ClaimReleased,
    /// Our parameters are not understood.
    #[error("parameters of {} for request {request:?} are not understood: {reason}", crate::DRIVER)]
    ConfigInvalid {
        /// The request, or `*` for all.
        request: String,
        /// What is wrong with them.
        reason: String,
    },
    /// Parameters of another driver for a device of ours.
    #[error(
        "request {request:?} got a device of {}, and has parameters for {driver}, which would be ignored",
        crate::DRIVER
    )]
    ConfigForeign {
        /// The request.
        request: String,
        /// The other driver.
        driver: String,
    },
    /// Administrative access passes by the permit.
    #[error("device {device} was asked for with administrative access, which is not given")]
    AdminAccess {
        /// The device.
        device: String,
    },
    /// Not a device of this node.
    #[error("device {pool}/{device} is not on this node")]
    DeviceUnknown {
        /// Its pool.
        pool: String,
        /// Its name.
        device: String,
    },
    /// The cell has not permitted that the device is handed out, or no longer does; with its own code.
    #[error("{0}")]
    NoPermit(#[from] PermitError),
    /// Something about the device forbids it now.
    #[error("device {device} is not handed out: {reason}")]
    GateClosed {
        /// The device.
        device: String,
        /// What.
        reason: String,
    },
    /// Another claim has it.
    #[error("device {device} is still held by claim {namespace}/{name} ({uid})")]
    DeviceHeld {
        /// The device.
        device: String,
        /// Holder's namespace.
        namespace: String,
        /// Holder's name.
        name: String,
        /// Holder's UID.
        uid: String,
    },
    /// Its last user's traces are not gone yet.
    #[error("device {device} is not scrubbed yet after claim {namespace}/{name}: {reason}")]
    DeviceUnscrubbed {
        /// The device.
        device: String,
        /// Last holder's namespace.
        namespace: String,
        /// Last holder's name.
        name: String,
        /// How far it is.
        reason: String,
    },
    /// Nobody knows who had the device, and it is not scrubbed yet.
    #[error("what claims held was lost, and device {device} is not scrubbed yet since: {reason}")]
    DeviceUnaccounted {
        /// The device.
        device: String,
        /// How far the scrub is.
        reason: String,
    },
    /// What is known of the device is too old.
    #[error("device {device} is not handed out: the driver has told nothing for {seconds} s or more")]
    ProbeStale {
        /// The device.
        device: String,
        /// How old a probe may be.
        seconds: u64,
    },
    /// A part of a GPU could not be made. Its place stays reserved for the claim.
    #[error("device {device}, a part of a GPU, could not be made: {reason}")]
    PartFailed {
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// Somebody else made an instance at the very place of a part of a GPU.
    #[error("device {device}, a part of a GPU, is not handed out: {instance} at its place was not made here")]
    PartForeign {
        /// The device.
        device: String,
        /// The instance.
        instance: String,
    },
    /// A part of a GPU takes longer than the kubelet waits.
    #[error("a part of a GPU is being made")]
    PartUnderWay,
    /// A scrub failed; its devices stay reserved.
    #[error("scrubbing failed, the devices stay reserved: {reason}")]
    ScrubFailed {
        /// What failed.
        reason: String,
    },
    /// The records of scrubs could not be read or written; what was scrubbed stays reserved.
    #[error("the records of scrubs could not be {what}: {reason}")]
    ScrubRecords {
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A scrub takes longer than the kubelet waits.
    #[error("scrubbing is under way")]
    ScrubUnderWay,
    /// The checkpoint could not be written: nothing was handed out.
    #[error("the checkpoint could not be {what}: {reason}")]
    Checkpoint {
        /// `locked`, `read` or `written`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Others write the checkpoint for too long.
    #[error("others have held the checkpoint's lock for {seconds} s")]
    CheckpointBusy {
        /// How long was waited.
        seconds: u64,
    },
    /// The CDI specification could not be written, or removed.
    #[error("the CDI specification {path} could not be {what}: {reason}")]
    Cdi {
        /// `written` or `removed`.
        what: &'static str,
        /// Its file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A task ended before its time.
    #[error("the plugin is stopping")]
    Stopping,
}

impl Refusal {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ClaimUid { .. } => "plugin.claim.bad-uid",
            Self::ClaimUnread { .. } => "plugin.claim.unread",
            Self::ClaimGone { .. } => "plugin.claim.gone",
            Self::ClaimReplaced { .. } => "plugin.claim.replaced",
            Self::ClaimNotAllocated => "plugin.claim.not-allocated",
            Self::ClaimWithoutDevices => "plugin.claim.without-devices",
            Self::ClaimReallocated { .. } => "plugin.claim.reallocated",
            Self::ClaimReleased => "plugin.claim.released",
            Self::ConfigInvalid { .. } => "plugin.config.invalid",
            Self::ConfigForeign { .. } => "plugin.config.foreign",
            Self::AdminAccess { .. } => "plugin.device.admin-access",
            Self::DeviceUnknown { .. } => "plugin.device.unknown",
            Self::NoPermit(error) => error.code(),
            Self::GateClosed { .. } => "plugin.device.gate-closed",
            Self::DeviceHeld { .. } => "plugin.device.held",
            Self::DeviceUnscrubbed { .. } => "plugin.device.unscrubbed",
            Self::DeviceUnaccounted { .. } => "plugin.device.unaccounted",
            Self::ProbeStale { .. } => "plugin.device.probe-stale",
            Self::PartFailed { .. } => "plugin.part.failed",
            Self::PartForeign { .. } => "plugin.part.foreign",
            Self::PartUnderWay => "plugin.part.under-way",
            Self::ScrubFailed { .. } => "plugin.scrub.failed",
            Self::ScrubRecords { .. } => "plugin.scrub.records",
            Self::ScrubUnderWay => "plugin.scrub.under-way",
            Self::Checkpoint { .. } => "plugin.checkpoint.failed",
            Self::CheckpointBusy { .. } => "plugin.checkpoint.busy",
            Self::Cdi { .. } => "plugin.cdi.failed",
            Self::Stopping => "plugin.stopping",
        }
    }

    /// What the kubelet shows: code and sentence.
    pub fn told(&self) -> String {
        format!("{}: {self}", self.code())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_code_is_listed_with_what_to_do() {
        let sources = [include_str!("error.rs"), include_str!("api_server.rs"), include_str!("store.rs")];
        let codes = sources.iter().flat_map(|source| source.split('"')).filter(|text| {
            text.strip_prefix("plugin.")
                .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_lowercase() || b"-.".contains(&b)))
        });
        let mut seen = 0;
        for code in codes.filter(|code| *code != "plugin.") {
            assert!(crate::CODES.iter().any(|(known, ..)| *known == code), "{code}");
            seen += 1;
        }
        assert!(seen > 20, "{seen}");
    }
}
