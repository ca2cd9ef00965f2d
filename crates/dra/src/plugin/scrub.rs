//! Scrubs: what makes a device fit for another tenant, and the record of it.
//!
//! The records are a file beside the checkpoint: the newest few, for the cell, which keeps all that it is told. A scrub whose record cannot
//! be written has not succeeded.

use super::checkpoint::{Held, HeldDevice};
use super::durable;
use super::parts::Placed;
use domain::agent::{MOST_SCRUBS, ScrubMethod, ScrubRecord, ScrubbedClaim};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// Makes devices fit for another tenant. For one GPU nobody makes or scrubs anything else meanwhile; any of it may be asked again,
/// whatever came before.
pub trait Scrub: Send + Sync + 'static {
    /// Succeeds when no process is left on the device and nothing of what was there can be read; a part of a GPU is destroyed, also one
    /// of which nobody knows whether it was made.
    fn scrub<'a>(&'a self, device: &'a HeldDevice) -> BoxFuture<'a, Scrubbed>;

    /// Likewise all of a physical GPU but the parts that are `held`.
    fn scrub_rest<'a>(&'a self, gpu: &'a str, held: &'a [Placed]) -> BoxFuture<'a, Scrubbed>;

    /// The physical GPUs of this host, by UUID; or why nobody can tell.
    fn gpus(&self) -> BoxFuture<'_, Result<Vec<String>, String>>;
}

/// What a scrub did, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrubbed {
    /// What was done, or was to be done.
    pub method: ScrubMethod,
    /// Uncorrected ECC errors before, where they are told.
    pub ecc_before: Option<u64>,
    /// Uncorrected ECC errors afterwards.
    pub ecc_after: Option<u64>,
    /// Why it failed.
    pub outcome: Result<(), String>,
}

impl Scrubbed {
    /// The record of it, for a device that a claim had.
    pub(super) fn of_claim(&self, uid: &str, held: &Held, device: &HeldDevice) -> ScrubRecord {
        let (namespace, name) = (held.namespace.clone(), held.name.clone());
        let claim = ScrubbedClaim { uid: uid.to_owned(), namespace, name };
        self.record(device.device.clone(), device.gpu.clone(), Some(claim))
    }

    /// The record of it, for what nobody is known to hold of a GPU.
    pub(super) fn of_rest(&self, gpu: &str) -> ScrubRecord {
        self.record(gpu.to_owned(), gpu.to_owned(), None)
    }

    fn record(&self, device: String, gpu: String, claim: Option<ScrubbedClaim>) -> ScrubRecord {
        ScrubRecord {
            at: Timestamp::now(),
            device,
            gpu,
            claim,
            method: self.method,
            ecc_before: self.ecc_before,
            ecc_after: self.ecc_after,
            failure: self.outcome.clone().err(),
        }
    }
}

/// The file of records. Whoever changes it holds the checkpoint's lock.
#[derive(Clone, Debug)]
pub(super) struct Records(pub(super) PathBuf);

impl Records {
    /// The newest, oldest first. What cannot be understood is gone; the cell has what it was told.
    pub(super) fn read(&self) -> io::Result<Vec<ScrubRecord>> {
        match std::fs::read(&self.0) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Adds some. What fails again and again for the same reason is told once.
    pub(super) fn add(&self, new: Vec<ScrubRecord>) -> io::Result<()> {
        let mut all = self.read()?;
        let before = all.len();
        for record in new {
            let last =
                all.iter().rev().find(|last| (&last.device, &last.claim) == (&record.device, &record.claim));
            if record.failure.is_none() || last.is_none_or(|last| last.failure != record.failure) {
                all.push(record);
            }
        }
        if all.len() == before {
            return Ok(());
        }
        all.drain(..all.len().saturating_sub(MOST_SCRUBS));
        durable::write(&self.0, &serde_json::to_vec(&all)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(outcome: Result<(), &str>) -> Scrubbed {
        let outcome = outcome.map_err(str::to_owned);
        Scrubbed { method: ScrubMethod::Reset, ecc_before: Some(1), ecc_after: Some(0), outcome }
    }

    #[test]
    fn the_newest_records_are_kept_and_a_failure_that_stays_is_one_record() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records(directory.path().join("scrubs.json"));
        assert!(records.read().unwrap().is_empty());
        for failure in ["busy", "busy", "gone", "busy"] {
            records.add(vec![scrubbed(Err(failure)).of_rest("GPU-1")]).unwrap();
        }
        records.add(vec![scrubbed(Err("busy")).of_rest("GPU-2"), scrubbed(Ok(())).of_rest("GPU-1")]).unwrap();
        records.add(vec![scrubbed(Ok(())).of_rest("GPU-1")]).unwrap();
        let failures = |all: &[ScrubRecord]| all.iter().map(|one| one.failure.clone()).collect::<Vec<_>>();
        let busy = Some("busy".to_owned());
        let told = failures(&records.read().unwrap());
        assert_eq!(told, [busy.clone(), Some("gone".to_owned()), busy.clone(), busy, None, None]);
        for _ in 0..MOST_SCRUBS {
            records.add(vec![scrubbed(Ok(())).of_rest("GPU-3")]).unwrap();
        }
        let all = records.read().unwrap();
        assert_eq!((all.len(), all[0].gpu.as_str()), (MOST_SCRUBS, "GPU-3"));
        std::fs::write(&records.0, "{").unwrap();
        assert!(records.read().unwrap().is_empty());
    }
}
