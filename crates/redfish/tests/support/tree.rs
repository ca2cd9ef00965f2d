//! A reader over a tree in memory: recorded ones are unpacked from their archive, others are written by the test. It counts
//! requests, and misbehaves where told to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use bailiwick_redfish::{Error, ReadError, Reader, Resource};
use domain::inventory::Requests;
use serde_json::{Value, json};

/// What the server makes of `$expand`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expand {
    /// Answers as if it were not there.
    #[default]
    Ignored,
    /// 400.
    Refused,
    /// Expands members in full.
    Served,
    /// Expands members, but without these fields (quirk 19).
    Without(&'static [&'static str]),
}

/// A tree that can be read.
#[derive(Default)]
pub struct Tree {
    resources: BTreeMap<String, Value>,
    pub expand: Expand,
    failing: BTreeSet<String>,
    /// After so many requests the BMC is gone.
    pub lost_after: Option<usize>,
    log: Mutex<Vec<(String, u64)>>,
}

impl Tree {
    /// A tree of these resources.
    pub fn of(resources: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let mut tree = Self::default();
        for (path, body) in resources {
            tree.put(path, body);
        }
        tree
    }

    /// Puts a resource, with its `@odata.id` if the body has none.
    pub fn put(&mut self, path: &str, mut body: Value) {
        if let Some(object) = body.as_object_mut() {
            object.entry("@odata.id").or_insert_with(|| json!(path));
        }
        self.resources.insert(key(path), body);
    }

    /// Puts a body exactly as it is.
    pub fn put_raw(&mut self, path: &str, body: Value) {
        self.resources.insert(key(path), body);
    }

    pub fn remove(&mut self, path: &str) {
        self.resources.remove(&key(path));
    }

    pub fn paths(&self) -> Vec<String> {
        self.resources.keys().cloned().collect()
    }

    /// Every resource, with its path as the simulator wants it.
    pub fn entries(&self) -> Vec<(String, Value)> {
        self.resources.iter().map(|(path, body)| (path.clone(), body.clone())).collect()
    }

    pub fn has(&self, path: &str) -> bool {
        self.resources.contains_key(&key(path))
    }

    /// Changes a resource.
    pub fn edit(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        change(self.resources.get_mut(&key(path)).unwrap_or_else(|| panic!("{path} is not in the tree")));
    }

    /// Sets one field.
    pub fn set(&mut self, path: &str, field: &str, value: Value) {
        self.edit(path, |body| {
            body.as_object_mut().expect("an object").insert(field.to_owned(), value);
        });
    }

    /// Answers 500 for this path from now on.
    pub fn fail(&mut self, path: &str) {
        self.failing.insert(key(path));
    }

    /// The paths asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }

    /// Starts to count requests anew.
    pub fn forget(&self) {
        self.log.lock().unwrap().clear();
    }

    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// The whole tree as text.
    pub fn everything(&self) -> String {
        let mut text = String::new();
        for (path, body) in &self.resources {
            text.push_str(path);
            text.push_str(&body.to_string());
        }
        text
    }

    /// Where the recordings are.
    pub fn folder() -> PathBuf {
        std::env::var_os("BAILIWICK_RECORDINGS").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/redfish-recordings")),
            PathBuf::from,
        )
    }

    /// A recorded tree. `None` where the recordings are not there: that is printed, and fails where CI=true.
    pub fn recorded(name: &str) -> Option<Self> {
        let folder = Self::folder();
        let path = folder.join(format!("{name}.tar.gz"));
        let Ok(file) = std::fs::File::open(&path) else {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{} is missing; set BAILIWICK_RECORDINGS",
                path.display()
            );
            // written past the test harness, which shows the output of failing tests only
            let place = path.display();
            let line =
                format!("NOT RUN: the recorded tree {name}; {place} is missing (set BAILIWICK_RECORDINGS)\n");
            std::io::stderr().write_all(line.as_bytes()).expect("standard error");
            return None;
        };
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let mut tree = Self::default();
        for entry in archive.entries().expect("a tar archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").to_string_lossy().into_owned();
            let Some(path) =
                path.strip_suffix("/index.json").map(|path| format!("/{}", path.trim_start_matches("./")))
            else {
                continue;
            };
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            // two of the recordings' 8,014 files are cut short; no reading asks for them
            if let Ok(body) = serde_json::from_str(&text) {
                tree.resources.insert(key(&path), body);
            }
        }
        Some(tree)
    }

    fn answer(&self, uri: &str) -> Result<Value, ReadError> {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        let refused = |status| ReadError::Status { uri: uri.to_owned(), status, message_id: None };
        if self.failing.contains(&key(uri)) {
            return Err(refused(500));
        }
        let expands = query.is_some_and(|query| query.contains("$expand"));
        let found = if expands { self.resources.get(&key(path)) } else { self.resources.get(&key(uri)) };
        let body = found.cloned().ok_or_else(|| ReadError::NotFound { uri: uri.to_owned() })?;
        match self.expand {
            _ if !expands => Ok(body),
            Expand::Ignored => Ok(body),
            Expand::Refused => Err(refused(400)),
            Expand::Served => Ok(self.expanded(body, &[])),
            Expand::Without(fields) => Ok(self.expanded(body, fields)),
        }
    }

    fn expanded(&self, mut body: Value, without: &[&str]) -> Value {
        let members = body.get_mut("Members").and_then(Value::as_array_mut);
        for member in members.into_iter().flatten() {
            let link = member.get("@odata.id").and_then(Value::as_str).map(key);
            if let Some(full) = link.and_then(|link| self.resources.get(&link)) {
                *member = full.clone();
                for field in without {
                    member.as_object_mut().expect("an object").remove(*field);
                }
            }
        }
        body
    }
}

impl Reader for Tree {
    async fn get(&self, uri: &str) -> Result<Resource, ReadError> {
        // others get their turn, as over a network
        tokio::task::yield_now().await;
        let lost = self.lost_after.is_some_and(|requests| self.log.lock().unwrap().len() >= requests);
        let answer = if lost {
            Err(ReadError::Bmc(Error::Deadline { limit: std::time::Duration::from_secs(1) }))
        } else {
            self.answer(uri)
        };
        let bytes = answer.as_ref().map_or(0, |body| body.to_string().len() as u64);
        self.log.lock().unwrap().push((uri.to_owned(), bytes));
        answer.map(|body| Resource { uri: uri.to_owned(), body, etag: None })
    }

    fn usage(&self) -> Requests {
        let log = self.log.lock().unwrap();
        Requests { count: log.len() as u64, bytes: log.iter().map(|(_, bytes)| bytes).sum(), elapsed_ms: 0 }
    }
}

fn key(path: &str) -> String {
    path.trim_end_matches('/').to_owned()
}
