//! What the kernel driver tells of MIG in `/proc`, for a test that makes a host's files.

/// GPU instances of a GPU, and compute instances of one, that the driver has device nodes for.
const GPU_INSTANCES: u32 = 15;
const COMPUTE_INSTANCES: u32 = 8;
/// After `config` and `monitor`.
const FIRST: u32 = 3;

/// The text of `/proc/driver/nvidia-caps/mig-minors` for so many GPUs. The driver writes all that there can be, made or not.
pub fn mig_minors(gpus: u32) -> String {
    let mut lines = vec!["config 1".to_owned(), "monitor 2".to_owned()];
    for (gpu, gi) in (0..gpus).flat_map(|gpu| (0..GPU_INSTANCES).map(move |gi| (gpu, gi))) {
        let [own, first] = mig_node_minors(gpu, gi, 0);
        lines.push(format!("gpu{gpu}/gi{gi}/access {own}"));
        let computes = 0..COMPUTE_INSTANCES;
        lines.extend(computes.map(|ci| format!("gpu{gpu}/gi{gi}/ci{ci}/access {}", first + ci)));
    }
    lines.join("\n") + "\n"
}

/// Minor numbers of `/dev/nvidia-caps/nvidia-cap<minor>` of a GPU instance and of a compute instance in it, by the minor number of
/// the GPU.
pub fn mig_node_minors(gpu: u32, gpu_instance: u32, compute_instance: u32) -> [u32; 2] {
    let own = FIRST + (gpu * GPU_INSTANCES + gpu_instance) * (1 + COMPUTE_INSTANCES);
    [own, own + 1 + compute_instance]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_minor_number_of_its_own() {
        let text = mig_minors(2);
        let mut minors: Vec<u32> =
            text.lines().map(|line| line.split_once(' ').unwrap().1.parse().unwrap()).collect();
        assert_eq!(minors.len(), 2 + 2 * 15 * 9);
        minors.sort_unstable();
        minors.dedup();
        assert_eq!(minors.len(), 2 + 2 * 15 * 9);
        let [gi, ci] = mig_node_minors(1, 2, 0);
        assert!(text.contains(&format!("gpu1/gi2/access {gi}\n")), "{text}");
        assert!(text.contains(&format!("gpu1/gi2/ci0/access {ci}\n")));
    }
}
