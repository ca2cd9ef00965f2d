//! Machines held against their firmware profiles.

use super::access::Caller;
use super::problem::Refusal;
use super::types::Page;
use super::{Answer, Api, Shared, schema};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use domain::declaration::{MachineSpec, Metadata};
use domain::firmware::{Compliance, FirmwareProfileSpec, assess};
use domain::principal::Permission;
use domain::selector::MachineSelector;
use domain::{Declaration, Inventory, MachineState, Name, Spec};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(check))
}

/// How one machine stands to its firmware profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareCheck {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: Name,
    /// When its BMC told what is held against the profile.
    #[schema(value_type = Option<String>)]
    pub observed_at: Option<Timestamp>,
    /// What comes of it; `null` while its BMC was not read.
    #[schema(value_type = Option<schema::Compliance>)]
    pub compliance: Option<Compliance>,
}

impl FirmwareCheck {
    /// Whether the machine may go on. One that was not read may not: unknown is never pass.
    pub fn is_compliant(&self) -> bool {
        self.compliance.as_ref().is_some_and(Compliance::is_compliant)
    }
}

/// Which machines to check.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Choice {
    /// Names and `key=value` terms, separated by commas; keys are site, rack, state, manufacturer, model, serial and labels.
    /// Absent: every machine.
    selector: Option<String>,
    /// Only machines after this name.
    after: Option<String>,
    /// At most so many, 1 to 1000; 100 unless told.
    limit: Option<usize>,
}

/// Machines held against their firmware profiles, by name.
#[utoipa::path(get, path = "/api/v1/firmware/check", tag = "machines", params(Choice),
    responses((status = 200, body = Page<FirmwareCheck>)))]
async fn check(
    State(api): Shared,
    caller: Caller,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Answer<Page<FirmwareCheck>> {
    caller.needs(Permission::Read)?;
    let Query(choice) = choice?;
    let limit = choice.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(Refusal::bad_request(format!("limit is {limit}; it must be 1 to 1000")));
    }
    let selector: MachineSelector = choice
        .selector
        .unwrap_or_default()
        .parse()
        .map_err(|error: domain::selector::NotASelector| Refusal::bad_request(error.to_string()))?;
    let (profiles, mut machines) = declared(api.store.declarations().await?);
    let states: BTreeMap<Name, MachineState> =
        api.store.machines().await?.into_iter().map(|record| (record.name, record.state)).collect();
    if let Some(after) = &choice.after {
        machines.retain(|(metadata, _)| metadata.name.as_str() > after.as_str());
    }
    let mut items = Vec::new();
    for (metadata, spec) in machines.iter().filter(|(metadata, _)| selector.fits_name(&metadata.name)) {
        let (inventory, observed_at) = api.store.inventory(&metadata.name).await?.unzip();
        let state = states.get(&metadata.name).copied();
        if !selector.fits(&metadata.name, |key| value(key, metadata, spec, state, inventory.as_ref())) {
            continue;
        }
        let compliance = inventory.map(|inventory| assess(&profiles, &inventory));
        items.push(FirmwareCheck { machine: metadata.name.clone(), observed_at, compliance });
        if items.len() > limit {
            break;
        }
    }
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|item| item.machine.to_string());
    Ok(Json(Page { items, next }))
}

type Machines = Vec<(Metadata, MachineSpec)>;

/// The profiles, and the machines by name.
fn declared(declarations: Vec<Declaration>) -> (Vec<(Name, FirmwareProfileSpec)>, Machines) {
    let (mut profiles, mut machines) = (Vec::new(), Vec::new());
    for Declaration { metadata, spec } in declarations {
        match spec {
            Spec::FirmwareProfile(spec) => profiles.push((metadata.name, *spec)),
            Spec::Machine(spec) => machines.push((metadata, *spec)),
            _ => {}
        }
    }
    machines.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    (profiles, machines)
}

/// What a machine has under a selector's key. Its own words go before labels.
fn value(
    key: &str,
    metadata: &Metadata,
    spec: &MachineSpec,
    state: Option<MachineState>,
    inventory: Option<&Inventory>,
) -> Option<String> {
    let identity = inventory.map(|inventory| &inventory.identity);
    match key {
        "site" => Some(spec.site.to_string()),
        "rack" => spec.rack.as_ref().map(|rack| rack.name.to_string()),
        "state" => state.map(|state| state.to_string()),
        "manufacturer" => identity?.manufacturer.clone(),
        "model" => identity?.model.clone(),
        "serial" => identity?.serial.clone(),
        label => metadata.labels.get(label).cloned(),
    }
}
