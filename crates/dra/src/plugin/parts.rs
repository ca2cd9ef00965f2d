//! Parts of a GPU: MIG instances, which are made when a claim for them is prepared and destroyed by its scrub.

use super::cdi::Access;
use super::checkpoint::Partition;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// A place for a MIG instance: a profile, and the memory slices of the GPU that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// The profile's id, as NVML says it.
    pub profile: u32,
    /// The first memory slice.
    pub start: u32,
    /// How many memory slices.
    pub size: u32,
}

impl Placed {
    /// Whether both take the same memory slice.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.start.saturating_add(other.size)
            && other.start < self.start.saturating_add(self.size)
    }
}

/// A MIG instance that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its UUID, as NVML says it.
    pub uuid: String,
    /// How it gets into containers.
    pub access: Access,
}

/// Why a part of a GPU was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMade {
    /// At its very place stands an instance that was not made here, called so.
    Foreign(String),
    /// It could not be made; why. Something of it may stand there.
    Failed(String),
    /// It could not be made; why. Nothing stands at its place.
    Nothing(String),
}

impl From<String> for NotMade {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Records for good that a part is made from now on: whoever is killed after that leaves an instance of which is known whose it is.
/// Fails with the reason.
pub type Begin = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// Makes parts of GPUs.
pub trait Parts: Send + Sync + 'static {
    /// Makes the MIG instance, or finds the one that was [made](Partition::made) here. `gpu` is the physical GPU's UUID; `held` is what claims
    /// hold of it, this part included: whatever else is in the way is nobody's and may be removed. `begin` is called once the place
    /// is free, before anything is made there. May be asked again, whatever came before; for one GPU nobody makes or
    /// scrubs anything meanwhile.
    fn make<'a>(
        &'a self,
        gpu: &'a str,
        part: &'a Partition,
        held: &'a [Placed],
        begin: Begin,
    ) -> BoxFuture<'a, Result<Made, NotMade>>;
}
