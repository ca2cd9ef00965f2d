use super::*;
use crate::inventory::{ComponentCertificate, ComponentIntegrity};
use crate::probe::Pci;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn given(redfish: Given, spdm: Given, nvml: Given) -> GpuViews {
    GpuViews { redfish, spdm, nvml }
}

/// What most servers give.
const REDFISH_AND_NVML: Option<GpuViews> =
    Some(GpuViews { redfish: Given::Expected, spdm: Given::NotAvailable, nvml: Given::Expected });

fn uuid(n: u32) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

fn bmc(n: u32) -> Gpu {
    Gpu {
        model: Some("H100 80GB HBM3".into()),
        serial: Some(format!("S{n}")),
        uuid: Some(uuid(n)),
        location: Some(format!("GPU_SXM_{n}")),
        sources: vec![format!("/redfish/v1/Chassis/HGX_GPU_SXM_{n}")],
        ..Gpu::default()
    }
}

fn driver(n: u32) -> ProbedGpu {
    ProbedGpu {
        uuid: Some(format!("GPU-{}", uuid(n))),
        index: n,
        model: Some("NVIDIA H100 80GB HBM3".into()),
        serial: Some(format!("S{n}")),
        module_id: Some(n),
        pci: Pci { address: Some(format!("0000:{n:02x}:00.0")), ..Pci::default() },
        ..ProbedGpu::default()
    }
}

/// The certificate of the root of trust beside a GPU: its serial number is its own.
fn guardian(n: u32) -> SpdmGpu {
    SpdmGpu {
        component: format!("/redfish/v1/Chassis/HGX_ERoT_GPU_SXM_{n}"),
        protects: bmc(n).sources,
        serial: Some(format!("E{n}")),
        sha256: Some(Digest::of(&n.to_be_bytes())),
        ..SpdmGpu::default()
    }
}

/// A GPU's own certificate, of which the BMC says that the GPU has it.
fn certificate(n: u32) -> SpdmGpu {
    SpdmGpu {
        component: bmc(n).sources[0].clone(),
        protects: Vec::new(),
        serial: Some(format!("S{n}")),
        ..guardian(n)
    }
}

/// One machine whose model gives all views.
fn with_certificates(redfish: &[Gpu], spdm: Option<&[SpdmGpu]>, nvml: &[ProbedGpu]) -> Vec<ReconciledGpu> {
    let machine = name("m");
    let given = Some(given(Given::Expected, Given::Expected, Given::Expected));
    let views = MachineViews { machine: &machine, given, redfish: Some(redfish), spdm, nvml: Some(nvml) };
    reconcile(&[views], &Accepted::new())
}

/// What BMC and driver of a machine show that has no certificates.
fn views<'a>(machine: &'a Name, redfish: &'a [Gpu], nvml: &'a [ProbedGpu]) -> MachineViews<'a> {
    MachineViews { machine, given: REDFISH_AND_NVML, redfish: Some(redfish), spdm: None, nvml: Some(nvml) }
}

/// One machine that shows no certificates.
fn one(redfish: &[Gpu], nvml: Option<&[ProbedGpu]>) -> Vec<ReconciledGpu> {
    let machine = name("m");
    let views =
        MachineViews { machine: &machine, given: REDFISH_AND_NVML, redfish: Some(redfish), spdm: None, nvml };
    reconcile(&[views], &Accepted::new())
}

fn codes(gpu: &ReconciledGpu) -> Vec<&'static str> {
    gpu.conflicts.iter().map(Conflict::code).collect()
}

#[test]
fn views_that_agree_make_a_probed_gpu() {
    let gpus = one(&[bmc(1), bmc(2)], Some(&[driver(2), driver(1)]));
    assert_eq!(gpus.len(), 2);
    assert!(gpus.iter().all(|gpu| gpu.state == GpuState::Probed), "{gpus:?}");
}

#[test]
fn without_a_report_of_the_agent_a_gpu_is_inventoried_and_nothing_is_missing() {
    let gpus = one(&[bmc(1)], None);
    assert_eq!((gpus[0].state, codes(&gpus[0])), (GpuState::Inventoried, vec![]));
}

#[test]
fn a_gpu_that_the_driver_does_not_show_is_missing_and_one_that_it_alone_shows_is_unexpected() {
    let gpus = one(&[bmc(1), bmc(2)], Some(&[driver(1), driver(3)]));
    let found: Vec<_> = gpus.iter().map(|gpu| (gpu.state, codes(gpu))).collect();
    assert_eq!(
        found,
        [
            (GpuState::Probed, vec![]),
            (GpuState::Conflicting, vec!["gpu.conflict.missing"]),
            (GpuState::Conflicting, vec!["gpu.conflict.unexpected"]),
        ]
    );
}

#[test]
fn another_board_in_the_same_place_is_found_by_its_serial_number() {
    let other = ProbedGpu { serial: Some("X".into()), uuid: Some(format!("GPU-{}", uuid(9))), ..driver(2) };
    let gpus = one(&[bmc(1), bmc(2)], Some(&[driver(1), other]));
    assert_eq!(codes(&gpus[1]), ["gpu.conflict.serial-differs", "gpu.conflict.uuid-differs"]);
}

#[test]
fn uuids_of_another_kind_are_no_conflict_where_serial_numbers_agree() {
    let odd = |n| Gpu { uuid: Some(format!("ffff000{n}")), ..bmc(n) };
    let gpus = one(&[odd(1), odd(2)], Some(&[driver(1), driver(2)]));
    assert!(gpus.iter().all(|gpu| gpu.state == GpuState::Probed), "{gpus:?}");
}

#[test]
fn one_uuid_that_differs_where_others_agree_is_a_conflict() {
    let odd = Gpu { uuid: Some(uuid(9)), ..bmc(2) };
    let gpus = one(&[bmc(1), odd], Some(&[driver(1), driver(2)]));
    assert_eq!(gpus[0].state, GpuState::Probed);
    assert_eq!(codes(&gpus[1]), ["gpu.conflict.uuid-differs"]);
}

#[test]
fn gpus_of_one_board_share_its_serial_number_and_are_told_apart_by_their_uuids() {
    let shared = |n| Gpu { serial: Some("B".into()), ..bmc(n) };
    let seen = |n| ProbedGpu { serial: Some("B".into()), ..driver(n) };
    let gpus = one(&[shared(1), shared(2)], Some(&[seen(2), seen(1)]));
    assert!(gpus.iter().all(|gpu| gpu.state == GpuState::Probed), "{gpus:?}");
}

#[test]
fn a_view_that_shows_a_gpu_without_saying_who_it_is_confirms_nothing() {
    let bare = Gpu { serial: None, uuid: None, ..bmc(1) };
    let gpus = one(&[bare], Some(&[driver(1)]));
    assert_eq!(gpus.len(), 1, "joined by position");
    assert_eq!(codes(&gpus[0]), ["gpu.conflict.unidentified"]);
}

#[test]
fn another_model_and_another_address_are_told() {
    let other = Gpu { model: Some("H200".into()), pci_address: Some("0000:AA:00.0".into()), ..bmc(1) };
    let gpus = one(&[other], Some(&[driver(1)]));
    assert_eq!(codes(&gpus[0]), ["gpu.conflict.address-differs", "gpu.conflict.model-differs"]);
}

#[test]
fn two_gpus_that_say_they_are_one_are_both_kept_out() {
    let twin = ProbedGpu { uuid: driver(1).uuid, ..driver(2) };
    let gpus = one(&[bmc(1), bmc(2)], Some(&[driver(1), twin]));
    assert!(gpus.iter().all(|gpu| codes(gpu).contains(&"gpu.conflict.repeated")), "{gpus:?}");
}

#[test]
fn a_model_that_no_profile_tells_of_is_never_probed() {
    let (machine, redfish, nvml) = (name("m"), [bmc(1)], [driver(1)]);
    let views = MachineViews {
        machine: &machine,
        given: None,
        redfish: Some(&redfish),
        spdm: None,
        nvml: Some(&nvml),
    };
    assert_eq!(reconcile(&[views], &Accepted::new())[0].state, GpuState::Inventoried);
}

#[test]
fn a_certificate_of_its_own_joins_by_its_subject_and_one_beside_it_by_what_that_protects() {
    for certificates in [[certificate(2), certificate(1)], [guardian(2), guardian(1)]] {
        let gpus = with_certificates(&[bmc(1), bmc(2)], Some(&certificates), &[driver(1), driver(2)]);
        assert_eq!(gpus.len(), 2);
        assert!(gpus.iter().all(|gpu| gpu.state == GpuState::Probed), "{gpus:?}");
        let digests: Vec<_> = gpus.iter().map(|gpu| gpu.spdm.as_ref().unwrap().sha256).collect();
        assert_eq!(digests, [guardian(1).sha256, guardian(2).sha256]);
    }
}

#[test]
fn a_certificate_is_waited_for_and_then_missed_where_the_model_has_one() {
    let with = |spdm| with_certificates(&[bmc(1)], spdm, &[driver(1)]).remove(0);
    assert_eq!(with(None).state, GpuState::Inventoried, "not asked yet");
    assert_eq!(codes(&with(Some(&[]))), ["gpu.conflict.missing"]);
}

#[test]
fn a_certificate_that_names_somebody_else_or_cannot_be_read_is_a_conflict() {
    let with = |spdm: SpdmGpu| codes(&with_certificates(&[bmc(1)], Some(&[spdm]), &[driver(1)])[0]);
    let forged = SpdmGpu { serial: Some("X".into()), ..certificate(1) };
    assert_eq!(with(forged), ["gpu.conflict.serial-differs"]);
    let broken = SpdmGpu { serial: None, sha256: None, ..guardian(1) };
    assert_eq!(with(broken), ["gpu.conflict.unreadable"]);
    let elsewhere = SpdmGpu { protects: bmc(2).sources, component: "/other".into(), ..certificate(1) };
    assert_eq!(with(elsewhere), ["gpu.conflict.path-differs"]);
}

#[test]
fn two_certificates_of_one_gpu_and_one_of_two_gpus_are_conflicts() {
    let two = SpdmGpu { component: "/other".into(), sha256: Some(Digest::of(b"x")), ..guardian(1) };
    let gpus = with_certificates(&[bmc(1)], Some(&[guardian(1), two]), &[driver(1)]);
    let gpu = gpus.iter().find(|gpu| gpu.redfish.is_some()).unwrap();
    assert_eq!(codes(gpu), ["gpu.conflict.repeated"]);
    let shared = SpdmGpu { sha256: guardian(1).sha256, ..guardian(2) };
    let gpus = with_certificates(&[bmc(1), bmc(2)], Some(&[guardian(1), shared]), &[driver(1), driver(2)]);
    assert!(gpus.iter().all(|gpu| codes(gpu) == ["gpu.conflict.repeated"]), "{gpus:?}");
}

#[test]
fn the_certificate_of_a_root_of_trust_confirms_nothing_where_the_bmc_does_not_either() {
    let (machine, nvml, spdm) = (name("m"), [driver(1)], [guardian(1)]);
    let given = Some(given(Given::NotAvailable, Given::Expected, Given::Expected));
    let bare = [Gpu { serial: None, uuid: None, ..bmc(1) }];
    let views =
        MachineViews { machine: &machine, given, redfish: Some(&bare), spdm: Some(&spdm), nvml: Some(&nvml) };
    assert_ne!(reconcile(&[views], &Accepted::new())[0].state, GpuState::Probed);
}

#[test]
fn of_all_certificates_of_a_machine_those_count_that_speak_of_its_gpus() {
    let part = |id: &str, protects: &str| ComponentIntegrity {
        id: id.into(),
        kind: Some("SPDM".into()),
        enabled: Some(true),
        target: Some(format!("/redfish/v1/Chassis/{id}")),
        protects: vec![protects.into()],
        certificate: Some(ComponentCertificate::default()),
        ..ComponentIntegrity::default()
    };
    let of_gpu = part("HGX_ERoT_GPU_SXM_1", &bmc(1).sources[0]);
    let off = ComponentIntegrity { enabled: Some(false), ..part("x", &bmc(1).sources[0]) };
    let tpm = ComponentIntegrity { kind: Some("TPM".into()), ..part("y", &bmc(1).sources[0]) };
    let switch = part("HGX_ERoT_NVSwitch_0", "/redfish/v1/Fabrics/HGX_NVLinkFabric_0/Switches/NVSwitch_0");
    let found = certificates(&[of_gpu, off, tpm, switch], &[bmc(1)]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].component.as_str(), found[0].sha256),
        ("/redfish/v1/Chassis/HGX_ERoT_GPU_SXM_1", None)
    );
}

#[test]
fn certificates_alone_confirm_where_the_bmc_tells_nothing_of_its_gpus() {
    let (machine, nvml, spdm) = (name("m"), [driver(1)], [certificate(1)]);
    let given = Some(given(Given::NotAvailable, Given::Expected, Given::Expected));
    let views =
        MachineViews { machine: &machine, given, redfish: Some(&[]), spdm: Some(&spdm), nvml: Some(&nvml) };
    assert_eq!(reconcile(&[views], &Accepted::new())[0].state, GpuState::Probed);
}

/// Two machines whose GPU 1 and 2 were exchanged, as the drivers see and the BMCs do not yet.
#[test]
fn gpus_swapped_between_two_machines_are_found_in_both() {
    let (a, b) = (name("a"), name("b"));
    let (of_a, of_b, in_a, in_b) = ([bmc(1)], [bmc(2)], [driver(2)], [driver(1)]);
    let gpus = reconcile(&[views(&a, &of_a, &in_a), views(&b, &of_b, &in_b)], &Accepted::new());
    for machine in [&a, &b] {
        let moved =
            gpus.iter().filter(|gpu| gpu.machine == *machine && codes(gpu).contains(&"gpu.conflict.moved"));
        assert_eq!(moved.count(), 1, "{gpus:?}");
    }
    assert!(gpus.iter().all(|gpu| gpu.state == GpuState::Conflicting));
}

#[test]
fn a_gpu_that_was_accepted_elsewhere_is_kept_out_though_all_its_views_agree() {
    let (machine, redfish, nvml) = (name("b"), [bmc(1)], [driver(1)]);
    let views = views(&machine, &redfish, &nvml);
    let accepted = |machine: &str| Accepted::from_iter([accepted(machine, &bmc(1), None)]);
    assert_eq!(reconcile(&[views], &accepted("b"))[0].state, GpuState::Probed);
    let elsewhere = reconcile(&[views], &accepted("a")).remove(0);
    assert_eq!(elsewhere.conflicts, [Conflict::Moved { machine: name("a") }]);
    assert_eq!(elsewhere.state, GpuState::Conflicting);
}

fn accepted(machine: &str, gpu: &Gpu, spdm: Option<&SpdmGpu>) -> AcceptedGpu {
    AcceptedGpu { machine: name(machine), identities: identities(Some(gpu), spdm, None) }
}

#[test]
fn what_a_driver_alone_says_makes_no_other_machines_gpu_doubtful() {
    let (a, b, of_a, in_a, in_b) = (name("a"), name("b"), [bmc(1)], [driver(1)], [driver(1)]);
    let own = accepted("a", &bmc(1), None);
    for accepted in [Accepted::new(), Accepted::from_iter([own])] {
        let gpus = reconcile(&[views(&a, &of_a[..], &in_a[..]), views(&b, &[], &in_b)], &accepted);
        let states: Vec<_> = gpus.iter().map(|gpu| (gpu.machine.as_str(), gpu.state)).collect();
        assert_eq!(states, [("a", GpuState::Probed), ("b", GpuState::Conflicting)], "{gpus:?}");
        assert!(codes(&gpus[1]).contains(&"gpu.conflict.moved"));
    }
}

#[test]
fn what_a_driver_alone_says_is_not_written_down() {
    let own = Gpu { uuid: None, ..bmc(1) };
    let claimed = ProbedGpu { uuid: driver(2).uuid, ..driver(1) };
    let gpu = one(&[own], Some(&[claimed])).remove(0);
    assert_eq!(gpu.state, GpuState::Probed, "its serial number agrees");
    assert_eq!(AcceptedGpu::of(&gpu).identities, BTreeSet::from(["serial/s1".to_owned()]));
}

#[test]
fn a_gpu_in_the_place_of_one_that_was_accepted_is_kept_out_and_one_more_is_not() {
    let machine = name("m");
    let with = |redfish: &[Gpu], nvml: &[ProbedGpu], there: &[u32]| {
        let views = views(&machine, redfish, nvml);
        let accepted = there.iter().map(|n| accepted("m", &bmc(*n), None)).collect();
        reconcile(&[views], &accepted).iter().map(codes).collect::<Vec<_>>()
    };
    let (redfish, nvml) = ([bmc(1), bmc(3)], [driver(1), driver(3)]);
    assert_eq!(with(&redfish, &nvml, &[1, 2]), [vec![], vec!["gpu.conflict.replaced"]]);
    assert_eq!(with(&redfish, &nvml, &[1]), [Vec::<&str>::new(), vec![]]);
    // A host that invents the missing one does not bring it back.
    let invented = with(&redfish, &[driver(1), driver(2), driver(3)], &[1, 2]);
    assert!(invented.iter().flatten().any(|code| *code == "gpu.conflict.replaced"), "{invented:?}");
}

#[test]
fn a_gpu_with_another_certificate_than_was_accepted_is_kept_out() {
    let machine = name("m");
    let (redfish, nvml, spdm) = ([bmc(1)], [driver(1)], [guardian(1)]);
    let views = MachineViews {
        machine: &machine,
        given: Some(given(Given::Expected, Given::Expected, Given::Expected)),
        redfish: Some(&redfish),
        spdm: Some(&spdm),
        nvml: Some(&nvml),
    };
    let same = Accepted::from_iter([accepted("m", &bmc(1), Some(&guardian(1)))]);
    assert_eq!(reconcile(&[views], &same)[0].state, GpuState::Probed);
    let other = SpdmGpu { sha256: Some(Digest::of(b"other")), ..guardian(1) };
    let changed = reconcile(&[views], &Accepted::from_iter([accepted("m", &bmc(1), Some(&other))]));
    assert_eq!(codes(&changed[0]), ["gpu.conflict.changed"]);
}

#[test]
fn a_person_accepts_what_agrees_and_what_does_not_stays_as_it_was() {
    let machine = name("m");
    let (redfish, nvml) = ([bmc(1), bmc(2), bmc(3)], [driver(1), driver(3)]);
    let views = views(&machine, &redfish, &nvml);
    let before: Accepted = [2, 3, 4].iter().map(|n| accepted("m", &bmc(*n), None)).collect();
    let gpus = reconcile(&[views], &before);
    let news: Vec<_> = gpus.iter().filter_map(|gpu| before.news(gpu)).collect();
    assert_eq!(news, [], "1 took the place of 4, 2 is not shown by the driver, 3 is known");
    // 2 has a conflict of its own; 4 is gone.
    let renewed = before.renewed(&machine, &reconcile(&[views], &Accepted::new()));
    let expected = [1, 2, 3].map(|n| accepted("m", &bmc(n), None));
    assert_eq!(renewed, expected);
    let after = reconcile(&[views], &renewed.into_iter().collect());
    assert_eq!(after.iter().map(|gpu| gpu.state).filter(|state| *state == GpuState::Probed).count(), 2);
}

#[test]
fn a_gpu_is_written_down_when_it_is_first_probed_and_again_when_more_is_known_of_it() {
    let probed = with_certificates(&[bmc(1)], Some(&[guardian(1)]), &[driver(1)]).remove(0);
    let full = AcceptedGpu::of(&probed);
    assert_eq!(Accepted::new().news(&probed).as_ref(), Some(&full));
    let without = Accepted::from_iter([accepted("m", &bmc(1), None)]);
    assert_eq!(without.news(&probed).as_ref(), Some(&full), "its certificate was not known");
    assert_eq!(Accepted::from_iter([full]).news(&probed), None);
    let inventoried = with_certificates(&[bmc(1)], None, &[driver(1)]).remove(0);
    assert_eq!(Accepted::new().news(&inventoried), None);
}

#[test]
fn a_conflict_says_what_each_view_says_and_what_to_do() {
    let said =
        vec![Said { view: View::Redfish, value: "s1".into() }, Said { view: View::Nvml, value: "s2".into() }];
    let problem = Conflict::SerialDiffers { said }.problem("Machine/m GPU-1");
    assert_eq!(problem.message, "its views tell different serial numbers: redfish s1, nvml s2");
    assert!(problem.hint.is_some());
}

#[test]
fn the_codes_are_sorted_and_told_once() {
    assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

/// GPUs with few identities, so that they collide in every way.
fn some_gpus() -> impl Strategy<Value = (Vec<Gpu>, Vec<SpdmGpu>, Vec<ProbedGpu>)> {
    let id = || proptest::option::of(0_u32..4);
    let redfish = (id(), id(), id(), id()).prop_map(|(serial, uuid_of, place, address)| Gpu {
        serial: serial.map(|n| format!("S{n}")),
        uuid: uuid_of.map(uuid),
        location: place.map(|n| format!("SXM{n}")),
        pci_address: address.map(|n| format!("0000:{n:02x}:00.0")),
        ..Gpu::default()
    });
    let spdm = (id(), id(), 0_u32..4).prop_map(|(serial, uuid_of, place)| SpdmGpu {
        component: format!("/c/GPU_{place}"),
        serial: serial.map(|n| format!("S{n}")),
        uuid: uuid_of.map(uuid),
        sha256: Some(Digest::of(&place.to_be_bytes())),
        ..SpdmGpu::default()
    });
    let nvml = (id(), id(), id(), id()).prop_map(|(serial, uuid_of, module_id, address)| ProbedGpu {
        serial: serial.map(|n| format!("S{n}")),
        uuid: uuid_of.map(|n| format!("GPU-{}", uuid(n))),
        module_id,
        pci: Pci { address: address.map(|n| format!("0000:{n:02x}:00.0")), ..Pci::default() },
        ..ProbedGpu::default()
    });
    (
        proptest::collection::vec(redfish, 0..4),
        proptest::collection::vec(spdm, 0..4),
        // each entry of a probe has an index of its own
        proptest::collection::vec(nvml, 0..4)
            .prop_map(|gpus| (0..).zip(gpus).map(|(index, gpu)| ProbedGpu { index, ..gpu }).collect()),
    )
}

fn some_given() -> impl Strategy<Value = Option<GpuViews>> {
    let view = || prop_oneof![Just(Given::Expected), Just(Given::NotAvailable)];
    proptest::option::weighted(
        0.9,
        (view(), view(), view()).prop_map(|(redfish, spdm, nvml)| GpuViews { redfish, spdm, nvml }),
    )
}

proptest! {
    #[test]
    fn the_order_of_the_entries_does_not_matter(
        (mut redfish, mut spdm, mut nvml) in some_gpus(), given in some_given(), turns in 0_usize..4,
    ) {
        let machine = name("m");
        let all = |redfish: &[Gpu], spdm: &[SpdmGpu], nvml: &[ProbedGpu]| {
            let views = MachineViews { machine: &machine, given, redfish: Some(redfish), spdm: Some(spdm), nvml: Some(nvml) };
            reconcile(&[views], &Accepted::new())
        };
        let first = all(&redfish, &spdm, &nvml);
        let turn = |length: usize| if length == 0 { 0 } else { turns % length };
        redfish.reverse();
        let (a, b, c) = (turn(redfish.len()), turn(spdm.len()), turn(nvml.len()));
        redfish.rotate_left(a);
        spdm.rotate_left(b);
        nvml.rotate_left(c);
        nvml.reverse();
        prop_assert_eq!(all(&redfish, &spdm, &nvml), first);
    }

    #[test]
    fn every_entry_is_in_one_gpu_and_none_twice((redfish, spdm, nvml) in some_gpus(), given in some_given()) {
        let machine = name("m");
        let views = MachineViews { machine: &machine, given, redfish: Some(&redfish), spdm: Some(&spdm), nvml: Some(&nvml) };
        let gpus = reconcile(&[views], &Accepted::new());
        prop_assert_eq!(gpus.iter().filter(|gpu| gpu.redfish.is_some()).count(), redfish.len());
        prop_assert_eq!(gpus.iter().filter(|gpu| gpu.spdm.is_some()).count(), spdm.len());
        prop_assert_eq!(gpus.iter().filter(|gpu| gpu.nvml.is_some()).count(), nvml.len());
    }

    /// What opens the gate: the driver's view, one from outside that agrees with it, and nobody who contradicts.
    #[test]
    fn a_probed_gpu_is_one_that_the_driver_and_one_from_outside_know_by_the_same_identity(
        (redfish, spdm, nvml) in some_gpus(), given in some_given(), asked in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let machine = name("m");
        let views = MachineViews {
            machine: &machine,
            given,
            redfish: asked.0.then_some(&redfish[..]),
            spdm: asked.1.then_some(&spdm[..]),
            nvml: asked.2.then_some(&nvml[..]),
        };
        for gpu in reconcile(&[views], &Accepted::new()) {
            if gpu.state != GpuState::Probed {
                continue;
            }
            let inside = identities(None, None, gpu.nvml.as_ref());
            let outside = identities(gpu.redfish.as_ref(), gpu.spdm.as_ref(), None);
            prop_assert!(gpu.conflicts.is_empty());
            prop_assert!(!inside.is_disjoint(&outside), "{:?}", gpu);
        }
    }

    #[test]
    fn a_gpu_in_two_machines_is_probed_in_neither(gpus in some_gpus(), given in some_given()) {
        let (a, b) = (name("a"), name("b"));
        let views = |machine| MachineViews {
            machine, given, redfish: Some(&gpus.0), spdm: Some(&gpus.1), nvml: Some(&gpus.2),
        };
        for gpu in reconcile(&[views(&a), views(&b)], &Accepted::new()) {
            prop_assert!(gpu.state != GpuState::Probed);
        }
    }
}

proptest! {
    /// What people are told that a GPU waits for is what the gate waits for, whatever was asked and whatever the model gives.
    #[test]
    fn a_gpu_without_conflicts_is_inventoried_exactly_while_its_machine_has_gaps(
        expected in prop::option::of(any::<[bool; 3]>()), asked in any::<[bool; 3]>(), shown in any::<[bool; 3]>(),
    ) {
        let view = |expected: bool| if expected { Given::Expected } else { Given::NotAvailable };
        let machine = name("m");
        let (redfish, spdm, nvml) = (vec![bmc(1); shown[0].into()], vec![certificate(1); shown[1].into()], vec![driver(1); shown[2].into()]);
        let views = MachineViews {
            machine: &machine,
            given: expected.map(|[redfish, spdm, nvml]| given(view(redfish), view(spdm), view(nvml))),
            redfish: asked[0].then_some(&redfish[..]),
            spdm: asked[1].then_some(&spdm[..]),
            nvml: asked[2].then_some(&nvml[..]),
        };
        for gpu in reconcile(&[views], &Accepted::new()).iter().filter(|gpu| gpu.conflicts.is_empty()) {
            prop_assert_eq!(gpu.state == GpuState::Inventoried, !views.gaps().is_empty(), "{:?} {:?}", gpu, views.gaps());
        }
    }
}

#[test]
fn what_a_machine_waits_for_is_named_view_by_view() {
    let machine = name("m");
    let bare = MachineViews { machine: &machine, given: None, redfish: Some(&[]), spdm: None, nvml: None };
    let driver = Gap::NotAsked { view: View::Nvml };
    assert_eq!(bare.gaps(), [Gap::Undeclared, driver]);
    assert_eq!(MachineViews { given: REDFISH_AND_NVML, ..bare }.gaps(), [driver]);
    assert_eq!(MachineViews { nvml: Some(&[]), ..bare }.gaps(), [Gap::Undeclared]);
    let without_driver = Some(given(Given::Expected, Given::Expected, Given::NotAvailable));
    assert_eq!(MachineViews { given: without_driver, ..bare }.gaps(), [Gap::NeverGiven]);
}
