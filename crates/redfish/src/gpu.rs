//! One physical GPU from many views. A BMC may show a GPU as Processor, PCIeDevice, Chassis, GraphicsController and in its
//! vendor's own list; what makes two views one GPU is a shared serial number, UUID or PCI address, a link from one to the other, or
//! the same position, in this order (§6 and §7 of the Redfish facts).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use domain::inventory::Gpu;

use crate::decode::{is_placeholder, source_path};

/// The kind of resource that shows a GPU. The order is the precedence of what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViewKind {
    /// A Processor of type GPU.
    Processor,
    /// A GraphicsController.
    Graphics,
    /// A PCIeDevice.
    Device,
    /// An entry of the vendor's own list.
    Vendor,
    /// A Chassis that holds one GPU. A socket, not a device: the GPU in it may be swapped.
    Chassis,
}

/// What one resource says of a GPU. Placeholders are already gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct View {
    /// Path of the resource.
    pub path: String,
    /// Its kind.
    pub kind: ViewKind,
    /// Its Redfish `Id`.
    pub id: String,
    /// Paths of other resources that it says are the same device.
    pub links: Vec<String>,
    /// Model name.
    pub model: Option<String>,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// UUID.
    pub uuid: Option<String>,
    /// Part number.
    pub part_number: Option<String>,
    /// Firmware version.
    pub firmware_version: Option<String>,
    /// PCI address.
    pub pci_address: Option<String>,
    /// Slot or service label.
    pub location: Option<String>,
}

impl View {
    /// A view that says nothing but where it is.
    pub fn new(kind: ViewKind, path: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            kind,
            id: id.into(),
            links: Vec::new(),
            model: None,
            manufacturer: None,
            serial: None,
            uuid: None,
            part_number: None,
            firmware_version: None,
            pci_address: None,
            location: None,
        }
    }

    /// Whether it says neither serial number nor UUID.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.serial.is_none() && self.uuid.is_none()
    }

    /// Whether two views agree on something that identifies a GPU.
    pub(crate) fn shares_identity(&self, other: &View) -> bool {
        let same = |a: &Option<String>, b: &Option<String>, key: fn(&str) -> String| matches!((a, b), (Some(a), Some(b)) if key(a) == key(b));
        same(&self.serial, &other.serial, serial_key)
            || same(&self.uuid, &other.uuid, uuid_key)
            || same(&self.pci_address, &other.pci_address, str::to_owned)
    }

    /// The collection that it stands in.
    fn parent(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }
}

/// What came of merging.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The GPUs, in natural order of their first source.
    pub gpus: Vec<Gpu>,
    /// Oddities: code, path, message.
    pub notes: BTreeSet<(&'static str, String, String)>,
}

/// Views that are one GPU, with the identifiers they agree on.
#[derive(Clone, Debug, Default)]
struct Group {
    views: Vec<View>,
    serial: Option<String>,
    uuid: Option<String>,
    pci: Option<String>,
}

impl Group {
    fn of(view: View) -> Self {
        let pci = view.pci_address.clone();
        Self {
            serial: view.serial.as_deref().map(serial_key),
            uuid: view.uuid.as_deref().map(uuid_key),
            pci,
            views: vec![view],
        }
    }

    fn has(&self, kind: ViewKind) -> bool {
        self.views.iter().any(|view| view.kind == kind)
    }

    fn is_anonymous(&self) -> bool {
        self.serial.is_none() && self.uuid.is_none()
    }

    fn path(&self) -> &str {
        self.views.iter().min().map_or("", |view| view.path.as_str())
    }

    /// The first identifier in which two groups differ.
    fn difference(&self, other: &Group) -> Option<&'static str> {
        let differ = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        if differ(&self.serial, &other.serial) {
            return Some("serial number");
        }
        if differ(&self.uuid, &other.uuid) {
            return Some("UUID");
        }
        differ(&self.pci, &other.pci).then_some("PCI address")
    }

    fn join(&mut self, other: Group) {
        self.views.extend(other.views);
        self.serial = self.serial.take().or(other.serial);
        self.uuid = self.uuid.take().or(other.uuid);
        self.pci = self.pci.take().or(other.pci);
    }
}

fn serial_key(serial: &str) -> String {
    serial.to_ascii_lowercase()
}

fn uuid_key(uuid: &str) -> String {
    let lower = uuid.to_ascii_lowercase();
    lower.strip_prefix("gpu-").unwrap_or(&lower).chars().filter(char::is_ascii_hexdigit).collect()
}

/// Merges views into GPUs. The result depends neither on the order of the views nor on how often one is given, and there
/// are never more GPUs than views.
pub fn merge(views: impl IntoIterator<Item = View>) -> Merged {
    let mut merged = Merged::default();
    let mut groups: Vec<Group> = distinct(views).into_iter().map(Group::of).collect();
    // "what is shared" by strength; identifiers before links, links before position
    join_by(&mut groups, &mut merged, "UUID", |group| group.uuid.clone());
    // a board's serial number says which board it is, not which of its GPUs: links and places say more (GB300)
    let boards = board_serials(&groups);
    let own_serial = |group: &Group| group.serial.clone().filter(|serial| !boards.contains(serial));
    join_by(&mut groups, &mut merged, "serial number", own_serial);
    join_by(&mut groups, &mut merged, "PCI address", |group| group.pci.clone());
    join_by_links(&mut groups, &mut merged);
    join_on_boards(&mut groups, &boards);
    join_by(&mut groups, &mut merged, "serial number", |group| group.serial.clone());
    join_by_position(&mut groups);
    drop_unmatched(&mut groups, &mut merged);
    merged.gpus = groups.iter().map(compose).collect();
    merged.gpus.sort_by_cached_key(sort_key);
    merged
}

/// One view a resource, sorted: a resource reached twice is told once.
fn distinct(views: impl IntoIterator<Item = View>) -> Vec<View> {
    let sorted: BTreeSet<View> = views.into_iter().collect();
    let mut distinct: Vec<View> = Vec::new();
    for view in sorted {
        match distinct.last_mut() {
            Some(last) if last.path == view.path => complete(last, view),
            _ => distinct.push(view),
        }
    }
    distinct
}

fn complete(view: &mut View, other: View) {
    view.model = view.model.take().or(other.model);
    view.manufacturer = view.manufacturer.take().or(other.manufacturer);
    view.serial = view.serial.take().or(other.serial);
    view.uuid = view.uuid.take().or(other.uuid);
    view.part_number = view.part_number.take().or(other.part_number);
    view.firmware_version = view.firmware_version.take().or(other.firmware_version);
    view.pci_address = view.pci_address.take().or(other.pci_address);
    view.location = view.location.take().or(other.location);
    view.links.extend(other.links);
}

/// Joins groups that share an identifier, unless they differ in another.
fn join_by(groups: &mut Vec<Group>, merged: &mut Merged, what: &str, key: impl Fn(&Group) -> Option<String>) {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        if let Some(key) = key(group) {
            by_key.entry(key).or_default().push(index);
        }
    }
    let mut pairs = Vec::new();
    for indexes in by_key.values() {
        for (position, a) in indexes.iter().enumerate() {
            pairs.extend(indexes.iter().skip(position + 1).map(|b| (*a, *b)));
        }
    }
    join_pairs(groups, merged, what, pairs);
}

/// Serial numbers that two resources of one list share although their UUIDs say that they are two GPUs.
fn board_serials(groups: &[Group]) -> BTreeSet<String> {
    let mut by_serial: BTreeMap<&str, Vec<&Group>> = BTreeMap::new();
    for group in groups {
        if let Some(serial) = &group.serial {
            by_serial.entry(serial).or_default().push(group);
        }
    }
    let are_two =
        |a: &Group, b: &Group| a.difference(b).is_some_and(|what| what == "UUID") && are_siblings(a, b);
    by_serial
        .into_iter()
        .filter(|(_, on_it)| {
            on_it.iter().enumerate().any(|(index, a)| on_it.iter().skip(index + 1).any(|b| are_two(a, b)))
        })
        .map(|(serial, _)| serial.to_owned())
        .collect()
}

/// Joins views of one board that name the same place on it (`GPU_0` and `HGX_GPU_0`).
fn join_on_boards(groups: &mut Vec<Group>, boards: &BTreeSet<String>) {
    let mut places: BTreeMap<(String, String), BTreeSet<usize>> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        let Some(serial) = group.serial.clone().filter(|serial| boards.contains(serial)) else { continue };
        for view in &group.views {
            places.entry((serial.clone(), position_token(&view.id))).or_default().insert(index);
        }
    }
    let mut pairs = BTreeSet::new();
    for indexes in places.values() {
        let first = indexes.first().copied();
        pairs.extend(indexes.iter().skip(1).filter_map(|other| Some((first?, *other))));
    }
    // differences were looked at; a note would tell of what every such board does
    join_pairs(groups, &mut Merged::default(), "position", pairs);
}

/// Joins groups of which one links to a resource of the other.
fn join_by_links(groups: &mut Vec<Group>, merged: &mut Merged) {
    let mut owner: BTreeMap<String, usize> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        for view in &group.views {
            owner.insert(source_path(&view.path).to_owned(), index);
        }
    }
    let mut pairs = BTreeSet::new();
    for (index, group) in groups.iter().enumerate() {
        for link in group.views.iter().flat_map(|view| &view.links) {
            if let Some(other) = owner.get(source_path(link)).filter(|other| **other != index) {
                pairs.insert((index.min(*other), index.max(*other)));
            }
        }
    }
    join_pairs(groups, merged, "link", pairs);
}

/// Joins pairs of groups in order; a pair that differs in an identifier is noted and left apart.
fn join_pairs(
    groups: &mut Vec<Group>,
    merged: &mut Merged,
    what: &str,
    pairs: impl IntoIterator<Item = (usize, usize)>,
) {
    // where each group went: groups are emptied, never removed, until the end
    let mut place: Vec<usize> = (0..groups.len()).collect();
    for (a, b) in pairs {
        let (a, b) = (find(&place, a), find(&place, b));
        if a == b {
            continue;
        }
        let (low, high) = (a.min(b), a.max(b));
        let (Some(first), Some(second)) = (groups.get(low), groups.get(high)) else { continue };
        // a board's one PCIe device may be linked to by several GPUs: what only links share are two things
        if matches!(what, "link" | "position") && are_siblings(first, second) {
            continue;
        }
        if let Some(difference) = first.difference(second).or_else(|| sibling_difference(first, second)) {
            // GPUs of one board share its serial number, and their UUIDs tell them apart: nothing to tell
            if what == "serial number" && difference == "UUID" && are_siblings(first, second) {
                continue;
            }
            let message = format!("{} shares its {what}, but not its {difference}", second.path());
            merged.notes.insert(("redfish.gpu.conflict", first.path().to_owned(), message));
            continue;
        }
        if what == "serial number" && are_siblings(first, second) {
            let message = format!("{} has the same serial number; taken as one GPU", second.path());
            merged.notes.insert(("redfish.gpu.shared-serial", first.path().to_owned(), message));
        }
        let taken = groups.get_mut(high).map(std::mem::take).unwrap_or_default();
        if let Some(group) = groups.get_mut(low) {
            group.join(taken);
        }
        if let Some(slot) = place.get_mut(high) {
            *slot = low;
        }
    }
    groups.retain(|group| !group.views.is_empty());
}

fn find(place: &[usize], mut index: usize) -> usize {
    while let Some(next) = place.get(index).copied().filter(|next| *next != index) {
        index = next;
    }
    index
}

fn siblings<'a>(a: &'a Group, b: &'a Group) -> impl Iterator<Item = (&'a View, &'a View)> {
    a.views.iter().flat_map(|one| {
        b.views
            .iter()
            .filter(|two| one.kind == two.kind && one.parent() == two.parent())
            .map(move |two| (one, two))
    })
}

fn are_siblings(a: &Group, b: &Group) -> bool {
    siblings(a, b).next().is_some()
}

/// Two resources of one list are two things if they are in two places or of two kinds, though a board's serial is shared.
fn sibling_difference(a: &Group, b: &Group) -> Option<&'static str> {
    let differ = |x: &Option<String>, y: &Option<String>| matches!((x, y), (Some(x), Some(y)) if x != y);
    siblings(a, b).find_map(|(one, two)| {
        if differ(&one.location, &two.location) {
            Some("location")
        } else if differ(&one.model, &two.model) {
            Some("model")
        } else {
            differ(&one.part_number, &two.part_number).then_some("part number")
        }
    })
}

/// Joins views of different kinds that name the same position (`GPU_0` and `HGX_GPU_0`), and a device listed both under
/// a system and under a chassis. Only where the position is unambiguous and nothing speaks against it.
fn join_by_position(groups: &mut Vec<Group>) {
    let mut by_token: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        for view in &group.views {
            by_token.entry(position_token(&view.id)).or_default().insert(index);
        }
    }
    let mut pairs = Vec::new();
    for indexes in by_token.values().filter(|indexes| indexes.len() > 1) {
        let members: Vec<&Group> = indexes.iter().filter_map(|index| groups.get(*index)).collect();
        if are_one_position(&members) {
            let indexes: Vec<usize> = indexes.iter().copied().collect();
            pairs.extend(indexes.iter().skip(1).filter_map(|other| Some((*indexes.first()?, *other))));
        }
    }
    // differences were looked at; a note would tell of a position that is merely reused
    join_pairs(groups, &mut Merged::default(), "position", pairs);
}

fn are_one_position(members: &[&Group]) -> bool {
    let pairwise = |test: &dyn Fn(&Group, &Group) -> bool| {
        members.iter().enumerate().all(|(index, a)| members.iter().skip(index + 1).all(|b| test(a, b)))
    };
    // two that are both named are two, whatever their position
    let one_is_sparse = pairwise(&|a, b| a.is_anonymous() || b.is_anonymous());
    let compatible = pairwise(&|a, b| a.difference(b).is_none() && sibling_difference(a, b).is_none());
    let kinds_differ = pairwise(&|a, b| {
        a.views.iter().all(|one| b.views.iter().all(|two| one.kind != two.kind || are_twins(one, two)))
    });
    one_is_sparse && compatible && kinds_differ
}

/// The same device under `Systems/…/PCIeDevices/ID` and `Chassis/…/PCIeDevices/ID` (Dell).
fn are_twins(one: &View, two: &View) -> bool {
    let under = |view: &View, place: &str| view.path.contains(place);
    one.kind == ViewKind::Device
        && one.id == two.id
        && (under(one, "/Systems/") && under(two, "/Chassis/")
            || under(one, "/Chassis/") && under(two, "/Systems/"))
}

/// What an id says of the position: from "gpu" on, letters and digits only; else all of it.
fn position_token(id: &str) -> String {
    let lower = id.to_ascii_lowercase();
    let start = lower.find("gpu").unwrap_or(0);
    lower.get(start..).unwrap_or(&lower).chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Drops what shows a GPU without saying which, where the GPUs are named elsewhere: a DGX's host sees eight anonymous display
/// controllers that its baseboard names.
fn drop_unmatched(groups: &mut Vec<Group>, merged: &mut Merged) {
    let listed = |group: &Group| group.has(ViewKind::Processor) || group.has(ViewKind::Graphics);
    let socket_only = |group: &Group| group.views.iter().all(|view| view.kind == ViewKind::Chassis);
    let count = |test: &dyn Fn(&Group) -> bool| groups.iter().filter(|group| test(group)).count();
    let any_device = count(&|group| !socket_only(group)) > 0;
    let any_named = count(&|group| listed(group) || (!group.is_anonymous() && !socket_only(group))) > 0;
    // processors that say nothing beside devices that say who they are, and nothing to match them by: the longer list counts
    let blank_processors = count(&|group| listed(group) && group.is_anonymous());
    let named_devices = count(&|group| !listed(group) && !group.is_anonymous() && !socket_only(group));
    let drop_processors = named_devices >= blank_processors && named_devices > 0;
    let drop_devices = blank_processors > named_devices;
    groups.retain(|group| {
        let unmatched = if socket_only(group) {
            any_device
        } else if listed(group) {
            drop_processors && group.is_anonymous()
        } else if group.is_anonymous() {
            any_named
        } else {
            drop_devices
        };
        if unmatched {
            let message = "it shows a GPU that is named elsewhere, without saying which one".to_owned();
            merged.notes.insert(("redfish.gpu.unmatched-view", group.path().to_owned(), message));
        }
        !unmatched
    });
}

fn compose(group: &Group) -> Gpu {
    let mut views: Vec<&View> = group.views.iter().collect();
    views.sort_by_key(|view| (view.kind, *view));
    let first = |field: fn(&View) -> Option<&String>| views.iter().find_map(|view| field(view)).cloned();
    let sources: BTreeSet<String> = views.iter().map(|view| view.path.clone()).collect();
    Gpu {
        model: first(|view| view.model.as_ref()),
        manufacturer: first(|view| view.manufacturer.as_ref()),
        serial: first(|view| view.serial.as_ref()).filter(|serial| !is_placeholder(serial)),
        uuid: first(|view| view.uuid.as_ref()),
        part_number: first(|view| view.part_number.as_ref()),
        firmware_version: first(|view| view.firmware_version.as_ref()),
        pci_address: first(|view| view.pci_address.as_ref()),
        location: first(|view| view.location.as_ref()),
        sources: sources.into_iter().collect(),
    }
}

/// GPUs in the order in which people count them: by the processor's path where there is one.
fn sort_key(gpu: &Gpu) -> (Natural, Vec<String>) {
    let listed = gpu.sources.iter().find(|path| path.contains("/Processors/"));
    let path = listed.or_else(|| gpu.sources.first()).cloned().unwrap_or_default();
    (Natural(path), gpu.sources.clone())
}

/// Text ordered so that `GPU2` comes before `GPU10`.
#[derive(PartialEq, Eq)]
pub(crate) struct Natural(pub(crate) String);

impl Natural {
    fn parts(&self) -> Vec<(bool, usize, &str)> {
        let mut parts = Vec::new();
        let mut rest = self.0.as_str();
        while let Some(first) = rest.chars().next() {
            let digits = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (part, tail) = rest.split_at(end);
            let trimmed = part.trim_start_matches('0');
            parts.push(if digits { (digits, trimmed.len(), trimmed) } else { (digits, 0, part) });
            rest = tail;
        }
        parts
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
