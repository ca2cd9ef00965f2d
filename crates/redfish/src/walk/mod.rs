//! The walk over one BMC's tree: every resource is asked for once, whatever leads to it, and what cannot be read costs one
//! diagnostic. What is read, and how deep, is decided by the modules below it and by [`WalkOptions`].

mod drives;
mod gpus;
mod integrity;
mod nics;
mod pci;
mod services;
mod settings;
mod systems;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::OnceCell;

use crate::decode::{Log, Node, bare_path};
use crate::quirks::Profile;
use crate::reader::{ReadError, Reader, Resource};

pub use systems::Landscape;

/// How much is read.
#[derive(Clone, Debug)]
pub struct WalkOptions {
    /// Pages of one collection at most (loop guard, DMTF Redfishtool#49).
    pub max_pages: usize,
    /// Resources of one BMC at most.
    pub max_resources: usize,
    /// PCIe devices looked at when no processor names the GPUs.
    pub max_pcie_devices: usize,
    /// Whether `$expand` may be used where the BMC supports it.
    pub expand: bool,
}

impl Default for WalkOptions {
    fn default() -> Self {
        Self { max_pages: 200, max_resources: 5_000, max_pcie_devices: 256, expand: true }
    }
}

/// A resource read, shared by whoever asks for it again.
pub(crate) type Shared = Arc<Resource>;

/// What one BMC taught about `$expand` (quirk 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expand {
    /// Not supported, not allowed, or shown to be broken.
    Off,
    /// Seen to work.
    Works,
}

/// One walk over one BMC.
pub(crate) struct Walk<'r, R> {
    reader: &'r R,
    pub(crate) options: &'r WalkOptions,
    pub(crate) log: Log,
    resources: Mutex<HashMap<String, Arc<OnceCell<Option<Shared>>>>>,
    fatal: Mutex<Option<ReadError>>,
    expand: AtomicU8,
    expand_query: Mutex<&'static str>,
}

impl<'r, R: Reader> Walk<'r, R> {
    pub(crate) fn new(reader: &'r R, options: &'r WalkOptions) -> Self {
        Self {
            reader,
            options,
            log: Log::default(),
            resources: Mutex::default(),
            fatal: Mutex::default(),
            expand: AtomicU8::new(0),
            expand_query: Mutex::new(""),
        }
    }

    /// Reads one resource; `None` if it cannot be read, with a diagnostic that says why.
    pub(crate) async fn read(&self, uri: &str) -> Option<Shared> {
        match self.cell(uri) {
            Some(cell) => cell.get_or_init(|| self.read_anew(uri)).await.clone(),
            None => None,
        }
    }

    async fn read_anew(&self, uri: &str) -> Option<Shared> {
        match self.fetch(uri).await {
            Ok(resource) => Some(Arc::new(resource)),
            Err(Some(error)) => {
                self.log.note(error.code(), bare_path(uri), error.to_string());
                None
            }
            Err(None) => None,
        }
    }

    /// Reads one resource and keeps the error; `Err(None)` when the BMC as a whole is given up.
    pub(crate) async fn fetch(&self, uri: &str) -> Result<Resource, Option<ReadError>> {
        if self.is_lost() {
            return Err(None);
        }
        match self.reader.get(uri).await {
            Ok(resource) if is_error_body(&resource.body) => Err(Some(ReadError::ErrorBody {
                uri: uri.to_owned(),
                message_id: message_id(&resource.body),
            })),
            Ok(resource) if !resource.body.is_object() => {
                Err(Some(ReadError::NotJson { uri: uri.to_owned(), content_type: None }))
            }
            Ok(resource) => Ok(resource),
            Err(error) if error.is_fatal() => {
                self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                Err(None)
            }
            Err(error) => Err(Some(error)),
        }
    }

    /// Takes a resource that came inside a collection, so that it is not asked for again.
    pub(crate) fn adopt(&self, uri: &str, resource: &Shared) {
        if let Some(cell) = self.cell(uri) {
            // somebody may be reading it at this moment; both know the same
            let _ = cell.set(Some(Arc::clone(resource)));
        }
    }

    fn cell(&self, uri: &str) -> Option<Arc<OnceCell<Option<Shared>>>> {
        let mut resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = resources.get(key(uri)) {
            return Some(Arc::clone(cell));
        }
        if resources.len() >= self.options.max_resources {
            drop(resources);
            let limit = self.options.max_resources;
            self.log.note(
                "redfish.walk.limit",
                "/redfish/v1",
                format!("more than {limit} resources; the rest was not read"),
            );
            return None;
        }
        Some(Arc::clone(resources.entry(key(uri).to_owned()).or_default()))
    }

    /// Whether the BMC as a whole was given up.
    pub(crate) fn is_lost(&self) -> bool {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Why the BMC as a whole was given up.
    pub(crate) fn take_fatal(&self) -> Option<ReadError> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A resource's fields.
    pub(crate) fn node<'a>(&'a self, resource: &'a Resource) -> Node<'a> {
        Node::new(&resource.body, &resource.uri, &self.log)
    }

    /// What is known about `$expand`.
    pub(crate) fn expand(&self) -> Expand {
        if self.expand.load(Ordering::Relaxed) == 1 { Expand::Works } else { Expand::Off }
    }

    pub(crate) fn set_expand(&self, state: Expand) {
        self.expand.store(u8::from(state == Expand::Works), Ordering::Relaxed);
    }

    /// The query that expands a collection's members on this BMC; empty where there is none.
    pub(crate) fn expand_query(&self) -> &'static str {
        *self.expand_query.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from the service root whether `$expand` may be tried: only where `ProtocolFeaturesSupported` says so and
    /// the vendor's row does not forbid it (R12).
    pub(crate) fn learn_features(&self, root: &Resource, profile: &Profile) {
        if !self.options.expand || !profile.expand {
            return;
        }
        let Some(features) = self.node(root).descend(&["ProtocolFeaturesSupported", "ExpandQuery"]) else {
            return;
        };
        let says = |field| features.truth(field).unwrap_or(false);
        // "." expands what is subordinate, "*" also what is linked (DSP0266 7.3.1)
        let query = match (says("NoLinks"), says("ExpandAll"), says("Levels")) {
            (true, _, true) => "?$expand=.($levels=1)",
            (true, _, false) => "?$expand=.",
            (false, true, true) => "?$expand=*($levels=1)",
            _ => "",
        };
        *self.expand_query.lock().unwrap_or_else(PoisonError::into_inner) = query;
    }
}

/// Two spellings of one path are one resource; a page is another resource than its collection.
fn key(uri: &str) -> &str {
    let uri = uri.split('#').next().unwrap_or(uri);
    uri.trim_end_matches('/')
}

/// Whether a body is an error, though it was given as a resource (some BMCs and recordings store them so).
pub(crate) fn is_error_body(body: &Value) -> bool {
    let Some(object) = body.as_object() else { return false };
    if object.contains_key("@odata.id") || object.contains_key("Members") {
        return false;
    }
    object.get("error").is_some_and(Value::is_object)
        || (object.contains_key("@Message.ExtendedInfo") && !object.contains_key("Id"))
}

fn message_id(body: &Value) -> Option<String> {
    let holder = body.get("error").unwrap_or(body);
    let first = holder.get("@Message.ExtendedInfo").and_then(|info| info.get(0));
    first.and_then(|info| info.get("MessageId")).and_then(Value::as_str).map(ToOwned::to_owned)
}
