//! What it costs to render a fleet of 10,000 GPUs: as a BMC lists them, as their drivers tell of them, and in all their partitions.
#![allow(clippy::unwrap_used, reason = "a fleet that cannot be made is no fleet to measure")]

mod fleet;

use bailiwick_dra::{Object, publish, reconcile};
use criterion::{Criterion, criterion_group, criterion_main};
use fleet::{MACHINES, inventoried, probed};
use std::cell::OnceCell;

fn render(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("10,000 GPUs");
    group.sample_size(20);
    for kind in ["inventoried", "probed", "with all partitions"] {
        // Made when it is measured: the last is large.
        let input = OnceCell::new();
        let input = || {
            input.get_or_init(|| match kind {
                "inventoried" => inventoried(),
                "probed" => probed(0, &[]),
                _ => probed(MACHINES, &["*"]),
            })
        };
        group.bench_function(format!("{kind}: publish"), |bench| {
            let input = input();
            bench.iter(|| publish(input));
        });
        group.bench_function(format!("{kind}: reconcile, nothing to do"), |bench| {
            let output = publish(input());
            let existing: Vec<_> = output.observed.iter().map(Object::json).collect();
            bench.iter(|| reconcile(&existing, &output.observed));
        });
    }
}

criterion_group!(benches, render);
criterion_main!(benches);
