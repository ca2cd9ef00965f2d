//! Tolerant reading of fields: a wrong type costs one diagnostic, never a resource (quirks 13, 25, 26, 36, 43), and a
//! placeholder is no value (identity rule 7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use domain::inventory::{AttributeValue, Diagnostic};
pub use domain::placeholder::{is_filler, is_placeholder};
use serde_json::Value;

/// Every code that reading can put into `Inventory.diagnostics` besides those of [`crate::ReadError`]: code, meaning, hint.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "redfish.certificate.malformed",
        "A component's certificate chain cannot be read.",
        "Update the firmware of the BMC and of the component. A GPU whose certificate cannot be read is kept out where its model has one.",
    ),
    (
        "redfish.collection.entry",
        "An entry of a collection is null or does not say which resource it is.",
        "Nothing to do; the entry is used if it is complete in place, else skipped. Some BMCs do so during a power transition.",
    ),
    (
        "redfish.collection.incomplete",
        "A collection has fewer distinct members than it says it has, or a page of it cannot be read.",
        "Read again; if it stays, what is listed from this collection is not complete.",
    ),
    (
        "redfish.collection.loop",
        "The pages of a collection lead back to a page already read, or never end.",
        "Report the BMC's model and firmware; every page was read once.",
    ),
    (
        "redfish.collection.malformed",
        "A collection has no list of members.",
        "Report the BMC's model and firmware; the collection is taken as empty.",
    ),
    (
        "redfish.expand.unusable",
        "The BMC says that it supports $expand, but does not do it right.",
        "Nothing to do; members are read one by one.",
    ),
    (
        "redfish.field.type",
        "A field has another type than its schema says.",
        "Report the BMC's model and firmware; the value is used if its meaning is clear, else taken as absent.",
    ),
    (
        "redfish.field.value",
        "A field has a value that its schema does not allow.",
        "Report the BMC's model and firmware; the value is taken as absent.",
    ),
    (
        "redfish.gpu.conflict",
        "Two views agree on one of a GPU's identifiers and differ in another.",
        "They are kept as two GPUs. Compare serial numbers and UUIDs with the operating system's view.",
    ),
    (
        "redfish.gpu.shared-serial",
        "Two resources of one list have the same serial number and nothing tells them apart.",
        "They are taken as one GPU. Boards with several GPUs do so; compare with the operating system's view.",
    ),
    (
        "redfish.gpu.unmatched-view",
        "A resource shows a GPU but does not say which one, while other resources name the GPUs.",
        "Nothing to do; it is not counted again.",
    ),
    (
        "redfish.host.ambiguous",
        "Several computer systems could be the host; the links do not decide.",
        "The first by path is taken. Report the BMC's model and firmware.",
    ),
    (
        "redfish.host.missing",
        "The BMC shows no computer system.",
        "Nothing to do for a switch or power shelf; otherwise reset the BMC and read again.",
    ),
    (
        "redfish.identity.fallback",
        "The identity is not where this vendor's machines have it; the next best field is used.",
        "Compare the serial number with the machine's label.",
    ),
    (
        "redfish.identity.missing",
        "The host does not tell its serial number.",
        "Set it in the BMC or BIOS if the vendor allows; until then the machine is known by its UUID and MAC addresses.",
    ),
    (
        "redfish.link.missing",
        "A link that belongs there is missing.",
        "Nothing to do; the usual path was tried instead. A reset of the BMC often brings the link back.",
    ),
    (
        "redfish.walk.limit",
        "There is more to read than one reading may.",
        "Report the BMC's model and firmware.",
    ),
];

/// Collects diagnostics from concurrent reads; sorted and without duplicates, so that the document is deterministic.
#[derive(Debug, Default)]
pub struct Log(Mutex<BTreeSet<Diagnostic>>);

/// More diagnostics than this say nothing new.
const LOG_LIMIT: usize = 500;

impl Log {
    /// Notes one oddity.
    pub fn note(&self, code: &str, path: &str, message: impl Into<String>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() < LOG_LIMIT {
            entries.insert(Diagnostic {
                code: code.to_owned(),
                path: path.to_owned(),
                message: message.into(),
            });
        }
    }

    /// Whether a resource below this path could not be read.
    pub fn lost_below(&self, path: &str) -> bool {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_loss = |code: &str| code.starts_with("redfish.resource.") || code.starts_with("redfish.body.");
        entries.iter().any(|entry| {
            is_loss(&entry.code)
                && entry.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
        })
    }

    /// All that was noted, sorted.
    pub fn take(&self) -> Vec<Diagnostic> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

/// One JSON object of a resource, with what a diagnostic about it needs.
#[derive(Clone)]
pub struct Node<'a> {
    body: &'a Value,
    path: &'a str,
    prefix: String,
    log: &'a Log,
}

impl<'a> Node<'a> {
    /// The top of a resource.
    pub fn new(body: &'a Value, path: &'a str, log: &'a Log) -> Self {
        Self { body, path, prefix: String::new(), log }
    }

    /// Path of the resource.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The bare JSON.
    pub fn body(&self) -> &'a Value {
        self.body
    }

    /// Whether the field is there at all, even as null.
    pub fn has(&self, field: &str) -> bool {
        self.body.get(field).is_some()
    }

    /// The field, unless absent or null.
    fn value(&self, field: &str) -> Option<&'a Value> {
        self.body.get(field).filter(|value| !value.is_null())
    }

    fn note_type(&self, field: &str, value: &Value, expected: &str) {
        self.log.note(
            "redfish.field.type",
            self.path,
            format!("`{}{field}` is {} where {expected} is expected", self.prefix, kind(value)),
        );
    }

    fn note_value(&self, field: &str, value: &str, expected: &str) {
        self.log.note(
            "redfish.field.value",
            self.path,
            format!("`{}{field}` is `{}`, not {expected}", self.prefix, shorten(value)),
        );
    }

    /// A string, trimmed; numbers are taken with a diagnostic. `None` if blank.
    fn string(&self, field: &str) -> Option<String> {
        let value = self.value(field)?;
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => {
                self.note_type(field, value, "a string");
                number.to_string()
            }
            _ => {
                self.note_type(field, value, "a string");
                return None;
            }
        };
        (!text.is_empty()).then_some(text)
    }

    /// Text for people, such as a version or a name: trimmed, words that mean "nothing" are nothing.
    pub fn text(&self, field: &str) -> Option<String> {
        self.string(field).filter(|text| !is_filler(text))
    }

    /// Something that identifies: serial number, part number, model. Zeros and the like are nothing either.
    pub fn identifier(&self, field: &str) -> Option<String> {
        self.string(field).filter(|text| !is_placeholder(text))
    }

    /// A UUID in lower case. Zeros, ones and firmware defaults are nothing (quirk 25: it may be "").
    pub fn uuid(&self, field: &str) -> Option<String> {
        let text = self.identifier(field)?;
        let Ok(uuid) = uuid(&text) else {
            self.note_value(field, &text, "a UUID");
            return None;
        };
        uuid
    }

    /// A MAC address `aa:bb:cc:dd:ee:ff`. Zeros and broadcast are nothing; InfiniBand's longer addresses are not MACs.
    pub fn mac(&self, field: &str) -> Option<String> {
        let text = self.text(field)?;
        let Ok(mac) = mac(&text) else {
            self.note_value(field, &text, "a MAC address");
            return None;
        };
        mac
    }

    /// A whole number. Strings are taken with a diagnostic (quirk 25); negative numbers mean "not known".
    pub fn whole(&self, field: &str) -> Option<u64> {
        let value = self.value(field)?;
        match value {
            Value::Number(number) => whole(number),
            Value::String(text) if is_filler(text.trim()) || text.trim().is_empty() => None,
            Value::String(text) => {
                self.note_type(field, value, "a number");
                text.trim().parse::<serde_json::Number>().ok().as_ref().and_then(whole)
            }
            _ => {
                self.note_type(field, value, "a number");
                None
            }
        }
    }

    /// A truth value. The words are taken with a diagnostic.
    pub fn truth(&self, field: &str) -> Option<bool> {
        let value = self.value(field)?;
        if let Value::Bool(truth) = value {
            return Some(*truth);
        }
        self.note_type(field, value, "true or false");
        match value.as_str().map(|text| text.trim().to_ascii_lowercase())?.as_str() {
            "true" | "enabled" | "yes" => Some(true),
            "false" | "disabled" | "no" => Some(false),
            _ => None,
        }
    }

    /// An object inside.
    pub fn child(&self, field: &str) -> Option<Node<'a>> {
        let value = self.value(field)?;
        if !value.is_object() {
            self.note_type(field, value, "an object");
            return None;
        }
        Some(self.at(value, format!("{}{field}.", self.prefix)))
    }

    /// An object deep inside.
    pub fn descend(&self, fields: &[&str]) -> Option<Node<'a>> {
        let mut node = self.clone();
        for field in fields {
            node = node.child(field)?;
        }
        Some(node)
    }

    /// Every object inside an array. Null entries are skipped (quirk 43); a lone object counts as an array of one.
    pub fn children(&self, field: &str) -> Vec<Node<'a>> {
        let Some(value) = self.value(field) else { return Vec::new() };
        let entries = match value {
            Value::Array(entries) => entries.as_slice(),
            Value::Object(_) => std::slice::from_ref(value),
            _ => {
                self.note_type(field, value, "an array");
                return Vec::new();
            }
        };
        let mut nodes = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            match entry {
                Value::Object(_) => nodes.push(self.at(entry, format!("{}{field}[{index}].", self.prefix))),
                Value::Null => {}
                _ => self.note_type(&format!("{field}[{index}]"), entry, "an object"),
            }
        }
        nodes
    }

    /// The strings of an array; null and blank entries are skipped (quirk 43).
    pub fn strings(&self, field: &str) -> Vec<String> {
        match self.value(field) {
            None => Vec::new(),
            Some(Value::Array(entries)) => {
                entries.iter().filter_map(Value::as_str).filter_map(non_blank).collect()
            }
            Some(Value::String(text)) => non_blank(text).into_iter().collect(),
            Some(value) => {
                self.note_type(field, value, "an array");
                Vec::new()
            }
        }
    }

    /// Attributes of a BIOS: an object of plain values. Passwords and their hashes, which some BMCs do give (Dell:
    /// `SHA256SetupPassword`), are left out, and so are values that nobody compares for their length.
    pub fn attributes(&self, field: &str) -> Option<BTreeMap<String, AttributeValue>> {
        let node = self.child(field)?;
        let mut attributes = BTreeMap::new();
        for (name, value) in node.body.as_object()?.iter().take(MOST_ATTRIBUTES) {
            let value = match value {
                _ if is_secret(name) || name.len() > LONGEST_ATTRIBUTE => continue,
                Value::Null => continue,
                Value::Bool(truth) => AttributeValue::Truth(*truth),
                Value::Number(number) => number
                    .as_i64()
                    .map_or_else(|| AttributeValue::Text(number.to_string()), AttributeValue::Whole),
                Value::String(text) if text.len() > LONGEST_ATTRIBUTE => continue,
                Value::String(text) => AttributeValue::Text(text.trim().to_owned()),
                Value::Array(_) | Value::Object(_) => {
                    node.note_type(name, value, "a plain value");
                    continue;
                }
            };
            attributes.insert(name.clone(), value);
        }
        Some(attributes)
    }

    /// The resource that a field links to.
    pub fn link(&self, field: &str) -> Option<String> {
        match self.value(field)? {
            Value::Object(object) => object.get("@odata.id").and_then(Value::as_str).and_then(non_blank),
            value @ Value::String(text) if text.starts_with('/') => {
                self.note_type(field, value, "a link");
                Some(text.clone())
            }
            Value::Array(entries) if entries.len() == 1 => self.links(field).into_iter().next(),
            value => {
                self.note_type(field, value, "a link");
                None
            }
        }
    }

    /// The resources that a field links to, each once, in order.
    pub fn links(&self, field: &str) -> Vec<String> {
        let mut links = Vec::new();
        for node in self.children(field) {
            match node.body.get("@odata.id").and_then(Value::as_str).and_then(non_blank) {
                Some(link) if !links.contains(&link) => links.push(link),
                Some(_) => {}
                // quirk 36: an entry without @odata.id during a power transition
                None => self.log.note(
                    "redfish.collection.entry",
                    self.path,
                    format!("an entry of `{}{field}` does not say which resource it is", self.prefix),
                ),
            }
        }
        links
    }

    /// `Status.State`, as spelled.
    pub fn state(&self) -> Option<String> {
        self.child("Status")?.text("State")
    }

    /// Whether the resource says that its thing is not there.
    pub fn is_absent(&self) -> bool {
        self.state().is_some_and(|state| state.eq_ignore_ascii_case("Absent"))
    }

    /// `Id`, else the last part of the path (quirk 26).
    pub fn id(&self) -> String {
        self.string("Id").unwrap_or_else(|| last_segment(self.path).to_owned())
    }

    fn at(&self, body: &'a Value, prefix: String) -> Node<'a> {
        Node { body, path: self.path, prefix, log: self.log }
    }
}

/// The largest BIOS recorded has some 460.
const MOST_ATTRIBUTES: usize = 2_000;

/// Characters of one attribute's name or value.
const LONGEST_ATTRIBUTE: usize = 256;

/// Whether an attribute holds a password or what one can be guessed from.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "passphrase", "secret", "salt", "privatekey", "authkey"]
        .iter()
        .any(|word| name.contains(word))
}

/// What people call the type of a value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

fn non_blank(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number without its fraction; negative numbers and what no counter reaches are not known.
fn whole(number: &serde_json::Number) -> Option<u64> {
    if let Some(whole) = number.as_u64() {
        return Some(whole);
    }
    let float = number.as_f64()?;
    // 2^53: above it a float is no longer exact
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..=9_007_199_254_740_992.0).contains(&float).then(|| float.round() as u64)
}

/// A UUID in lower case, `Ok(None)` if it is a placeholder, `Err` if it is none.
pub(crate) fn uuid(text: &str) -> Result<Option<String>, ()> {
    let lower = text.trim().to_ascii_lowercase();
    let bare = lower.strip_prefix("urn:uuid:").unwrap_or(&lower);
    let digits = bare.strip_prefix("gpu-").unwrap_or(bare);
    let hex: String = digits.chars().filter(|c| *c != '-').collect();
    if hex.len() != 32 || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
        return if is_placeholder(text) { Ok(None) } else { Err(()) };
    }
    // AMI's default, shipped on many boards
    let default = hex == "03000200040005000006000700080009";
    let first = hex.as_bytes().first().copied();
    let repeated = hex.bytes().all(|byte| Some(byte) == first);
    Ok((!default && !repeated).then(|| bare.to_owned()))
}

/// A MAC address with colons in lower case, `Ok(None)` if it is a placeholder or InfiniBand's, `Err` if it is none.
pub(crate) fn mac(text: &str) -> Result<Option<String>, ()> {
    let hex: String = text.trim().chars().filter(|c| !matches!(c, ':' | '-' | '.' | ' ')).collect();
    if !hex.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(());
    }
    // EUI-64 and 20-byte InfiniBand addresses are addresses, but no MACs
    if matches!(hex.len(), 16 | 40) {
        return Ok(None);
    }
    if hex.len() != 12 {
        return Err(());
    }
    let hex = hex.to_ascii_lowercase();
    if hex == "000000000000" || hex == "ffffffffffff" {
        return Ok(None);
    }
    let pairs: Vec<String> =
        hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect();
    Ok(Some(pairs.join(":")))
}

/// The last part of a path, without query and fragment.
pub fn last_segment(path: &str) -> &str {
    bare_path(path).rsplit('/').next().unwrap_or_default()
}

/// The path by which a source is told: as [`bare_path`], but an entry that only exists inside its collection keeps the
/// fragment that says which one it is (quirk 36).
pub fn source_path(path: &str) -> &str {
    if path.contains("#/") { path } else { bare_path(path) }
}

/// A path without query, fragment and trailing slash: two spellings of one resource compare equal by it.
pub fn bare_path(path: &str) -> &str {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    path.get(..end).unwrap_or(path).trim_end_matches('/')
}
