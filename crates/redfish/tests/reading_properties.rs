//! What holds for any input: merging does not depend on order, and no JSON makes reading panic.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

mod support;

use std::collections::BTreeSet;

use bailiwick_redfish::decode::{Log, Node};
use bailiwick_redfish::gpu::{View, ViewKind, merge};
use bailiwick_redfish::{WalkOptions, inventory};
use proptest::prelude::*;
use serde_json::{Map, Value};
use support::machine::machine;
use support::tree::Tree;

/// Few values, so that views collide often.
fn maybe(values: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    prop_oneof![2 => Just(None), 3 => prop::sample::select(values).prop_map(|value| Some(value.to_owned()))]
}

fn view() -> impl Strategy<Value = View> {
    let kinds =
        [ViewKind::Processor, ViewKind::Graphics, ViewKind::Device, ViewKind::Vendor, ViewKind::Chassis];
    let paths = &[
        "/redfish/v1/Systems/S/Processors/",
        "/redfish/v1/Chassis/C/PCIeDevices/",
        "/redfish/v1/Chassis/",
        "/redfish/v1/Systems/S/PCIeDevices/",
    ];
    let ids = &["GPU_0", "GPU_1", "HGX_GPU_0", "slot_3", "GPU2"];
    (
        prop::sample::select(kinds.to_vec()),
        prop::sample::select(&paths[..]),
        prop::sample::select(&ids[..]),
        prop::collection::vec((prop::sample::select(&paths[..]), prop::sample::select(&ids[..])), 0..3),
        (
            maybe(&["S0", "S1", "S2"]),
            maybe(&["9dad5bfd-a732-23fe-40ad-465d0cbe5f95", "f6153554-91a8-1097-9a40-e1f352682d0b"]),
            maybe(&["0000:17:00.0", "0000:65:00.0"]),
            maybe(&["Slot 1", "Slot 2"]),
            maybe(&["H100", "L40"]),
            maybe(&["P0", "P1"]),
        ),
    )
        .prop_map(|(kind, path, id, links, (serial, uuid, pci, location, model, part_number))| {
            let mut view = View::new(kind, format!("{path}{id}"), id);
            view.links = links.into_iter().map(|(path, id)| format!("{path}{id}")).collect();
            view.serial = serial;
            view.uuid = uuid;
            view.pci_address = pci;
            view.location = location;
            view.model = model;
            view.part_number = part_number;
            view
        })
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(
            &["/redfish/v1/Systems/Host", "N/A", "GPU", "00:00:00:00:00:00", "0x", "GPU-", "ß"][..]
        )
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    let known = &[
        "Id",
        "Name",
        "Members",
        "Members@odata.count",
        "Members@odata.nextLink",
        "@odata.id",
        "Links",
        "Status",
        "State",
        "SerialNumber",
        "UUID",
        "ProcessorType",
        "Model",
        "MACAddress",
        "Oem",
        "Location",
        "PCIeDevices",
        "Processors",
        "Ethernet",
        "Drives",
    ];
    prop_oneof![4 => prop::sample::select(&known[..]).prop_map(str::to_owned), 1 => "[a-zA-Z@.]{0,8}"]
}

proptest! {
    #[test]
    fn merging_does_not_depend_on_the_order_of_the_views(
        (views, shuffled) in prop::collection::vec(view(), 0..10)
            .prop_flat_map(|views| (Just(views.clone()), Just(views).prop_shuffle()))
    ) {
        prop_assert_eq!(merge(views), merge(shuffled));
    }

    #[test]
    fn a_view_given_twice_changes_nothing(views in prop::collection::vec(view(), 0..10)) {
        let twice: Vec<View> = views.iter().chain(&views).cloned().collect();
        prop_assert_eq!(merge(views), merge(twice));
    }

    #[test]
    fn there_are_never_more_gpus_than_views_and_none_is_told_of_twice(views in prop::collection::vec(view(), 0..10)) {
        let paths: BTreeSet<String> = views.iter().map(|view| view.path.clone()).collect();
        let gpus = merge(views).gpus;
        prop_assert!(gpus.len() <= paths.len());
        let sources: Vec<&String> = gpus.iter().flat_map(|gpu| &gpu.sources).collect();
        prop_assert_eq!(sources.iter().collect::<BTreeSet<_>>().len(), sources.len());
        prop_assert!(sources.iter().all(|source| paths.contains(*source)));
    }

    #[test]
    fn no_two_gpus_share_serial_uuid_and_everything_else_that_tells_them_apart(views in prop::collection::vec(view(), 0..10)) {
        let gpus = merge(views).gpus;
        for (index, a) in gpus.iter().enumerate() {
            for b in gpus.iter().skip(index + 1) {
                let same = |x: &Option<String>, y: &Option<String>| x.is_some() && x == y;
                let differ = |x: &Option<String>, y: &Option<String>| x.is_some() && y.is_some() && x != y;
                if same(&a.serial, &b.serial) && same(&a.uuid, &b.uuid) && a.sources.len() == 1 && b.sources.len() == 1 {
                    prop_assert!(
                        differ(&a.pci_address, &b.pci_address) || differ(&a.location, &b.location)
                            || differ(&a.model, &b.model) || differ(&a.part_number, &b.part_number),
                        "{:?} and {:?}", a, b
                    );
                }
            }
        }
    }

    #[test]
    fn no_json_makes_decoding_panic(body in json(), name in field()) {
        let log = Log::default();
        let node = Node::new(&body, "/redfish/v1/X", &log);
        for field in [name.as_str(), "Id", "Members", "Links", "SerialNumber", "UUID", "MACAddress"] {
            let _ = (node.text(field), node.identifier(field), node.uuid(field), node.mac(field), node.whole(field));
            let _ = (node.truth(field), node.strings(field), node.link(field), node.links(field), node.children(field).len());
            let _ = node.child(field).map(|child| (child.id(), child.state(), child.is_absent()));
        }
    }
}

/// One change: which resource, the way into it, and what stands there afterwards.
type Change = (usize, Vec<usize>, Damage);

/// What a BMC may put where something else belongs.
#[derive(Clone, Debug)]
enum Damage {
    Is(Value),
    /// A link of the resource to itself.
    ToItself,
    /// A link to any other resource.
    To(usize),
    /// A list of links to other resources, the same ones again and again.
    ToMany(usize, usize),
    /// A list of links that lead nowhere.
    ToNothing(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let damage = prop_oneof![
        4 => json().prop_map(Damage::Is),
        2 => Just(Damage::ToItself),
        2 => any::<usize>().prop_map(Damage::To),
        1 => (any::<usize>(), 1usize..300).prop_map(|(start, count)| Damage::ToMany(start, count)),
        1 => (1usize..3_000).prop_map(Damage::ToNothing),
    ];
    (any::<usize>(), prop::collection::vec(any::<usize>(), 0..4), damage)
}

fn spoil(tree: &mut Tree, (resource, way, damage): Change) {
    let paths = tree.paths();
    let at = |index: usize| paths.get(index % paths.len()).cloned().expect("a path");
    let link = |path: String| serde_json::json!({"@odata.id": path});
    let own = at(resource);
    let new = match damage {
        Damage::Is(value) => value,
        Damage::ToItself => link(own.clone()),
        Damage::To(other) => link(at(other)),
        Damage::ToMany(start, count) => (0..count).map(|n| link(at(start.wrapping_add(n)))).collect(),
        Damage::ToNothing(count) => (0..count).map(|n| link(format!("/redfish/v1/Nothing/{n}"))).collect(),
    };
    tree.edit(&own, |body| {
        let mut place = body;
        for step in way {
            let width = match &*place {
                Value::Object(object) => object.len(),
                Value::Array(array) => array.len(),
                _ => 0,
            };
            if width == 0 {
                break;
            }
            place = match place {
                Value::Object(object) => object.values_mut().nth(step % width).expect("a field"),
                Value::Array(array) => array.get_mut(step % width).expect("an entry"),
                _ => return,
            };
        }
        *place = new;
    });
}

#[test]
fn a_list_of_thousands_of_systems_that_are_not_there_is_given_up() {
    let mut tree = machine();
    spoil(&mut tree, (0, Vec::new(), Damage::Is(serde_json::json!({"RedfishVersion": "1.6.0"}))));
    let nowhere: Vec<Value> =
        (0..3_000).map(|n| serde_json::json!({"@odata.id": format!("/redfish/v1/S/{n}")})).collect();
    tree.put("/redfish/v1/Systems", serde_json::json!({"Members": nowhere}));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let options = WalkOptions { max_resources: 500, ..WalkOptions::default() };
    let _ = runtime.block_on(inventory(&tree, &options));
    assert!(tree.asked().len() <= 520, "{} requests", tree.asked().len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_wrong_in_a_tree_reading_ends_and_nothing_is_told_twice(
        changes in prop::collection::vec(change(), 1..8)
    ) {
        let mut tree = machine();
        for change in changes {
            spoil(&mut tree, change);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let options = WalkOptions { max_resources: 500, ..WalkOptions::default() };
        let read = runtime.block_on(inventory(&tree, &options));
        // the root, an expanding collection and some systems may be asked for once more, to tell why they cannot be read
        prop_assert!(tree.asked().len() <= 520, "{} requests", tree.asked().len());
        let Ok(inventory) = read else { return Ok(()) };
        let sources: Vec<&String> = inventory.gpus.iter().flat_map(|gpu| &gpu.sources).collect();
        prop_assert_eq!(sources.iter().collect::<BTreeSet<_>>().len(), sources.len());
        let macs: BTreeSet<&String> = inventory.nics.iter().map(|nic| &nic.mac).collect();
        prop_assert_eq!(macs.len(), inventory.nics.len());
    }

    #[test]
    fn no_body_of_any_resource_makes_reading_panic(index in 0usize..24, body in json()) {
        let mut tree = machine();
        let path = tree.paths().get(index % tree.len()).cloned().expect("a path");
        tree.put_raw(&path, body);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let options = WalkOptions { max_resources: 200, ..WalkOptions::default() };
        // an error is fine where it is the root or the host that is spoiled; a panic or an endless reading is not
        let _ = runtime.block_on(inventory(&tree, &options));
        prop_assert!(tree.asked().len() <= 400);
    }
}
