//! How long things take, and when something is stuck.
//!
//! The operator looks again every 10 s (measured: most of each transition is that), so polling faster than every 5 s tells
//! nothing sooner. What is usual is a real server's time: firmware takes minutes to boot an agent. Ironic gives up on an agent
//! that does not call back after 30 min (`*_callback_timeout`). A state that lasts much longer is stuck: where Ironic's node ends in
//! `deploy failed` and has no `last_error` any more, which is the rule with Ironic 39, the operator asks again for ever and reports
//! nothing (facts: metal3-ironic, gotchas 2 and 3), so that time alone tells.

use super::{Next, Wait, passing};
use crate::error::problem;
use crate::host::BareMetalHost;
use crate::states::ProvisioningState;
use crate::{ANNOTATION_NUDGED, KIND_HOST};
use domain::Problem;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;

/// How long an operator may take to notice a new host.
const SILENCE: Duration = Duration::from_mins(1);
/// How often a stuck host is nudged.
const NUDGE_EVERY: Duration = Duration::from_mins(10);

/// One kind of waiting.
pub(super) struct Pace {
    pub(super) code: &'static str,
    pub(super) doing: &'static str,
    poll: u64,
    usual: u64,
    limit: u64,
}

const fn pace(code: &'static str, doing: &'static str, poll: u64, usual: u64, limit: u64) -> Pace {
    Pace { code, doing, poll, usual, limit }
}

pub(super) const REGISTERING: Pace =
    pace("metal3.registering", "the operator tries the BMC's address and credentials", 5, 30, 900);
pub(super) const INSPECTING: Pace =
    pace("metal3.inspecting", "an agent boots and reads the hardware", 10, 600, 3000);
pub(super) const PREPARING: Pace =
    pace("metal3.preparing", "RAID and firmware settings are brought in line", 10, 60, 7200);
pub(super) const PROVISIONING: Pace = pace("metal3.provisioning", "the image is put on", 10, 900, 2700);
pub(super) const DEPROVISIONING: Pace =
    pace("metal3.deprovisioning", "the image is taken off and the disks are cleaned", 10, 900, 7200);
pub(super) const DELETING: Pace = pace("metal3.deleting", "the operator lets go of the host", 5, 120, 7200);
pub(super) const POWERING: Pace =
    pace("metal3.powering", "the machine is being switched on or off", 5, 60, 900);
pub(super) const ATTACHING: Pace =
    pace("metal3.attaching", "the host is put back into the provisioning service", 5, 60, 900);
pub(super) const SERVICING: Pace =
    pace("metal3.servicing", "firmware or settings of the running host are changed", 10, 1800, 7200);
pub(super) const DELAYED: Pace =
    pace("metal3.delayed", "the operator works on as many hosts as it takes at once", 30, 900, 14_400);

/// The waiting that a state means.
pub(super) fn of_state(state: &ProvisioningState) -> Option<&'static Pace> {
    use ProvisioningState as S;
    Some(match state {
        S::None | S::Unmanaged | S::Registering => &REGISTERING,
        S::Inspecting => &INSPECTING,
        S::MatchProfile | S::Preparing | S::ExternallyProvisioned => &PREPARING,
        S::Provisioning | S::Ready | S::Available => &PROVISIONING,
        S::Provisioned | S::Deprovisioning => &DEPROVISIONING,
        S::PoweringOffBeforeDelete | S::Deleting => &DELETING,
        S::Other(_) => return None,
    })
}

/// Since when the host is in its state, as far as the operator tells.
pub(super) fn since(host: &BareMetalHost) -> Option<Timestamp> {
    use ProvisioningState as S;
    let history = &host.status.operation_history;
    let start = match host.state() {
        S::Registering => history.register.start,
        S::Inspecting => history.inspect.start,
        S::MatchProfile | S::Preparing => history.inspect.end.or(history.register.end),
        S::Provisioning => history.provision.start,
        S::Deprovisioning => history.deprovision.start,
        S::None | S::Unmanaged => host.created,
        _ => host.status.last_updated,
    };
    // A wish begins later than the state that it found, and deleting with the wish whatever the state was then.
    host.deleting_since.or(start.or(host.created).max(host.managers.ours_at()))
}

/// Waits, unless it has been going on for too long.
pub(super) fn wait(pace: &Pace, host: &BareMetalHost, now: Timestamp) -> Next {
    let since = since(host);
    let lasted =
        since.and_then(|since| Duration::try_from(now.duration_since(since)).ok()).unwrap_or_default();
    let place = format!("{KIND_HOST}/{}", host.name);
    if !host.taken_up && host.state() == &ProvisioningState::None && lasted > SILENCE {
        let message = format!("no baremetal-operator takes up {place}");
        return passing(problem("metal3.operator-silent", message).at(place));
    }
    if lasted > Duration::from_secs(pace.limit) {
        return stuck(pace, host, now, lasted);
    }
    let problem = Problem::new(pace.code, format!("{place}: {}", pace.doing)).at(place);
    Next::Wait(Wait {
        problem: crate::error::with_hint(problem),
        poll_after: Duration::from_secs(pace.poll),
        usual: Duration::from_secs(pace.usual),
        since,
    })
}

/// The operator backs off by minutes, later hours, after repeated failures; any annotation wakes it.
fn stuck(pace: &Pace, host: &BareMetalHost, now: Timestamp, lasted: Duration) -> Next {
    let nudged = host.annotations.get(ANNOTATION_NUDGED).and_then(|time| time.parse::<Timestamp>().ok());
    let rested = nudged.is_none_or(|last| {
        // A time in the future is a clock that was wrong: nudge again.
        Duration::try_from(now.duration_since(last)).map_or(true, |ago| ago >= NUDGE_EVERY)
    });
    if rested {
        return Next::Patch {
            host: host.name.clone(),
            resource_version: host.resource_version.clone(),
            patch: json!({ "metadata": { "annotations": { ANNOTATION_NUDGED: now.to_string() } } }),
            purpose: "nudge the operator",
        };
    }
    let place = format!("{KIND_HOST}/{}", host.name);
    let message = format!(
        "{place} has been in state `{}` for {} min: {}",
        host.state(),
        lasted.as_secs() / 60,
        pace.doing
    );
    let usual = format!("about {} min", pace.usual.div_ceil(60));
    passing(
        problem("metal3.stuck", message)
            .difference(format!("{} min", lasted.as_secs() / 60), usual)
            .at(place),
    )
}
