//! Which devices of a machine its agent may hand out, and for how long.

use super::authority::failed;
use crate::error::CellError;
use crate::gpus;
use crate::world::{KnownMachine, World};
use domain::gpu_views::ReconciledGpu;
use domain::permit::{Partition, Permit, Permits, PublicKey, SignedPermits};
use domain::{MachineState, Name, Partitions};
use dra::GpuKey;
use jiff::Timestamp;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use std::time::Duration;
use store::{Authority, AuthorityKey, Store, Zeroizing};

/// Signs permits.
pub(super) struct Signer {
    pair: KeyPair,
    key: PublicKey,
}

impl Signer {
    /// The cell's key; made the first time.
    pub(super) async fn load(store: &Store) -> Result<Self, CellError> {
        let kept = if let Some(kept) = store.authority(Authority::Permits).await? {
            kept
        } else {
            let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
            let key = Zeroizing::new(pair.serialize_pem());
            store.keep_authority(Authority::Permits, AuthorityKey { certificate: None, key }).await?
        };
        let pair = KeyPair::from_pem(&kept.key).map_err(failed)?;
        let key = pair.der_bytes().try_into().map_err(failed)?;
        Ok(Self { pair, key: PublicKey::new(key) })
    }

    /// What agents verify with.
    pub(super) fn key(&self) -> PublicKey {
        self.key
    }

    pub(super) fn sign(&self, permits: &Permits) -> Result<SignedPermits, CellError> {
        SignedPermits::seal(permits, |bytes| self.pair.sign(bytes)).map_err(failed)
    }
}

/// The permits of a machine: none unless it is in service, in good standing, its agent reports, and what it has is published
/// (DESIGN §3.1: inside the cell's jurisdiction; by our own driver); then one for each GPU that its views agree on. A machine that
/// nobody knows has none.
pub(super) fn permits(world: &World, machine: &Name, now: Timestamp, life: Duration) -> Permits {
    let end = now.checked_add(life).unwrap_or(now);
    let known = world.machines.get(machine).filter(|known| is_open(known) && world.publishes(known));
    let permits = known.into_iter().flat_map(|known| {
        let gpus = world.reconciled().of_machine(machine).iter();
        gpus.flat_map(|gpu| devices(gpu, &known.spec.partitions)).map(|(device, gpu, partition)| Permit {
            device,
            gpu,
            partition,
            verdict: None,
            valid_until: end,
        })
    });
    Permits { machine: machine.clone(), issued: now, permits: permits.collect() }
}

fn is_open(known: &KnownMachine) -> bool {
    known.record.state == MachineState::InService
        && known.alarms().is_empty()
        && known.agent.as_ref().is_some_and(|agent| agent.alive)
}

/// The devices that a GPU is, whole or in its declared partitions, with its UUID as NVML writes it; none unless all views of it
/// agree and it is fit for use.
fn devices(gpu: &ReconciledGpu, declared: &[Partitions]) -> Vec<(Name, String, Option<Partition>)> {
    let Some(probed) = gpus::confirmed(gpu).filter(|probed| !gpus::is_unfit(probed)) else {
        return Vec::new();
    };
    let Some(key) = gpu.redfish.as_ref().and_then(GpuKey::of) else { return Vec::new() };
    let Some(uuid) = &probed.uuid else { return Vec::new() };
    let devices = dra::devices(&key, probed, declared).into_iter();
    devices.filter_map(|(device, part)| Some((Name::new(device).ok()?, uuid.clone(), part))).collect()
}
