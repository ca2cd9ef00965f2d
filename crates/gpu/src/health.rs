//! What is wrong with a GPU, from what it tells (pure). Every finding is made anew of each probe, so it clears when its cause does.

use domain::probe::{FabricState, Finding, ProbedGpu, Severity};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Signs of life that are no values of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lifelines {
    /// It fell off the bus.
    pub(crate) lost: bool,
    /// It must be reset before it tells anything.
    pub(crate) reset_required: bool,
    /// It cannot be asked at all.
    pub(crate) unreadable: bool,
    /// Whether MIG mode is on could not be read, and not because there is none.
    pub(crate) mig_unknown: bool,
    /// What the driver wants done (`nvmlDeviceGpuRecoveryAction_t`); `None` where the driver does not tell.
    pub(crate) recovery: Option<u64>,
}

/// Errors that the driver reported as XID events, by GPU. They are moments; what is kept is what has not been mended since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xids {
    seen: BTreeMap<String, BTreeMap<u64, Timestamp>>,
}

/// How long an XID counts that needs no reset, and how long one must have been over that the driver calls mended.
const SETTLING: SignedDuration = SignedDuration::from_mins(1);

/// What an XID says about its GPU (NVIDIA, XID errors, r580).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// A fault of the program that used it. NVIDIA's own plugin passes over the same.
    Program,
    /// Over by itself.
    Passing,
    /// The GPU must be reset.
    Reset,
    /// The GPU, or the board, is broken or gone.
    Broken,
}

fn meaning(xid: u64) -> Meaning {
    match xid {
        // illegal access, page fault, channel reset by robustness, preemptive removal, video decoder, context switch
        13 | 31 | 32 | 43 | 45 | 68 | 69 | 109 => Meaning::Program,
        // row remapped, high rate of corrected errors, contained error, another recovery action, which is told by itself
        63 | 92 | 94 | 154 => Meaning::Passing,
        // remapping failed, off the bus, unrecoverable by reset
        64 | 79 => Meaning::Broken,
        // double-bit error, internal halt, NVLink, uncontained error, GSP, … and any that we do not know
        _ => Meaning::Reset,
    }
}

impl Xids {
    /// Keeps an XID that says something about its GPU.
    pub fn record(&mut self, uuid: &str, xid: u64, at: Timestamp) {
        if meaning(xid) != Meaning::Program {
            self.seen.entry(uuid.to_ascii_lowercase()).or_default().insert(xid, at);
        }
    }

    /// A GPU was reset, by us or by a new start of the host or driver: what was reported before is over.
    pub fn was_reset(&mut self, uuid: &str) {
        self.seen.remove(&uuid.to_ascii_lowercase());
    }

    /// Forgets what is over: what passes by itself, and what the driver, which tells `recovery`, wants nothing done about.
    pub(crate) fn settle(&mut self, uuid: &str, recovery: Option<u64>, now: Timestamp) {
        let key = uuid.to_ascii_lowercase();
        let Some(seen) = self.seen.get_mut(&key) else { return };
        seen.retain(|xid, at| {
            let mended = meaning(*xid) == Meaning::Passing || recovery == Some(0);
            !(mended && now.duration_since(*at) >= SETTLING)
        });
        if seen.is_empty() {
            self.seen.remove(&key);
        }
    }

    fn of<'a>(&'a self, uuid: Option<&str>) -> impl Iterator<Item = u64> + use<'a> {
        uuid.and_then(|uuid| self.seen.get(&uuid.to_ascii_lowercase()))
            .into_iter()
            .flatten()
            .map(|(xid, _)| *xid)
    }
}

/// Corrected link errors between two probes below this are what links live with; they are corrected by sending again.
const LINK_ERRORS: u64 = 100;

/// A GPU that was too hot is warm until it is so much below its limit, so that a finding does not come and go.
const COOL: u32 = 5;

/// Everything wrong with a GPU, worst first.
pub(crate) fn findings(
    gpu: &ProbedGpu,
    before: Option<&ProbedGpu>,
    signs: &Lifelines,
    xids: &Xids,
) -> Vec<Finding> {
    let before = before.filter(|before| before.uuid == gpu.uuid);
    let mut found = Vec::new();
    life(signs, &mut found);
    if !signs.lost {
        memory(gpu, &mut found);
        links(gpu, before, &mut found);
        heat(gpu, before, &mut found);
    }
    for xid in xids.of(gpu.uuid.as_deref()) {
        let (severity, what) = match meaning(xid) {
            Meaning::Program => continue,
            Meaning::Passing => (Severity::Notice, "passes by itself"),
            Meaning::Reset => (Severity::Critical, "needs a reset"),
            Meaning::Broken => (Severity::Critical, "means that it is broken or gone"),
        };
        found.push(finding(
            severity,
            "gpu.health.xid",
            &format!("the driver reported XID {xid}, which {what}"),
        ));
    }
    found.sort();
    found
}

/// Finds GPUs with fewer NVLinks up than others of their model in the host have. A count alone says nothing: some models tell of
/// links that their board does not connect, and cards without a bridge have none up.
pub(crate) fn compare_links(gpus: &mut [ProbedGpu]) {
    let up = |gpu: &ProbedGpu| gpu.nvlinks.iter().filter(|link| link.active).count();
    let mut most: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for gpu in gpus.iter() {
        let best = most.entry(gpu.model.clone()).or_default();
        *best = up(gpu).max(*best);
    }
    for gpu in gpus.iter_mut().filter(|gpu| !gpu.nvlinks.is_empty()) {
        let (own, best) = (up(gpu), most.get(&gpu.model).copied().unwrap_or_default());
        if own < best {
            let message =
                format!("it has {own} NVLinks up, where others of its model in this host have {best}");
            gpu.health.push(finding(Severity::Warning, "gpu.health.nvlink-down", &message));
            gpu.health.sort();
        }
    }
}

/// For two GPUs of one host that say they are the same.
pub(crate) fn uuid_repeated() -> Finding {
    finding(Severity::Critical, "gpu.health.uuid-repeated", "another GPU of this host has the same UUID")
}

fn finding(severity: Severity, code: &str, message: &str) -> Finding {
    Finding { severity, code: code.to_owned(), message: message.to_owned() }
}

fn life(signs: &Lifelines, found: &mut Vec<Finding>) {
    use Severity::{Critical, Warning};
    if signs.lost {
        found.push(finding(Critical, "gpu.health.lost", "it has fallen off the bus"));
    }
    if signs.reset_required {
        found.push(finding(Critical, "gpu.health.reset-required", "the driver says that it must be reset"));
    }
    if signs.unreadable {
        found.push(finding(Critical, "gpu.health.unreadable", "the driver does not let it be asked"));
    }
    if signs.mig_unknown && !signs.lost {
        let message = "whether it is parted (MIG mode) cannot be read";
        found.push(finding(Warning, "gpu.health.mig-unknown", message));
    }
    // nvmlDeviceGpuRecoveryAction_t
    let (severity, action) = match signs.recovery {
        None | Some(0) => return,
        Some(1) => (Critical, "a reset"),
        Some(2) => (Critical, "a restart of the host"),
        Some(3) => (Warning, "its peers drained"),
        Some(4) => (Warning, "draining, then a reset"),
        Some(_) => (Critical, "an action that is not known here"),
    };
    found.push(finding(severity, "gpu.health.recovery-needed", &format!("the driver wants {action}")));
}

fn memory(gpu: &ProbedGpu, found: &mut Vec<Finding>) {
    if gpu.readings.ecc_uncorrected.is_some_and(|errors| errors > 0) {
        found.push(finding(
            Severity::Warning,
            "gpu.health.ecc-uncorrected",
            "its memory had errors that could not be corrected since it was last reset",
        ));
    }
    if gpu.ecc.as_ref().is_some_and(|ecc| !ecc.enabled) {
        found.push(finding(Severity::Notice, "gpu.health.ecc-off", "the ECC of its memory is off"));
    }
    let Some(rows) = &gpu.remapped_rows else { return };
    if rows.failed {
        let message = "a row of its memory could not be replaced; the GPU is to be exchanged";
        found.push(finding(Severity::Critical, "gpu.health.row-remap-failed", message));
    }
    if rows.pending {
        let message = "a row of its memory is to be replaced at the next reset";
        found.push(finding(Severity::Warning, "gpu.health.row-remap-pending", message));
    }
}

fn links(gpu: &ProbedGpu, before: Option<&ProbedGpu>, found: &mut Vec<Finding>) {
    let errors = |gpu: &ProbedGpu| gpu.readings.nvlink_errors;
    if let (Some(now), Some(then)) = (errors(gpu), before.and_then(errors))
        && now.saturating_sub(then) >= LINK_ERRORS
    {
        let message = "its NVLinks have many errors since the probe before";
        found.push(finding(Severity::Warning, "gpu.health.nvlink-errors", message));
    }
    let Some(fabric) = &gpu.fabric else { return };
    if fabric.succeeded == Some(false) {
        let message = "it failed to join its NVLink fabric";
        found.push(finding(Severity::Critical, "gpu.health.fabric-failed", message));
    } else if fabric.state != FabricState::Completed {
        let message = "it has not joined its NVLink fabric; programs cannot start on it before";
        found.push(finding(Severity::Warning, "gpu.health.fabric-not-joined", message));
    }
}

fn heat(gpu: &ProbedGpu, before: Option<&ProbedGpu>, found: &mut Vec<Finding>) {
    let Some(celsius) = gpu.readings.temperature_celsius else { return };
    let was_hot =
        before.is_some_and(|before| before.health.iter().any(|finding| finding.code == "gpu.health.hot"));
    let reached =
        |limit: Option<u32>, margin: u32| limit.is_some_and(|l| l > 0 && celsius >= l.saturating_sub(margin));
    if reached(gpu.limits.shutdown_celsius, 0) {
        found.push(finding(Severity::Critical, "gpu.health.too-hot", "it is so hot that it shuts down"));
    }
    if reached(gpu.limits.slowdown_celsius, if was_hot { COOL } else { 0 }) {
        found.push(finding(Severity::Warning, "gpu.health.hot", "it is so hot that it slows down"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::probe::{Fabric, Limits, NvLink, Readings, RemappedRows};

    fn codes(gpu: &ProbedGpu, before: Option<&ProbedGpu>, signs: &Lifelines) -> Vec<String> {
        findings(gpu, before, signs, &Xids::default()).into_iter().map(|finding| finding.code).collect()
    }

    fn of(gpu: &ProbedGpu) -> Vec<String> {
        codes(gpu, None, &Lifelines::default())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_gpu_that_complains_of_nothing_is_healthy() {
        let signs = Lifelines { recovery: Some(0), ..Lifelines::default() };
        assert!(codes(&ProbedGpu::default(), None, &signs).is_empty());
    }

    #[test]
    fn rows_that_wait_and_rows_that_cannot_be_replaced_are_told_apart() {
        let with = |pending, failed| ProbedGpu {
            remapped_rows: Some(RemappedRows { pending, failed, ..RemappedRows::default() }),
            ..ProbedGpu::default()
        };
        assert_eq!(of(&with(true, false)), ["gpu.health.row-remap-pending"]);
        assert_eq!(of(&with(true, true)), ["gpu.health.row-remap-failed", "gpu.health.row-remap-pending"]);
        assert!(of(&with(false, false)).is_empty());
    }

    #[test]
    fn a_link_is_down_where_others_of_the_model_have_it_up() {
        let with = |model: &str, active: [bool; 2]| ProbedGpu {
            model: Some(model.into()),
            nvlinks: (0..)
                .zip(active)
                .map(|(link, active)| NvLink { link, active, ..NvLink::default() })
                .collect(),
            ..ProbedGpu::default()
        };
        let mut gpus = [
            with("a", [true, true]),
            with("a", [true, false]),
            with("b", [true, false]),
            with("c", [false, false]),
        ];
        compare_links(&mut gpus);
        let found: Vec<usize> = gpus.iter().map(|gpu| gpu.health.len()).collect();
        assert_eq!(found, [0, 1, 0, 0]);
        assert_eq!(gpus[1].health[0].code, "gpu.health.nvlink-down");
    }

    #[test]
    fn link_errors_count_by_how_fast_they_grow_and_clear_when_they_stop() {
        let with = |errors| ProbedGpu {
            readings: Readings { nvlink_errors: Some(errors), ..Readings::default() },
            ..ProbedGpu::default()
        };
        let signs = Lifelines::default();
        assert!(codes(&with(1_000_000), None, &signs).is_empty());
        assert_eq!(codes(&with(1_000_500), Some(&with(1_000_000)), &signs), ["gpu.health.nvlink-errors"]);
        assert!(codes(&with(1_000_501), Some(&with(1_000_500)), &signs).is_empty());
    }

    #[test]
    fn a_hot_gpu_stays_hot_until_it_is_well_below_its_limit() {
        let at = |celsius| ProbedGpu {
            readings: Readings { temperature_celsius: Some(celsius), ..Readings::default() },
            limits: Limits { slowdown_celsius: Some(87), shutdown_celsius: Some(92), ..Limits::default() },
            ..ProbedGpu::default()
        };
        let after = |celsius, mut before: ProbedGpu| {
            before.health = findings(&before, None, &Lifelines::default(), &Xids::default());
            codes(&at(celsius), Some(&before), &Lifelines::default())
        };
        assert_eq!(of(&at(92)), ["gpu.health.too-hot", "gpu.health.hot"]);
        assert_eq!(after(84, at(87)), ["gpu.health.hot"]);
        assert!(after(81, at(87)).is_empty());
        assert!(after(84, at(80)).is_empty());
    }

    #[test]
    fn a_fabric_that_is_joined_late_is_a_warning_and_one_that_failed_is_worse() {
        let with = |state, succeeded| ProbedGpu {
            fabric: Some(Fabric { state, succeeded, ..Fabric::default() }),
            ..ProbedGpu::default()
        };
        assert_eq!(of(&with(FabricState::InProgress, None)), ["gpu.health.fabric-not-joined"]);
        assert_eq!(of(&with(FabricState::Completed, Some(false))), ["gpu.health.fabric-failed"]);
        assert!(of(&with(FabricState::Completed, Some(true))).is_empty());
    }

    #[test]
    fn a_program_that_failed_says_nothing_about_its_gpu() {
        let mut xids = Xids::default();
        xids.record("GPU-1", 31, at(0));
        assert_eq!(xids, Xids::default());
    }

    #[test]
    fn an_xid_that_needs_a_reset_stays_until_the_driver_wants_nothing_more_or_the_gpu_was_reset() {
        let gpu = ProbedGpu { uuid: Some("GPU-1".into()), ..ProbedGpu::default() };
        let count = |xids: &Xids| findings(&gpu, None, &Lifelines::default(), xids).len();
        let mut xids = Xids::default();
        xids.record("GPU-1", 119, at(0));
        xids.settle("GPU-1", Some(1), at(1_000_000));
        xids.settle("GPU-1", None, at(1_000_000));
        assert_eq!(count(&xids), 1, "the driver still wants a reset, or does not tell");
        xids.settle("GPU-1", Some(0), at(59));
        assert_eq!(count(&xids), 1, "it has not settled");
        let mut mended = xids.clone();
        mended.settle("GPU-1", Some(0), at(60));
        assert_eq!(count(&mended), 0);
        xids.was_reset("GPU-1");
        assert_eq!(count(&xids), 0);
    }

    #[test]
    fn an_xid_that_passes_by_itself_is_forgotten() {
        let mut xids = Xids::default();
        xids.record("GPU-1", 94, at(0));
        xids.settle("GPU-1", None, at(60));
        assert_eq!(xids, Xids::default());
    }

    #[test]
    fn a_lost_gpu_is_not_judged_by_what_it_said_before() {
        let gpu = ProbedGpu {
            remapped_rows: Some(RemappedRows { pending: true, ..RemappedRows::default() }),
            ..ProbedGpu::default()
        };
        let signs = Lifelines { lost: true, ..Lifelines::default() };
        assert_eq!(codes(&gpu, None, &signs), ["gpu.health.lost"]);
    }
}
