//! `$expand`, `$skip` and `$top` (DSP0266, "Query parameters").

use serde_json::{Map, Value, json};

use crate::behaviour::{Behaviour, Expand};
use crate::bmc::Bmc;
use crate::tree::{ExpandSupport, NEXT_LINK, canonical, members, reference};

/// Resources put into one answer at most: trees have cycles, and levels multiply.
const EXPANSION_LIMIT: usize = 20_000;

/// A parsed query of the parameters that this service has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) expand: Option<ExpandQuery>,
    pub(crate) skip: Option<usize>,
    pub(crate) top: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpandQuery {
    kind: char,
    levels: Option<u8>,
}

/// Why a query is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum QueryRefused {
    /// A parameter that this service does not have: 501.
    Unsupported(String),
    /// A parameter with a value that it cannot have: 400.
    Invalid(String),
}

impl Query {
    /// Reads a decoded query. Parameters without `$` are ignored, as the specification wants.
    pub(crate) fn parse(query: &str) -> Result<Self, QueryRefused> {
        let mut out = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || value.parse().map_err(|_| QueryRefused::Invalid(name.to_owned()));
            match name {
                "$expand" => out.expand = Some(expand_query(value)?),
                "$skip" => out.skip = Some(number()?),
                "$top" => out.top = Some(number()?),
                other if other.starts_with('$') || other == "only" || other == "excerpt" => {
                    return Err(QueryRefused::Unsupported(other.to_owned()));
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

fn expand_query(value: &str) -> Result<ExpandQuery, QueryRefused> {
    let invalid = || QueryRefused::Invalid("$expand".to_owned());
    let kind = value.chars().next().filter(|kind| ".~*".contains(*kind)).ok_or_else(invalid)?;
    let rest = &value[1..];
    if rest.is_empty() {
        return Ok(ExpandQuery { kind, levels: None });
    }
    let levels =
        rest.strip_prefix("($levels=").and_then(|rest| rest.strip_suffix(')')).ok_or_else(invalid)?;
    Ok(ExpandQuery { kind, levels: Some(levels.parse().map_err(|_| invalid())?) })
}

/// Applies a query to a resource.
pub(crate) fn apply(
    bmc: &Bmc,
    behaviour: &Behaviour,
    path: &str,
    value: Value,
    query: &Query,
) -> Result<Value, QueryRefused> {
    let mut value = value;
    if query.skip.is_some() || query.top.is_some() {
        value = window(bmc, path, value, query);
    }
    let Some(expand) = query.expand else { return Ok(value) };
    match behaviour.expand {
        Expand::Ignored => return Ok(value),
        Expand::Rejected => return Err(QueryRefused::Invalid("$expand".to_owned())),
        Expand::AsAdvertised => admit(bmc.tree().expand_support(), expand)?,
        Expand::DropsFields => {}
    }
    let mut expansion = Expansion {
        bmc,
        kind: expand.kind,
        left: EXPANSION_LIMIT,
        drops: behaviour.expand == Expand::DropsFields,
        above: vec![path.to_owned()],
    };
    expansion.walk(&mut value, expand.levels.unwrap_or(1), false);
    Ok(value)
}

fn admit(support: ExpandSupport, expand: ExpandQuery) -> Result<(), QueryRefused> {
    let kind_known = match expand.kind {
        '*' => support.expand_all,
        '~' => support.links,
        _ => support.no_links,
    };
    if !kind_known {
        return Err(QueryRefused::Unsupported("$expand".to_owned()));
    }
    let levels = expand.levels.unwrap_or(1);
    let too_deep = support.max_levels.is_some_and(|max| levels > max);
    if levels == 0 || too_deep || (expand.levels.is_some() && !support.levels) {
        return Err(QueryRefused::Invalid("$expand".to_owned()));
    }
    Ok(())
}

struct Expansion<'a> {
    bmc: &'a Bmc,
    kind: char,
    left: usize,
    drops: bool,
    /// The resources around the place that is being filled: a link back to one of them stays a link.
    above: Vec<String>,
}

impl Expansion<'_> {
    fn walk(&mut self, value: &mut Value, levels: u8, in_links: bool) {
        if levels == 0 {
            return;
        }
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.visit(item, levels, in_links)),
            Value::Object(map) => {
                for (key, field) in map.iter_mut() {
                    self.visit(field, levels, in_links || key == "Links");
                }
            }
            _ => {}
        }
    }

    fn visit(&mut self, value: &mut Value, levels: u8, in_links: bool) {
        let wanted = match self.kind {
            '.' => !in_links,
            '~' => in_links,
            _ => true,
        };
        let link =
            value.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("@odata.id")?.as_str());
        let Some(target) = link.map(|id| canonical(id).to_owned()) else {
            self.walk(value, levels, in_links);
            return;
        };
        if !wanted || self.left == 0 || self.above.contains(&target) {
            return;
        }
        let Some(mut resource) = self.bmc.resource(&target) else { return };
        self.left -= 1;
        self.above.push(target);
        self.walk(&mut resource, levels - 1, false);
        self.above.pop();
        if self.drops {
            drop_required(&mut resource);
        }
        *value = resource;
    }
}

/// Takes away what every resource must have (quirk 19: AMI, Fujitsu).
fn drop_required(resource: &mut Value) {
    if let Some(map) = resource.as_object_mut() {
        for property in ["@odata.type", "Id", "Name", "SerialNumber", "UUID", "ProcessorType", "Manufacturer"]
        {
            map.remove(property);
        }
    }
}

/// The part of a collection that `$skip` and `$top` ask for.
fn window(bmc: &Bmc, path: &str, collection: Value, query: &Query) -> Value {
    if !collection.get("Members").is_some_and(Value::is_array) {
        return collection;
    }
    let all = all_members(bmc, &collection);
    let (skip, total) = (query.skip.unwrap_or(0), all.len());
    let shown: Vec<Value> = all.into_iter().skip(skip).take(query.top.unwrap_or(usize::MAX)).collect();
    let end = skip + shown.len();
    let mut out = collection.as_object().cloned().unwrap_or_else(Map::new);
    out.remove(NEXT_LINK);
    if end < total && !shown.is_empty() {
        let top = query.top.map(|top| format!("&$top={top}")).unwrap_or_default();
        out.insert(NEXT_LINK.to_owned(), json!(format!("{path}?$skip={end}{top}")));
    }
    out.insert("Members".to_owned(), Value::Array(shown));
    out.insert("Members@odata.count".to_owned(), json!(total));
    Value::Object(out)
}

/// The members of all pages of a collection, each once.
fn all_members(bmc: &Bmc, first: &Value) -> Vec<Value> {
    let (mut out, mut seen) = (Vec::new(), std::collections::HashSet::new());
    let (mut page, mut pages) = (Some(first.clone()), std::collections::HashSet::new());
    while let Some(current) = page {
        for member in members(&current) {
            if reference(member).is_none_or(|id| seen.insert(id.to_owned())) {
                out.push(member.clone());
            }
        }
        let next = current.get(NEXT_LINK).and_then(Value::as_str).map(str::to_owned);
        page = next.filter(|next| pages.insert(next.clone())).and_then(|next| bmc.resource(&next));
    }
    out
}
