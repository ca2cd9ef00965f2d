//! A drawing of how the GPUs of a machine are connected, for people. Pure.

use crate::probe::{ProbedGpu, RemoteKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The GPUs below their NUMA nodes and PCI roots, then how many NVLinks each has to whom. Lines end without spaces.
pub fn draw(gpus: &[ProbedGpu]) -> String {
    let mut text = tree(gpus);
    let links = links(gpus);
    if !links.is_empty() {
        text.push('\n');
        text.push_str(&links);
    }
    text
}

/// GPUs by their PCI root.
type Roots<'a> = BTreeMap<&'a str, Vec<&'a ProbedGpu>>;

fn tree(gpus: &[ProbedGpu]) -> String {
    let mut nodes: BTreeMap<(bool, Option<u32>), Roots<'_>> = BTreeMap::new();
    for gpu in gpus {
        let root = gpu.pci.root.as_deref().unwrap_or("PCI root not known");
        // the node that is not known comes last
        let node = nodes.entry((gpu.numa_node.is_none(), gpu.numa_node)).or_default();
        node.entry(root).or_default().push(gpu);
    }
    let mut text = String::new();
    for ((_, node), roots) in nodes {
        let _ = match node {
            Some(node) => writeln!(text, "NUMA node {node}"),
            None => writeln!(text, "NUMA node not known"),
        };
        branches(&mut text, "", roots.into_iter().collect(), |text, indent, (root, gpus)| {
            let _ = writeln!(text, "{root}");
            branches(text, indent, gpus, |text, _, gpu| {
                let address = gpu.pci.address.as_deref().unwrap_or("address not known");
                let model = gpu.model.as_deref().unwrap_or("model not known");
                let _ = writeln!(text, "GPU {}  {address}  {model}", gpu.index);
            });
        });
    }
    text
}

/// Draws each thing at the end of its branch; what is below it gets the indentation that keeps the trunk in line.
fn branches<T>(text: &mut String, indent: &str, things: Vec<T>, mut draw: impl FnMut(&mut String, &str, T)) {
    let last = things.len().saturating_sub(1);
    for (at, thing) in things.into_iter().enumerate() {
        let (branch, trunk) = if at == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        text.push_str(indent);
        text.push_str(branch);
        draw(text, &format!("{indent}{trunk}"), thing);
    }
}

/// One row a GPU, one column an other end; a cell is the number of links that are up.
fn links(gpus: &[ProbedGpu]) -> String {
    let names: BTreeMap<&str, String> = gpus
        .iter()
        .filter_map(|gpu| Some((gpu.pci.address.as_deref()?, format!("GPU {}", gpu.index))))
        .collect();
    let end = |link: &crate::probe::NvLink| match (&link.remote_pci, link.remote_kind) {
        (Some(address), kind) => names.get(address.as_str()).cloned().unwrap_or_else(|| match kind {
            Some(kind) => format!("{} {address}", word(kind)),
            None => address.clone(),
        }),
        (None, Some(kind)) => word(kind).to_owned(),
        (None, None) => "not known".to_owned(),
    };
    let counts: Vec<BTreeMap<String, usize>> = gpus
        .iter()
        .map(|gpu| {
            let mut counts = BTreeMap::new();
            for link in gpu.nvlinks.iter().filter(|link| link.active) {
                *counts.entry(end(link)).or_default() += 1;
            }
            counts
        })
        .collect();
    let ends: Vec<&String> =
        counts.iter().flat_map(BTreeMap::keys).collect::<BTreeSet<_>>().into_iter().collect();
    let down = |gpu: &ProbedGpu| gpu.nvlinks.iter().filter(|link| !link.active).count();
    let any_down = gpus.iter().any(|gpu| down(gpu) > 0);
    if ends.is_empty() && !any_down {
        return String::new();
    }
    let first =
        gpus.iter().map(|gpu| format!("GPU {}", gpu.index).len()).max().unwrap_or(0).max("NVLinks".len());
    let mut text = format!("{:<first$}", "NVLinks");
    for end in &ends {
        let _ = write!(text, "  {end}");
    }
    text.push_str(if any_down { "  down\n" } else { "\n" });
    for (gpu, counts) in gpus.iter().zip(&counts) {
        let mut line = format!("{:<first$}", format!("GPU {}", gpu.index));
        for end in &ends {
            let count = counts.get(*end).map_or_else(|| "·".to_owned(), ToString::to_string);
            let _ = write!(line, "  {count:>width$}", width = end.chars().count());
        }
        if any_down {
            let _ = write!(line, "  {:>4}", down(gpu));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn word(kind: RemoteKind) -> &'static str {
    match kind {
        RemoteKind::Gpu => "GPU",
        RemoteKind::Switch => "switch",
        RemoteKind::Cpu => "CPU",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{NvLink, Pci};

    fn gpu(index: u32, numa_node: Option<u32>, root: &str, links: Vec<NvLink>) -> ProbedGpu {
        ProbedGpu {
            index,
            model: Some("M".into()),
            numa_node,
            pci: Pci {
                address: Some(format!("0000:0{index}:00.0")),
                root: Some(root.into()),
                ..Pci::default()
            },
            nvlinks: links,
            ..ProbedGpu::default()
        }
    }

    fn link(link: u32, to: Option<&str>) -> NvLink {
        let kind = to.map(|_| RemoteKind::Switch);
        NvLink { link, active: to.is_some(), remote_pci: to.map(str::to_owned), remote_kind: kind }
    }

    #[test]
    fn gpus_hang_below_their_numa_node_and_pci_root() {
        let gpus = [
            gpu(0, Some(1), "pci0000:15", vec![]),
            gpu(1, Some(0), "pci0000:05", vec![]),
            gpu(2, Some(0), "pci0000:05", vec![]),
            gpu(3, None, "pci0000:05", vec![]),
        ];
        let expected = "\
NUMA node 0
└─ pci0000:05
   ├─ GPU 1  0000:01:00.0  M
   └─ GPU 2  0000:02:00.0  M
NUMA node 1
└─ pci0000:15
   └─ GPU 0  0000:00:00.0  M
NUMA node not known
└─ pci0000:05
   └─ GPU 3  0000:03:00.0  M
";
        assert_eq!(draw(&gpus), expected);
    }

    #[test]
    fn links_are_counted_by_their_other_end_and_those_that_are_down_are_shown() {
        let to = |n: u32| format!("0000:0{n}:00.0");
        let gpus = [
            gpu(0, Some(0), "r", vec![link(0, Some(&to(1))), link(1, Some("0000:aa:00.0")), link(2, None)]),
            gpu(1, Some(0), "r", vec![link(0, Some(&to(0)))]),
        ];
        let text = draw(&gpus);
        let matrix = text.split_once("\n\n").unwrap().1;
        let expected = "\
NVLinks  GPU 0  GPU 1  switch 0000:aa:00.0  down
GPU 0        ·      1                    1     1
GPU 1        1      ·                    ·     0
";
        assert_eq!(matrix, expected);
    }

    #[test]
    fn a_machine_without_links_has_no_matrix() {
        assert!(!draw(&[gpu(0, None, "r", vec![])]).contains("NVLinks"));
        assert_eq!(draw(&[]), "");
    }
}
