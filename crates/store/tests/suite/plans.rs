//! Plans are kept, and applied once, as a whole or not at all.

use crate::bench::{Bench, name, world};
use domain::{Kind, MachineState};

pub(crate) async fn a_plan_is_applied_as_a_whole(bench: Bench) {
    let applied = bench.apply(&world(&["m1", "m2"]), &[("m1", "hunter2"), ("m2", "hunter3")]).await;
    assert!(!applied.already);
    assert_eq!(applied.changes.len(), 5);
    assert_eq!(bench.store.declarations().await.unwrap().len(), 5);
    let machine = bench.store.machine(&name("m1")).await.unwrap().unwrap();
    assert_eq!(machine.state, MachineState::Declared);
    assert_eq!(bench.store.credentials(&name("m2")).await.unwrap().unwrap().as_str(), "hunter3");
    assert!(bench.store.declaration(Kind::Site, &name("fra1")).await.unwrap().is_some());
    assert_eq!(bench.kinds(0).await.last().unwrap(), "plan.applied");
}
