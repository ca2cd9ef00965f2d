//! Collections: every page, every member once, `$expand` where it can be trusted (quirks 19, 20, 21, 36, 43; §5 of the
//! Redfish facts).

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::Value;

use crate::decode::{Node, bare_path};
use crate::reader::{Reader, Resource};
use crate::walk::{Expand, Shared, Walk};

/// What one page lists.
enum Entry {
    /// A link to a member.
    Link(String),
    /// A member in place, with its path.
    Inline(Shared),
}

impl Entry {
    fn uri(&self) -> &str {
        match self {
            Entry::Link(uri) => uri,
            Entry::Inline(resource) => &resource.uri,
        }
    }
}

impl<R: Reader> Walk<'_, R> {
    /// Every member of a collection, in the collection's order. Members that cannot be read are left out, with diagnostics.
    pub(crate) async fn members(&self, uri: &str) -> Vec<Shared> {
        self.members_where(uri, |_| true).await
    }

    /// The members of a collection whose path the caller wants.
    pub(crate) async fn members_where(&self, uri: &str, wanted: impl Fn(&str) -> bool) -> Vec<Shared> {
        let entries = self.entries(uri).await;
        self.resolve(entries.into_iter().filter(|entry| wanted(entry.uri())).collect()).await
    }

    /// The paths of a collection's members, without reading them.
    pub(crate) async fn member_links(&self, uri: &str) -> Vec<String> {
        self.pages(uri, None).await.unwrap_or_default().iter().map(|entry| entry.uri().to_owned()).collect()
    }

    /// Resources by their paths, each once.
    pub(crate) async fn read_all(&self, uris: &[String]) -> Vec<Shared> {
        join_all(uris.iter().map(|uri| self.read(uri))).await.into_iter().flatten().collect()
    }

    /// Learns on one collection whether `$expand` works: one request more at most (quirk 19).
    pub(crate) async fn probe_expand(&self, uri: &str) {
        let query = self.expand_query();
        if query.is_empty() || uri.contains('?') {
            return;
        }
        // off until proven, so that nobody else tries it meanwhile
        let Some(entries) = self.pages(&format!("{uri}{query}"), Some(uri)).await else {
            return;
        };
        if entries.is_empty() {
            return;
        }
        let Some(Entry::Inline(sample)) = entries.iter().find(|entry| matches!(entry, Entry::Inline(_)))
        else {
            self.distrust(uri, "members come as bare links although expanded members were asked for");
            return;
        };
        // what an expanded member lacks shows only beside the resource itself
        let Some(direct) = self.read(&sample.uri.clone()).await else { return };
        if let Some(field) = missing_field(&sample.body, &direct.body) {
            self.distrust(uri, &format!("expanded members lack `{field}`"));
            return;
        }
        self.set_expand(Expand::Works);
        for entry in &entries {
            if let Entry::Inline(resource) = entry
                && !resource.uri.contains('#')
                && is_complete(&resource.body)
            {
                self.adopt(&resource.uri, resource);
            }
        }
    }

    fn distrust(&self, uri: &str, why: &str) {
        self.set_expand(Expand::Off);
        self.log.note("redfish.expand.unusable", bare_path(uri), why);
    }

    async fn entries(&self, uri: &str) -> Vec<Entry> {
        if self.expand() == Expand::Works
            && !uri.contains('?')
            && let Some(entries) = self.pages(&format!("{uri}{}", self.expand_query()), Some(uri)).await
        {
            return entries;
        }
        self.pages(uri, None).await.unwrap_or_default()
    }

    async fn resolve(&self, entries: Vec<Entry>) -> Vec<Shared> {
        let members = entries.into_iter().map(|entry| async move {
            match entry {
                Entry::Link(uri) => self.read(&uri).await,
                // it exists nowhere else (quirk 36)
                Entry::Inline(resource) if resource.uri.contains('#') => Some(resource),
                Entry::Inline(resource) if is_complete(&resource.body) => {
                    self.adopt(&resource.uri, &resource);
                    Some(resource)
                }
                // an expanded member without its required fields: its own path may tell more (quirk 19)
                Entry::Inline(resource) => self.read(&resource.uri).await.or(Some(resource)),
            }
        });
        join_all(members).await.into_iter().flatten().collect()
    }

    /// Follows a collection's pages. With `plain`, `uri` is the expanding form of that path: a refusal is a lesson about
    /// `$expand` and gives `None`, so that the plain path is read instead.
    async fn pages(&self, uri: &str, plain: Option<&str>) -> Option<Vec<Entry>> {
        let own = bare_path(uri).to_owned();
        let mut entries: Vec<Entry> = Vec::new();
        let mut known: HashSet<String> = HashSet::new();
        let mut visited: HashSet<String> = HashSet::new();
        let mut declared: Option<u64> = None;
        let mut broken: Option<String> = None;
        let mut next = Some(uri.to_owned());
        while let Some(page_uri) = next.take() {
            if !visited.insert(page_uri.trim_end_matches('/').to_owned()) {
                self.log.note("redfish.collection.loop", &own, format!("page {page_uri} is linked to again"));
                break;
            }
            if visited.len() > self.options.max_pages {
                let limit = self.options.max_pages;
                self.log.note("redfish.collection.loop", &own, format!("more than {limit} pages"));
                break;
            }
            let page = match (plain, visited.len()) {
                (Some(plain), 1) => match self.fetch(&page_uri).await {
                    Ok(page) => Some(Arc::new(page)),
                    Err(Some(error)) => {
                        self.distrust(plain, &format!("it is refused: {error}"));
                        return None;
                    }
                    Err(None) => None,
                },
                _ => self.read(&page_uri).await,
            };
            let Some(page) = page else {
                if visited.len() == 1 {
                    return Some(entries);
                }
                broken = Some(page_uri);
                break;
            };
            let node = self.node(&page);
            declared = declared.or_else(|| node.whole("Members@odata.count"));
            self.take_page(&node, &own, &mut known, &mut entries);
            next = next_link(&node);
        }
        let found = u64::try_from(known.len()).unwrap_or(u64::MAX);
        match (broken, declared) {
            // a page that cannot be read is harmless if every member is known already (§5)
            (Some(_), Some(declared)) if found >= declared => {}
            (Some(page), _) => self.log.note(
                "redfish.collection.incomplete",
                &own,
                format!("page {page} cannot be read; {found} members are known"),
            ),
            (None, Some(declared)) if found < declared => self.log.note(
                "redfish.collection.incomplete",
                &own,
                format!("{found} distinct members where `Members@odata.count` says {declared}"),
            ),
            (None, _) => {}
        }
        Some(entries)
    }

    /// Adds what a page lists and was not listed before: a page may list everything up to the end (§5).
    fn take_page(&self, page: &Node<'_>, own: &str, known: &mut HashSet<String>, entries: &mut Vec<Entry>) {
        let members = match page.body().get("Members") {
            Some(Value::Array(members)) => members.as_slice(),
            // quirk 21: null instead of []
            Some(Value::Null) => return,
            Some(other @ Value::Object(_)) => std::slice::from_ref(other),
            _ => {
                self.log.note("redfish.collection.malformed", own, "there is no array `Members`");
                return;
            }
        };
        for (index, member) in members.iter().enumerate() {
            let link = member
                .get("@odata.id")
                .and_then(Value::as_str)
                .map(str::trim)
                .filter(|link| !link.is_empty());
            let entry = match (member, link) {
                (Value::Object(_), Some(link)) if is_body(member) => Entry::Inline(Arc::new(Resource {
                    uri: link.to_owned(),
                    body: member.clone(),
                    etag: None,
                })),
                (_, Some(link)) => Entry::Link(link.to_owned()),
                // quirk 36: no @odata.id; what stands in place is used
                (Value::Object(_), None) if is_body(member) => {
                    self.log.note(
                        "redfish.collection.entry",
                        own,
                        format!("member {index} does not say its path; used in place"),
                    );
                    let uri = format!("{}#/Members/{index}", page.path());
                    Entry::Inline(Arc::new(Resource { uri, body: member.clone(), etag: None }))
                }
                // quirk 43: null entries
                _ => {
                    self.log.note(
                        "redfish.collection.entry",
                        own,
                        format!("member {index} says nothing; skipped"),
                    );
                    continue;
                }
            };
            let identity = if entry.uri().contains('#') {
                entry.uri().to_owned()
            } else {
                bare_path(entry.uri()).to_owned()
            };
            if identity == own {
                self.log.note("redfish.collection.loop", own, "the collection lists itself as a member");
                known.insert(identity);
                continue;
            }
            if known.insert(identity) {
                entries.push(entry);
            }
        }
    }
}

/// The next page. The schema has `Members@odata.nextLink`; OData's own `@odata.nextLink` is seen as well.
fn next_link(page: &Node<'_>) -> Option<String> {
    ["Members@odata.nextLink", "@odata.nextLink"].iter().find_map(|field| match page.body().get(*field) {
        Some(Value::String(link)) if !link.trim().is_empty() => Some(link.trim().to_owned()),
        Some(object @ Value::Object(_)) => {
            object.get("@odata.id").and_then(Value::as_str).map(ToOwned::to_owned)
        }
        _ => None,
    })
}

/// Whether an entry is more than a link: it has fields of its own.
fn is_body(member: &Value) -> bool {
    member
        .as_object()
        .is_some_and(|object| object.keys().filter(|field| !field.starts_with('@')).count() >= 2)
}

/// Whether a member in place has what every resource must have (DSP0266 8.4); `$expand` on AMI drops them (quirk 19).
fn is_complete(body: &Value) -> bool {
    ["@odata.type", "Id", "Name"].iter().all(|field| body.get(*field).is_some_and(Value::is_string))
}

/// A field that the resource has and its expanded form lacks.
fn missing_field<'a>(expanded: &Value, direct: &'a Value) -> Option<&'a str> {
    let (Some(expanded), Some(direct)) = (expanded.as_object(), direct.as_object()) else {
        return Some("everything");
    };
    direct.keys().map(String::as_str).find(|field| !field.contains('@') && !expanded.contains_key(*field))
}
