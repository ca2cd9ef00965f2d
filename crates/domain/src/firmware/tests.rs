//! Profiles against inventories.

use super::*;
use crate::declaration::Spec;
use crate::inventory::{
    AttributeValue, Bmc, ComponentIntegrity, Diagnostic, Firmware, Gpu, HostInterface, Identity, Tpm,
};
use crate::name::Name;
use crate::{Inventory, manifest};

const PROFILE: &str = "
apiVersion: bailiwick.dev/v1alpha1
kind: FirmwareProfile
metadata: {name: rack-1}
spec:
  match: {manufacturer: [Contoso], model: ['Rack *']}
  source: made up for this test
  components:
    - {name: bmc, select: [{id: BMC_Firmware}, {id: 'Bluefield_FW_BMC_*'}, {reported: bmc}], rule: {minimum: 2.10}}
    - {name: gpu, select: [{name: GPU*}], count: 2, rule: {exact: 96.00.89.00.01}}
    - name: cpld
      select: [{id: CPLD}]
      count: 0
      blocked: [{version: 0x12, reason: loses its settings}]
  biosAttributes:
    - {name: VTdSupport, alsoNamed: [VtdSupport], values: [Enable, true]}
  secureBoot: enabled
  tpm: {present: true, version: TPM2_0, state: Enabled}
  hostInterface: locked
  gpuViews: {spdm: not_available}
";

fn profile_of(text: &str) -> (Name, FirmwareProfileSpec) {
    let declaration = manifest::read("p", text).unwrap().remove(0).declaration;
    let Spec::FirmwareProfile(spec) = declaration.spec else { panic!("no profile") };
    (declaration.metadata.name, *spec)
}

fn firmware(id: &str, name: &str, version: &str) -> Firmware {
    let sources = vec![format!("/redfish/v1/UpdateService/FirmwareInventory/{id}")];
    Firmware { id: id.into(), name: Some(name.into()), version: Some(version.into()), sources }
}

fn machine() -> Inventory {
    let gpu = |serial: &str| Gpu { serial: Some(serial.into()), ..Gpu::default() };
    let mut inventory = Inventory {
        identity: Identity {
            manufacturer: Some("contoso".into()),
            model: Some("Rack 1".into()),
            ..Identity::default()
        },
        bmc: Bmc { firmware_version: Some("2.11".into()), ..Bmc::default() },
        gpus: vec![gpu("G0"), gpu("G1")],
        tpm: vec![Tpm {
            interface_type: Some("TPM2_0".into()),
            status: Some("Enabled".into()),
            ..Tpm::default()
        }],
        secure_boot: Some(true),
        host_interfaces: Some(vec![HostInterface {
            id: "usb0".into(),
            enabled: Some(false),
            sources: vec![],
        }]),
        firmware: vec![
            firmware("BMC_Firmware", "BMC", "2.10.0"),
            firmware("G0", "GPU 0", "96.00.89.00.01"),
            firmware("G1", "GPU 1", "96.00.89.00.01"),
            firmware("CPLD", "CPLD", "0x13"),
        ],
        ..Inventory::default()
    };
    let attributes = [("VTdSupport".to_owned(), AttributeValue::Text("Enable".into()))];
    inventory.bios.attributes = Some(attributes.into());
    inventory.sources.insert("bios".into(), "/redfish/v1/Systems/1/Bios".into());
    inventory
}

/// What is not as wanted.
fn wrong(inventory: &Inventory) -> Vec<(String, Verdict)> {
    let (_, spec) = profile_of(PROFILE);
    let findings = check(&spec, inventory).into_iter().filter(|finding| finding.verdict != Verdict::Pass);
    findings.map(|finding| (finding.fact, finding.verdict)).collect()
}

fn with(change: impl FnOnce(&mut Inventory)) -> Vec<(String, Verdict)> {
    let mut inventory = machine();
    change(&mut inventory);
    wrong(&inventory)
}

fn one(fact: &str, verdict: Verdict) -> Vec<(String, Verdict)> {
    vec![(fact.to_owned(), verdict)]
}

#[test]
fn a_machine_as_wanted_is_compliant_and_every_value_is_told() {
    let compliance = assess(&[profile_of(PROFILE)], &machine());
    assert!(compliance.is_compliant(), "{compliance:#?}");
    assert_eq!((compliance.findings().len(), compliance.problem()), (12, None));
    let bmc = &compliance.findings()[1];
    assert_eq!(bmc.source.as_deref(), Some("/redfish/v1/UpdateService/FirmwareInventory/BMC_Firmware"));
    assert_eq!((bmc.wanted.as_str(), bmc.found.as_deref()), ("2.10 or newer", Some("2.10.0")));
}

#[test]
fn each_value_that_is_not_as_wanted_has_its_own_verdict() {
    assert_eq!(
        with(|i| i.firmware[0].version = Some("2.9".into())),
        one("firmware/BMC_Firmware/version", Verdict::TooOld)
    );
    assert_eq!(
        with(|i| i.bmc.firmware_version = Some("2.9".into())),
        one("bmc.firmwareVersion", Verdict::TooOld)
    );
    assert_eq!(
        with(|i| i.firmware[1].version = Some("96.00.90.00.01".into())),
        one("firmware/G0/version", Verdict::NotExact)
    );
    assert_eq!(
        with(|i| i.firmware[3].version = Some("0x12".into())),
        one("firmware/CPLD/version", Verdict::Blocked)
    );
    assert_eq!(with(|i| i.firmware[1].version = None), one("firmware/G0/version", Verdict::Unknown));
    assert_eq!(
        with(|i| i.firmware[0].version = Some("next".into())),
        one("firmware/BMC_Firmware/version", Verdict::Unknown)
    );
    assert_eq!(with(|i| i.secure_boot = Some(false)), one("secureBoot", Verdict::Differs));
    assert_eq!(with(|i| i.secure_boot = None), one("secureBoot", Verdict::Unknown));
    assert_eq!(
        with(|i| i.tpm[0].interface_type = Some("TPM1_2".into())),
        one("tpm/0/interfaceType", Verdict::Differs)
    );
    assert_eq!(with(|i| i.tpm[0].status = None), one("tpm/0/status", Verdict::Unknown));
    assert_eq!(with(|i| i.tpm.clear()), one("tpm", Verdict::Missing));
    assert_eq!(with(|i| i.host_interfaces = None), one("hostInterfaces", Verdict::Unknown));
    assert_eq!(with(|i| i.gpus[0].serial = None), one("gpus", Verdict::Missing));
    assert_eq!(with(|i| i.bios.attributes = None), one("bios.attributes.VTdSupport", Verdict::Unknown));
    assert_eq!(
        with(|i| i.bios.attributes = Some([].into())),
        one("bios.attributes.VTdSupport", Verdict::Missing)
    );
}

#[test]
fn a_host_interface_is_locked_only_if_every_one_is_disabled() {
    let usb = |enabled| HostInterface { id: "usb1".into(), enabled, sources: vec![] };
    let add = |enabled| with(|i| i.host_interfaces.as_mut().unwrap().push(usb(enabled)));
    assert_eq!(add(Some(true)), one("hostInterfaces/usb1/enabled", Verdict::Differs));
    assert_eq!(add(None), one("hostInterfaces/usb1/enabled", Verdict::Unknown));
    assert_eq!(with(|i| i.host_interfaces = Some(vec![])), []);
}

#[test]
fn a_component_that_firmware_renames_is_found_by_its_new_name() {
    let renamed = |version| with(|i| i.firmware[0] = firmware("Bluefield_FW_BMC_0", "BMC", version));
    assert_eq!(renamed("BF-25.10-1"), []);
    assert_eq!(renamed("2.9"), one("firmware/Bluefield_FW_BMC_0/version", Verdict::TooOld));
}

#[test]
fn a_renamed_attribute_counts_by_either_name_and_by_both() {
    let attributes = |pairs: &[(&str, AttributeValue)]| {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        with(|i| i.bios.attributes = Some(pairs.into_iter().collect()))
    };
    let off = AttributeValue::Text("Disable".into());
    assert_eq!(attributes(&[("VtdSupport", AttributeValue::Truth(true))]), []);
    assert_eq!(attributes(&[("VtdSupport", AttributeValue::Text("true".into()))]), []);
    let both = attributes(&[("VTdSupport", AttributeValue::Truth(true)), ("VtdSupport", off)]);
    assert_eq!(both, one("bios.attributes.VtdSupport", Verdict::Differs));
}

#[test]
fn fewer_entries_than_there_must_be_are_missing_and_an_optional_one_may_lack() {
    assert_eq!(with(|i| drop(i.firmware.remove(2))), one("firmware/(name GPU*)/version", Verdict::Missing));
    assert_eq!(with(|i| drop(i.firmware.pop())), []);
}

#[test]
fn an_entry_that_could_not_be_read_is_unknown_though_it_is_optional() {
    let lost = |path: &str| {
        with(|i| {
            i.firmware.pop();
            let code = "redfish.resource.timeout".to_owned();
            i.diagnostics = vec![Diagnostic { code, path: path.to_owned(), message: String::new() }];
        })
    };
    let list = "/redfish/v1/UpdateService/FirmwareInventory";
    assert_eq!(lost(&format!("{list}/CPLD")), one("firmware/CPLD/version", Verdict::Unknown));
    assert_eq!(lost(list), one("firmware/*/version", Verdict::Unknown));
    assert_eq!(lost(&format!("{list}/NIC7")), []);
    assert_eq!(lost("/redfish/v1/Chassis/1"), []);
}

#[test]
fn an_expected_spdm_view_needs_a_component_for_every_gpu() {
    let (_, mut spec) = profile_of(PROFILE);
    spec.gpu_views = Some(GpuViews::default());
    let part = |id: &str| ComponentIntegrity {
        id: id.into(),
        kind: Some("SPDM".into()),
        ..ComponentIntegrity::default()
    };
    let mut inventory = machine();
    let missing = |inventory: &Inventory| {
        check(&spec, inventory).iter().any(|finding| finding.verdict == Verdict::Missing)
    };
    inventory.component_integrity = vec![part("HGX_ERoT_GPU_SXM_1"), part("HGX_ERoT_BMC_0")];
    assert!(missing(&inventory));
    inventory.component_integrity.push(part("HGX_ERoT_GPU_SXM_2"));
    assert!(!missing(&inventory));
}

#[test]
fn a_tpm_that_must_not_be_there_is_absent_only_if_the_bmc_says_so() {
    let (_, mut spec) = profile_of(PROFILE);
    spec.tpm = Some(TpmRule { present: false, version: None, state: None });
    let verdict = |inventory: &Inventory| {
        check(&spec, inventory).into_iter().find(|finding| finding.component == "tpm").unwrap().verdict
    };
    let mut inventory = machine();
    assert_eq!(verdict(&inventory), Verdict::Differs);
    inventory.tpm.clear();
    assert_eq!(verdict(&inventory), Verdict::Unknown);
    inventory.sources.insert("tpm".into(), "/redfish/v1/Systems/1".into());
    assert_eq!(verdict(&inventory), Verdict::Pass);
}

#[test]
fn without_a_profile_and_with_two_a_machine_waits_and_says_so() {
    let nobody = assess(&[], &machine());
    assert_eq!(nobody.problem().unwrap().code, "firmware.no-profile");
    let (name, spec) = profile_of(PROFILE);
    let other = Name::new("other").unwrap();
    let two = assess(&[(name, spec.clone()), (other, spec)], &machine());
    let problem = two.problem().unwrap();
    assert_eq!(
        (problem.code.as_str(), problem.found.as_deref()),
        ("firmware.ambiguous-profile", Some("rack-1, other"))
    );
    assert!(!two.is_compliant() && two.findings().is_empty());
}

#[test]
fn what_is_wrong_is_told_in_one_sentence_with_the_difference() {
    let mut inventory = machine();
    inventory.secure_boot = Some(false);
    let problem = assess(&[profile_of(PROFILE)], &inventory).problem().unwrap();
    assert_eq!(problem.code, "firmware.not-compliant");
    assert_eq!(problem.message, "1 of 12 values are not as FirmwareProfile/rack-1 wants");
    assert_eq!(problem.found.as_deref(), Some("secureBoot disabled (differs)"));
    assert_eq!(problem.expected.as_deref(), Some("secureBoot enabled"));
}

#[test]
fn a_profile_that_wants_nothing_or_contradicts_itself_is_refused() {
    let problems = |text: &str| {
        let (_, spec) = profile_of(text);
        spec.problems("FirmwareProfile/x").into_iter().map(|problem| problem.at.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(problems(PROFILE), Vec::<String>::new());
    let of = |spec: &str| {
        let head = "apiVersion: bailiwick.dev/v1alpha1\nkind: FirmwareProfile\nmetadata: {name: x}\n";
        problems(&format!("{head}spec: {{source: s, {spec}}}\n"))
    };
    let fits = "match: {manufacturer: [a], model: [b]}";
    assert_eq!(of(fits), ["FirmwareProfile/x spec"]);
    assert_eq!(of("match: {manufacturer: [a]}, secureBoot: enabled"), ["FirmwareProfile/x spec.match"]);
    for component in [
        "{name: c, select: [], rule: {exact: 1}}",
        "{name: c, select: [{id: c}]}",
        "{name: c, select: [{id: c}], rule: {oneOf: []}}",
        "{name: c, select: [{id: c}], rule: {exact: 1.0}, blocked: [{version: 1.0.0}]}",
    ] {
        assert_eq!(
            of(&format!("{fits}, components: [{component}]")),
            ["FirmwareProfile/x spec.components.c"],
            "{component}"
        );
    }
    assert_eq!(
        of(&format!("{fits}, tpm: {{present: false, state: Enabled}}")),
        ["FirmwareProfile/x spec.tpm"]
    );
    assert_eq!(
        of(&format!("{fits}, biosAttributes: [{{name: a, alsoNamed: [a], values: []}}]")),
        ["FirmwareProfile/x spec.biosAttributes.a", "FirmwareProfile/x spec.biosAttributes.a"]
    );
}

#[test]
fn a_pattern_fits_by_its_stars_and_whatever_the_case() {
    let fits = |pattern: &str, text: &str| pattern.parse::<Pattern>().unwrap().fits(text);
    for (pattern, text) in [
        ("DGXH100", "dgxh100 "),
        ("Dell*", "Dell Inc."),
        ("*", ""),
        ("a*b*c", "abbc"),
        ("*PowerEdge*", "PowerEdge R750"),
        ("Installed-159-*__BIOS.Setup.*", "Installed-159-1.8.2__BIOS.Setup.1-1"),
        ("ab*", "ab"),
    ] {
        assert!(fits(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [("DGXH100", "DGXH1000"), ("*b", "ab c"), ("a*a", "a"), ("a*b*b", "ab"), ("x", "")]
    {
        assert!(!fits(pattern, text), "{pattern} {text}");
    }
    assert!("".parse::<Pattern>().is_err());
}

#[test]
fn a_mistake_in_a_profile_is_told_with_its_line() {
    let problem =
        manifest::read("p.yaml", &PROFILE.replace("rule: {minimum", "rule: {minimun")).unwrap_err().remove(0);
    assert_eq!(
        (problem.code.as_str(), problem.hint.as_deref()),
        ("declaration.unknown-value", Some("did you mean `minimum`?"))
    );
    let problem = manifest::read("p.yaml", &PROFILE.replace("2.10", "newest")).unwrap_err().remove(0);
    assert_eq!(problem.code, "declaration.malformed");
    assert!(problem.at.unwrap().starts_with("p.yaml:"), "no line");
}

#[test]
fn a_host_that_does_not_say_who_it_is_is_known_by_its_bmcs_product() {
    let (name, mut spec) = profile_of(PROFILE);
    spec.matches = Match { product: vec!["Rack*".parse().unwrap()], ..Match::default() };
    let mut inventory = machine();
    inventory.identity = Identity::default();
    let profiles = [(name, spec)];
    assert!(assess(&profiles, &inventory).profile().is_none());
    inventory.bmc.product = Some("Rack 1 BMC".into());
    assert!(assess(&profiles, &inventory).is_compliant());
}

#[test]
fn views_of_one_side_alone_could_never_agree() {
    use View::{Expected, NotAvailable};
    let (_, mut spec) = profile_of(PROFILE);
    let mut problems = |redfish, spdm, nvml| {
        spec.gpu_views = Some(GpuViews { redfish, spdm, nvml });
        spec.problems("FirmwareProfile/p").len()
    };
    assert_eq!(problems(Expected, NotAvailable, Expected), 0);
    assert_eq!(problems(NotAvailable, Expected, Expected), 0);
    assert_eq!(problems(NotAvailable, NotAvailable, Expected), 1);
    assert_eq!(problems(Expected, Expected, NotAvailable), 1);
}
