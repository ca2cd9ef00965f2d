//! The health of devices, as the kubelet shows it in `pod.status…allocatedResourcesStatus`.

use super::wire::{DeviceHealth, DeviceIdentifier, HealthStatus, NodeWatchResourcesResponse};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kubelet cuts longer messages in the middle of whatever is there.
const MAX_MESSAGE: usize = 1024;

/// How a device was when it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Pool.
    pub pool: String,
    /// Name in the pool.
    pub device: String,
    /// How it is.
    pub status: HealthStatus,
    /// When it was looked at.
    pub taken: SystemTime,
    /// After how long without news the kubelet calls it unknown; whole seconds.
    pub timeout: Duration,
    /// What is wrong.
    pub message: String,
}

/// The full list, as every response has it.
pub(super) fn response(all: &[Health]) -> NodeWatchResourcesResponse {
    let device = |health: &Health| DeviceHealth {
        device: Some(DeviceIdentifier { pool_name: health.pool.clone(), device_name: health.device.clone() }),
        health: health.status.into(),
        last_updated_time: seconds(health.taken.duration_since(UNIX_EPOCH).unwrap_or_default()),
        health_check_timeout_seconds: seconds(health.timeout),
        message: health.message[..health.message.floor_char_boundary(MAX_MESSAGE)].to_owned(),
    };
    NodeWatchResourcesResponse { devices: all.iter().map(device).collect() }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
