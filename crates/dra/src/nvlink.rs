//! Which GPUs reach each other's memory over NVLink: an attribute fit for `matchAttribute`, equal within a domain alone.

use domain::probe::{ProbedGpu, RemoteKind};
use domain::{Digest, Name};
use std::collections::{BTreeMap, BTreeSet};

/// The NVLink domain of each GPU of a machine, by its index. GPUs of a fabric that spans machines have its cluster and clique; those of
/// one baseboard, or of a bridge between cards, have a name made of the machine and the first of them. A GPU without links, or
/// one that has not joined its fabric, has none; nor have those that are linked without a switch and not each to each.
pub(crate) fn domains<'a>(
    machine: &Name,
    gpus: impl IntoIterator<Item = &'a ProbedGpu>,
) -> BTreeMap<u32, String> {
    let gpus: Vec<_> = gpus.into_iter().collect();
    let addresses: BTreeSet<_> = gpus.iter().filter_map(|gpu| address(gpu)).collect();
    let mut domains = BTreeMap::new();
    let mut boards: Vec<Board<'_>> = Vec::new();
    for gpu in gpus {
        let fabric = gpu.fabric.as_ref();
        if fabric.is_some_and(|fabric| fabric.succeeded != Some(true)) {
            continue;
        }
        let spanning = fabric.and_then(|fabric| Some((fabric.cluster_uuid.as_ref()?, fabric.clique_id?)));
        if let Some((cluster, clique)) = spanning {
            domains.insert(gpu.index, format!("{cluster}.{clique}"));
            continue;
        }
        let own = Linked::of(gpu, &addresses);
        if own.ends().next().is_none() {
            continue;
        }
        // boards that this GPU connects become one
        let (mine, others): (Vec<_>, Vec<_>) = boards.into_iter().partition(|board| board.touches(&own));
        let mut board = Board(vec![own]);
        board.0.extend(mine.into_iter().flat_map(|board| board.0));
        boards = others;
        boards.push(board);
    }
    for board in boards.iter().filter(|board| board.is_whole()) {
        let name = Digest::of(format!("{machine} {}", board.first()).as_bytes());
        let name = format!("nvlink-{}", &hex::encode(name.bytes())[..16]);
        domains.extend(board.0.iter().map(|gpu| (gpu.index, name.clone())));
    }
    domains
}

fn address(gpu: &ProbedGpu) -> Option<&str> {
    gpu.pci.address.as_deref().filter(|address| !address.is_empty())
}

/// A GPU with links that are up.
struct Linked<'a> {
    index: u32,
    /// Where it is, if the driver tells.
    address: Option<&'a str>,
    /// Switches, or what may be some.
    switches: BTreeSet<&'a str>,
    /// Other GPUs.
    peers: BTreeSet<&'a str>,
}

impl<'a> Linked<'a> {
    /// A CPU, to which some link theirs, joins nobody's memory to another's.
    fn of(gpu: &'a ProbedGpu, addresses: &BTreeSet<&str>) -> Self {
        let up = gpu.nvlinks.iter().filter(|link| link.active && link.remote_kind != Some(RemoteKind::Cpu));
        let ends = up.filter_map(|link| Some((link.remote_pci.as_deref()?, link.remote_kind)));
        let ends = ends.filter(|(end, _)| !end.is_empty());
        let (peers, switches): (Vec<_>, Vec<_>) =
            ends.partition(|(end, kind)| *kind == Some(RemoteKind::Gpu) || addresses.contains(end));
        let names = |ends: Vec<(&'a str, _)>| ends.into_iter().map(|(end, _)| end).collect();
        Self { index: gpu.index, address: address(gpu), switches: names(switches), peers: names(peers) }
    }

    fn ends(&self) -> impl Iterator<Item = &'a str> {
        self.switches.union(&self.peers).copied()
    }

    /// Whether both lead to one switch, or one leads to the other.
    fn touches(&self, other: &Self) -> bool {
        let leads = |from: &Self, to: &Self| to.address.is_some_and(|address| from.peers.contains(address));
        !self.switches.is_disjoint(&other.switches) || leads(self, other) || leads(other, self)
    }
}

/// GPUs that are connected.
struct Board<'a>(Vec<Linked<'a>>);

impl Board<'_> {
    fn touches(&self, gpu: &Linked<'_>) -> bool {
        self.0.iter().any(|ours| ours.touches(gpu))
    }

    /// Whether each reaches all others: switches see to that. Without one a GPU reaches its neighbours alone.
    fn is_whole(&self) -> bool {
        let neighbours =
            |(at, gpu): (usize, &Linked<'_>)| self.0[..at].iter().all(|other| other.touches(gpu));
        self.0.iter().any(|gpu| !gpu.switches.is_empty()) || self.0.iter().enumerate().all(neighbours)
    }

    /// What no other board of the machine has: a GPU's address, or where no GPU tells its own, a switch, or else a GPU's index. Never
    /// another GPU that one is linked to: so may be those of other boards.
    fn first(&self) -> String {
        let addresses = self.0.iter().filter_map(|gpu| gpu.address).min();
        let told = addresses.or_else(|| self.0.iter().flat_map(|gpu| gpu.switches.iter().copied()).min());
        let index = || self.0.iter().map(|gpu| gpu.index).min().unwrap_or_default().to_string();
        told.map_or_else(index, str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::probe::{Fabric, FabricState, NvLink, Pci};

    fn gpu(index: u32, ends: &[&str]) -> ProbedGpu {
        let link = |end: &&str| NvLink { active: true, remote_pci: Some((*end).into()), ..NvLink::default() };
        ProbedGpu {
            index,
            pci: Pci { address: Some(format!("0000:0{index}:00.0")), ..Pci::default() },
            nvlinks: ends.iter().map(link).collect(),
            ..ProbedGpu::default()
        }
    }

    fn of(gpus: &[ProbedGpu]) -> BTreeMap<u32, String> {
        domains(&Name::new("m").unwrap(), gpus)
    }

    #[test]
    fn gpus_of_one_switch_are_of_one_domain_in_whatever_order_they_come() {
        let gpus = [gpu(0, &["s1"]), gpu(1, &["s2"]), gpu(2, &["s1", "s2"]), gpu(3, &["s3"]), gpu(4, &[])];
        let found = of(&gpus);
        assert!(found[&0] == found[&1] && found[&1] == found[&2] && found[&2] != found[&3]);
        assert_eq!(found.get(&4), None);
        let mut turned = gpus.to_vec();
        turned.reverse();
        assert_eq!(of(&turned), found);
    }

    #[test]
    fn cards_with_a_bridge_between_them_are_of_one_domain() {
        let found = of(&[
            gpu(0, &["0000:01:00.0"]),
            gpu(1, &["0000:00:00.0"]),
            gpu(2, &["0000:03:00.0"]),
            gpu(3, &["0000:02:00.0"]),
        ]);
        assert!(found[&0] == found[&1] && found[&2] == found[&3] && found[&0] != found[&2]);
    }

    #[test]
    fn boards_whose_gpus_do_not_tell_their_addresses_are_never_taken_for_one() {
        let mut gpus = [gpu(0, &["s1"]), gpu(1, &["s1"]), gpu(2, &["s2"]), gpu(3, &["s2"]), gpu(4, &["s2"])];
        for without in [vec![0, 2], vec![0, 1, 2, 3, 4]] {
            for at in without {
                gpus[at].pci.address = None;
            }
            let found = of(&gpus);
            assert!(found[&0] == found[&1] && found[&2] == found[&3] && found[&3] == found[&4], "{found:?}");
            assert_ne!(found[&0], found[&2]);
            let other = domains(&Name::new("n").unwrap(), &gpus);
            assert!(found.values().all(|name| other.values().all(|other| other != name)));
        }
        // Each of two bridges has one card that tells, and nobody knows to which other it leads.
        let mut cards = [gpu(0, &["0000:01:00.0"]), gpu(1, &[]), gpu(2, &["0000:03:00.0"]), gpu(3, &[])];
        for card in &mut cards {
            card.pci.address = None;
        }
        let found = of(&cards);
        assert_ne!(found[&0], found[&2]);
    }

    #[test]
    fn a_cpu_that_two_gpus_are_linked_to_does_not_make_them_reach_each_other() {
        let mut gpus = [gpu(0, &["cpu"]), gpu(1, &["cpu"])];
        for link in gpus.iter_mut().flat_map(|gpu| &mut gpu.nvlinks) {
            link.remote_kind = Some(RemoteKind::Cpu);
        }
        assert!(of(&gpus).is_empty());
    }

    #[test]
    fn gpus_that_are_linked_in_a_ring_are_of_no_domain_and_each_to_each_of_one() {
        let at = |index: u32| format!("0000:0{index}:00.0");
        let linked = |index: u32, to: &[u32]| {
            let ends: Vec<_> = to.iter().map(|to| at(*to)).collect();
            gpu(index, &ends.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let ring = [linked(0, &[1, 3]), linked(1, &[0, 2]), linked(2, &[1, 3]), linked(3, &[2, 0])];
        assert!(of(&ring).is_empty());
        let mesh = [linked(0, &[1, 2]), linked(1, &[0, 2]), linked(2, &[0, 1])];
        let found = of(&mesh);
        assert!(found.len() == 3 && found[&0] == found[&1] && found[&1] == found[&2], "{found:?}");
        // Two that lead to a third, which is not there, and not to each other.
        let mut apart = [linked(0, &[5]), linked(1, &[5])];
        for link in apart.iter_mut().flat_map(|gpu| &mut gpu.nvlinks) {
            link.remote_kind = Some(RemoteKind::Gpu);
        }
        let found = of(&apart);
        assert_ne!(found[&0], found[&1]);
    }

    #[test]
    fn gpus_that_do_not_tell_where_they_are_share_no_name_for_being_linked_to_the_same_gpu() {
        let ring = [[1, 3], [0, 2], [1, 3], [0, 2]].map(|to| to.map(|to| format!("0000:0{to}:00.0")));
        let mut gpus: Vec<_> =
            (0..).zip(&ring).map(|(index, ends)| gpu(index, &[&ends[0], &ends[1]])).collect();
        for gpu in &mut gpus {
            gpu.pci.address = None;
            gpu.nvlinks.iter_mut().for_each(|link| link.remote_kind = Some(RemoteKind::Gpu));
        }
        let found = of(&gpus);
        assert_eq!(found.values().collect::<BTreeSet<_>>().len(), 4, "{found:?}");
    }

    #[test]
    fn a_fabric_that_spans_machines_is_told_by_its_cluster_and_clique_once_it_is_joined() {
        let fabric = |succeeded| {
            Some(Fabric {
                cluster_uuid: Some("c".into()),
                clique_id: Some(7),
                state: FabricState::Completed,
                succeeded,
            })
        };
        let joined = ProbedGpu { fabric: fabric(Some(true)), ..gpu(0, &[]) };
        let failed = ProbedGpu { fabric: fabric(Some(false)), ..gpu(1, &["s"]) };
        assert_eq!(of(&[joined, failed]), BTreeMap::from([(0, "c.7".to_owned())]));
    }
}
