//! The watch: what the driver reports is told at once, and is over when its cause is.

use crate::{Host, findings};
use bailiwick_gpu::{Seen, Watch, Watcher};
use domain::probe::Probe;
use nvml_stand_in::Event;
use serde_json::json;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Watches until `step` breaks off; it is called with every changed probe. Fails after a while.
fn watch(host: &mut Host, interval: Duration, mut step: impl FnMut(&mut Host, &Probe) -> ControlFlow<()>) {
    let watch = Watch { library: Some(host.installed.library()), host: host.root(), interval };
    let deadline = Instant::now() + Duration::from_secs(30);
    Watcher::new(watch).run(&mut |seen| {
        assert!(Instant::now() < deadline, "nothing more was seen");
        match seen {
            Seen::Changed(probe) => step(host, probe),
            Seen::Same(_) | Seen::Nothing => ControlFlow::Continue(()),
        }
    });
}

#[test]
fn an_xid_is_told_within_a_second_however_far_the_next_probe_is() {
    let mut host = Host::of("h100");
    let mut reported = None;
    // the next probe is an hour away: what is seen is seen by the event
    watch(&mut host, Duration::from_hours(1), |host, probe| {
        let Some(at) = reported else {
            assert!(findings(probe, 5).is_empty());
            host.gpu(5, &json!({"recoveryAction": 1}));
            host.change(|host| host.events.push(Event { gpu: 5, xid: 119 }));
            reported = Some(Instant::now());
            return ControlFlow::Continue(());
        };
        assert_eq!(findings(probe, 5), ["gpu.health.recovery-needed", "gpu.health.xid"]);
        assert!(Instant::now().duration_since(at) < Duration::from_secs(1));
        ControlFlow::Break(())
    });
}

#[test]
fn a_fault_of_a_program_is_no_fault_of_its_gpu() {
    let mut host = Host::of("h100");
    host.change(|host| host.events.push(Event { gpu: 0, xid: 31 }));
    let mut seen = 0;
    let watch = Watch {
        library: Some(host.installed.library()),
        host: host.root(),
        interval: Duration::from_hours(1),
    };
    Watcher::new(watch).run(&mut |told| {
        if let Seen::Changed(probe) | Seen::Same(probe) = told {
            assert!(findings(probe, 0).is_empty());
            seen += 1;
        }
        // the first probe, and the one that the event brings about
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
}

#[test]
fn health_that_changes_without_an_event_is_seen_at_the_next_probe_and_clears() {
    let mut host = Host::of("h100");
    let mut step = 0;
    watch(&mut host, Duration::from_millis(20), |host, probe| {
        step += 1;
        match step {
            1 => host.gpu(1, &json!({"remappedRows": {"correctable": 0, "uncorrectable": 1, "pending": true, "failed": false}})),
            2 => {
                assert_eq!(findings(probe, 1), ["gpu.health.row-remap-pending"]);
                host.gpu(1, &json!({"remappedRows": {"pending": false}}));
            }
            _ => {
                assert!(findings(probe, 1).is_empty());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    assert_eq!(step, 3);
}

#[test]
fn a_driver_that_goes_and_comes_again_is_told_as_probes_without_and_with_gpus() {
    let mut host = Host::of("h100");
    let mut step = 0;
    watch(&mut host, Duration::from_millis(20), |host, probe| {
        step += 1;
        match step {
            1 => {
                assert_eq!(probe.gpus.len(), 8);
                host.installed.unload().unwrap();
            }
            2 => {
                assert!(probe.driver.is_none() && probe.gpus.is_empty());
                assert_eq!(probe.diagnostics[0].code, "gpu.no-driver");
                host.change(|_| {});
            }
            _ => {
                assert_eq!(probe.gpus.len(), 8);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    assert_eq!(step, 3);
}

#[test]
fn a_gpu_that_cannot_report_does_not_keep_the_others_from_it() {
    let mut host = Host::of("h100");
    host.fault(&json!({"function": "nvmlDeviceRegisterEvents", "gpu": 0, "error": 15}));
    let mut first = true;
    watch(&mut host, Duration::from_hours(1), |host, probe| {
        if std::mem::take(&mut first) {
            host.change(|host| host.events.push(Event { gpu: 7, xid: 79 }));
            return ControlFlow::Continue(());
        }
        assert_eq!(findings(probe, 7), ["gpu.health.xid"]);
        ControlFlow::Break(())
    });
}

/// A driver that does not tell what is to be done leaves it to who resets the GPU.
#[test]
fn what_was_reported_before_a_reset_is_over_after_it() {
    let mut host = Host::of("h100");
    host.change(|host| {
        host.each.as_object_mut().unwrap().remove("recoveryAction");
        host.events.push(Event { gpu: 0, xid: 119 });
    });
    let uuid = host.description.gpus().unwrap()[0].gpu.uuid.clone().unwrap();
    let interval = Duration::from_hours(1);
    let mut watcher =
        Watcher::new(Watch { library: Some(host.installed.library()), host: host.root(), interval });
    let sick = |watcher: &mut Watcher, wanted: bool| {
        watcher.run(&mut |seen| match seen {
            Seen::Changed(probe) | Seen::Same(probe) if findings(probe, 0).is_empty() != wanted => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
    };
    sick(&mut watcher, true);
    watcher.tips().was_reset(&uuid);
    // the first probe of the next watch
    sick(&mut watcher, false);
}

#[test]
fn what_somebody_changed_is_probed_at_once_when_they_say_so() {
    let host = Host::of("h100");
    let interval = Duration::from_hours(1);
    let mut watcher =
        Watcher::new(Watch { library: Some(host.installed.library()), host: host.root(), interval });
    let tips = watcher.tips();
    let (mut probes, deadline) = (0, Instant::now() + Duration::from_secs(30));
    watcher.run(&mut |seen| {
        assert!(Instant::now() < deadline, "nothing more was probed");
        if matches!(seen, Seen::Nothing) {
            return ControlFlow::Continue(());
        }
        probes += 1;
        tips.changed();
        if probes == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
}

#[test]
fn a_driver_whose_every_wait_fails_is_not_probed_without_end() {
    let mut host = Host::of("h100");
    host.fault(&json!({"function": "nvmlEventSetWait_v2", "error": 15}));
    let interval = Duration::from_hours(1);
    let mut watcher =
        Watcher::new(Watch { library: Some(host.installed.library()), host: host.root(), interval });
    let (mut probes, mut waits) = (0, 0);
    watcher.run(&mut |seen| {
        match seen {
            Seen::Nothing => waits += 1,
            Seen::Changed(_) | Seen::Same(_) => probes += 1,
        }
        if waits == 3 || probes == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    // at first, and once more when waiting began to fail
    assert_eq!((probes, waits), (2, 3));
}
