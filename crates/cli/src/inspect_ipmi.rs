//! `bailiwick inspect ipmi://…`: what one BMC tells by IPMI, in the form of the inventory, with its power, sensors and log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use domain::inventory::Requests;
use domain::{Inventory, IpmiAddress, Problem};
use ipmi::sensor::kind_name;
use ipmi::{
    Client, Credentials, EventTime, Options, Privilege, Reading, SelInfo, SelPage, SelRecord, Sensor,
    Severity, Target,
};
use serde::Serialize;

use crate::errors::{Failure, Outcome, failed};
use crate::inventory_table;
use crate::output::{fields, heading, shown, table};

/// Entries of a log that are counted: some hold many thousands, and BMCs are slow to tell them.
const COUNTED: usize = 1000;

/// The inventory, and what only IPMI tells.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    inventory: Inventory,
    ipmi: Condition,
}

/// How the machine is now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    /// `on` or `off`.
    power: String,
    /// What is wrong with its power, if anything.
    faults: Vec<&'static str>,
    sensors: Vec<Shown>,
    event_log: EventLog,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    name: String,
    kind: &'static str,
    /// In `unit`; `null` where the sensor is away, or senses states.
    value: Option<f64>,
    unit: Option<String>,
    /// The worst threshold crossed: `ok`, `non-critical`, `critical`, `non-recoverable`.
    severity: Option<&'static str>,
    /// Numbers of the states that hold, of a sensor that senses states.
    states: Option<Vec<u8>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EventLog {
    entries: u16,
    /// Whether events were lost because it was full.
    overflow: bool,
    /// By the BMC's clock, read as UTC; `null` where its clock was not set.
    last_added: Option<String>,
    /// How many entries were counted for `asserted`.
    counted: usize,
    /// States that were reached, by the kind of their sensor.
    asserted: BTreeMap<&'static str, u64>,
}

/// Reads it all.
pub(crate) async fn read(
    address: &IpmiAddress,
    credentials: Credentials,
    deadline: Duration,
) -> Outcome<Report> {
    let late = |_| Err(failed(&redfish::Error::Deadline { limit: deadline }));
    tokio::time::timeout(deadline, ask(address, credentials)).await.unwrap_or_else(late)
}

async fn ask(address: &IpmiAddress, credentials: Credentials) -> Outcome<Report> {
    let unresolved = |why: String| {
        Failure::new("bmc.unresolved", format!("{} does not resolve to an address: {why}", address.host))
    };
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
    let socket = found.map_err(|error| unresolved(error.to_string()))?.next();
    let socket = socket.ok_or_else(|| unresolved("no address".to_owned()))?;
    // More than looking is needed for the MAC address alone.
    let target = Target { privilege: Privilege::Operator, ..Target::new(socket, credentials) };
    let begun = Instant::now();
    let client =
        Client::connect(target, Options { logins: 1, ..Options::default() }).await.map_err(|e| failed(&e))?;
    let report = report(&client, begun).await;
    client.close().await;
    report.map_err(|error| failed(&error))
}

async fn report(client: &Client, begun: Instant) -> Result<Report, ipmi::Error> {
    let identity = client.identity().await?;
    let chassis = client.chassis_status().await?;
    let sensors = client.sensors().await?;
    let info = client.sel_info().await?;
    let page = client.sel_page(None, COUNTED).await?;
    let usage = client.usage();
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let cost = Requests { count: usage.commands, bytes: usage.bytes, elapsed_ms };
    let mut inventory = identity.inventory(cost);
    let told = sensors.problems.iter().chain(&page.problems);
    inventory.diagnostics.extend(told.map(|problem| domain::inventory::Diagnostic {
        code: problem.code.clone(),
        path: problem.at.clone().unwrap_or_default(),
        message: problem.message.clone(),
    }));
    let faults = [
        (chassis.power_fault, "power-fault"),
        (chassis.control_fault, "power-control-fault"),
        (chassis.overload, "overload"),
        (chassis.interlock, "interlock"),
    ];
    let ipmi = Condition {
        power: chassis.power.to_string(),
        faults: faults.into_iter().filter_map(|(is, fault)| is.then_some(fault)).collect(),
        sensors: sensors.items.iter().map(sensor).collect(),
        event_log: event_log(&info, &page),
    };
    Ok(Report { inventory, ipmi })
}

fn sensor(sensor: &Sensor) -> Shown {
    let (value, severity) = match sensor.reading {
        Reading::Value { value, severity, .. } => (value, Some(name(severity))),
        _ => (None, None),
    };
    let states = match sensor.reading {
        Reading::States(bits) => Some((0..15).filter(|state| bits >> state & 1 == 1).collect()),
        _ => None,
    };
    let unit = value.map(|_| sensor.record.unit.to_string()).filter(|unit| !unit.is_empty());
    Shown {
        name: sensor.record.name.clone(),
        kind: kind_name(sensor.record.kind),
        value,
        unit,
        severity,
        states,
    }
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::NonCritical => "non-critical",
        Severity::Critical => "critical",
        Severity::NonRecoverable => "non-recoverable",
    }
}

fn event_log(info: &SelInfo, page: &SelPage) -> EventLog {
    let mut asserted = BTreeMap::new();
    for entry in &page.entries {
        if let SelRecord::Event { sensor_kind, asserted: true, .. } = entry.record {
            *asserted.entry(kind_name(sensor_kind)).or_default() += 1;
        }
    }
    let last_added = match info.last_added {
        EventTime::At(time) => Some(time.to_string()),
        EventTime::SinceStart(_) | EventTime::Unknown => None,
    };
    EventLog {
        entries: info.entries,
        overflow: info.overflow,
        last_added,
        counted: page.entries.len(),
        asserted,
    }
}

/// For people.
pub(crate) fn render(report: &Report) -> String {
    let Condition { power, faults, sensors, event_log } = &report.ipmi;
    let asserted: Vec<_> =
        event_log.asserted.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
    let mut text = fields(&[
        ("Power", power.clone()),
        ("Power faults", faults.join(", ")),
        (
            "Event log",
            format!(
                "{} entries{}, last {}",
                event_log.entries,
                if event_log.overflow { ", some lost" } else { "" },
                event_log.last_added.as_deref().unwrap_or("at an unknown time"),
            ),
        ),
        ("Events", asserted.join(", ")),
    ]);
    text += &inventory_table::render(&report.inventory);
    if sensors.is_empty() {
        return text;
    }
    text += &heading(&format!("Sensors ({})", sensors.len()));
    text += &table(
        &["NAME", "KIND", "VALUE", "UNIT", "SEVERITY"],
        sensors.iter().map(|sensor| {
            let states = sensor.states.as_ref().map(|states| {
                let states: Vec<_> = states.iter().map(ToString::to_string).collect();
                format!("states {}", states.join(" "))
            });
            vec![
                sensor.name.clone(),
                sensor.kind.to_owned(),
                sensor.value.map(|value| format!("{value:.2}")).or(states).unwrap_or_default(),
                shown(sensor.unit.as_ref()),
                sensor.severity.unwrap_or_default().to_owned(),
            ]
        }),
    );
    text
}

/// What IPMI has no use for.
pub(crate) fn refuse_trust() -> Failure {
    Problem::new("input.not-for-ipmi", "IPMI shows no key, so there is nothing to pin, to sign or to trust")
        .hint("leave --pin, --ca and --insecure out")
        .into()
}
