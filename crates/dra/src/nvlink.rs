//! Which GPUs reach each other's memory over NVLink: an attribute fit for `matchAttribute`, equal within a domain alone.

use domain::probe::ProbedGpu;
use domain::{Digest, Name};
use std::collections::BTreeMap;

/// The NVLink domain of each GPU of a machine, by its index. GPUs of a fabric that spans machines have its cluster and clique; those of
/// one baseboard, or of a bridge between cards, have a name made of the machine and the first of them. A GPU without links, or
/// one that has not joined its fabric, has none.
pub(crate) fn domains<'a>(
    machine: &Name,
    gpus: impl IntoIterator<Item = &'a ProbedGpu>,
) -> BTreeMap<u32, String> {
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
        let mut own = Board::of(gpu);
        if own.ends.is_empty() {
            continue;
        }
        // boards that this GPU connects become one
        let (mine, others): (Vec<_>, Vec<_>) = boards.into_iter().partition(|board| board.touches(&own));
        for board in mine {
            own.take(board);
        }
        boards = others;
        boards.push(own);
    }
    for board in boards {
        let first = board.gpus.iter().map(|(_, address)| *address).min().unwrap_or_default();
        let name = Digest::of(format!("{machine} {first}").as_bytes());
        let name = format!("nvlink-{}", &hex::encode(name.bytes())[..16]);
        domains.extend(board.gpus.into_iter().map(|(index, _)| (index, name.clone())));
    }
    domains
}

/// GPUs that are connected, and what their links lead to, each end once.
struct Board<'a> {
    gpus: Vec<(u32, &'a str)>,
    ends: Vec<&'a str>,
}

impl<'a> Board<'a> {
    fn of(gpu: &'a ProbedGpu) -> Self {
        let mut ends = Vec::new();
        for end in gpu.nvlinks.iter().filter(|link| link.active).filter_map(|link| link.remote_pci.as_deref())
        {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        Self { gpus: vec![(gpu.index, gpu.pci.address.as_deref().unwrap_or_default())], ends }
    }

    fn take(&mut self, other: Self) {
        self.gpus.extend(other.gpus);
        self.ends.extend(other.ends.into_iter().filter(|end| !self.ends.contains(end)).collect::<Vec<_>>());
    }

    /// Whether both lead to one switch, or one leads to the other.
    fn touches(&self, other: &Self) -> bool {
        let leads =
            |from: &Self, to: &Self| from.ends.iter().any(|end| to.gpus.iter().any(|(_, own)| own == end));
        self.ends.iter().any(|end| other.ends.contains(end)) || leads(self, other) || leads(other, self)
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
