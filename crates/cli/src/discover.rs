//! `bailiwick discover`: what answers as a Redfish BMC, without credentials.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use redfish::probe::{Patience, Probe, probe};
use serde::Serialize;

use crate::errors::{Outcome, note};
use crate::files;
use crate::leases::{self, Lease};
use crate::output::{self, Format, shown};
use crate::progress::Progress;
use crate::targets::{self, Target};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick discover 10.0.0.0/24,10.0.1.7
  bailiwick discover 127.0.0.0/28:8443 -o json
  bailiwick discover --dhcp-leases /var/lib/misc/dnsmasq.leases

Nothing is sent but a request for the service root. Compare each pin with what the BMC's own console
shows before you declare it.")]
pub(crate) struct DiscoverArgs {
    /// Networks (10.0.0.0/24, 10.0.0.0/24:8443), addresses and hosts (HOST, HOST:PORT, [IPV6]:PORT), separated by commas or spaces
    #[arg(value_name = "TARGET", value_delimiter = ',', required_unless_present = "dhcp_leases")]
    targets: Vec<String>,
    /// Port where a target names none
    #[arg(long, default_value_t = 443, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Also every address leased out in this file (dnsmasq, ISC dhcpd, Kea CSV)
    #[arg(long, value_name = "FILE")]
    dhcp_leases: Option<PathBuf>,
    /// Addresses probed at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Seconds until an address counts as dead
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    connect_timeout: u64,
    /// Show everything that answers, also what is no BMC
    #[arg(long)]
    all: bool,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Discovery {
    /// Addresses probed.
    probed: usize,
    /// Addresses where something answers.
    answering: usize,
    /// Those that are, or may be, BMCs; with `--all` everything that answers.
    found: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    #[serde(flatten)]
    probe: Probe,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
}

/// Runs the command.
pub(crate) async fn run(args: &DiscoverArgs) -> Outcome {
    let format = args.output.unwrap_or(Format::Table);
    let mut targets = Vec::new();
    for text in &args.targets {
        targets.push(Target::parse(text, args.port)?);
    }
    let leases = match &args.dhcp_leases {
        Some(file) => leases::read(&file.display().to_string(), &files::read_text(file)?)?,
        None => Vec::new(),
    };
    let addresses = targets::expand(&targets, leases, args.port).await?;
    let progress = Progress::new(format != Format::Table);
    let discovery = discover(args, addresses.into_iter().collect(), &progress).await;
    progress.clear();
    output::value(format, &discovery, render)?;
    if format == Format::Table {
        note(&summary(&discovery));
    }
    Ok(())
}

async fn discover(
    args: &DiscoverArgs,
    addresses: Vec<(SocketAddr, Option<Lease>)>,
    progress: &Progress,
) -> Discovery {
    let probed = addresses.len();
    let bar = progress.bar("probing", probed as u64);
    let patience = Patience { connect: Duration::from_secs(args.connect_timeout), ..Patience::default() };
    let mut probes = futures_util::stream::iter(addresses)
        .map(|(address, lease)| async move { Found { probe: probe(address, patience).await, lease } })
        .buffer_unordered(usize::from(args.concurrency));
    let mut answering = Vec::new();
    while let Some(found) = probes.next().await {
        bar.inc(1);
        if found.probe.answers() {
            answering.push(found);
            bar.set_message(format!("{} answering", answering.len()));
        }
    }
    bar.finish_and_clear();
    answering.sort_by_key(|found| found.probe.address);
    let count = answering.len();
    let found = answering.into_iter().filter(|found| args.all || found.probe.is_candidate()).collect();
    Discovery { probed, answering: count, found }
}

fn render(discovery: &Discovery) -> String {
    let rows = discovery.found.iter().map(|Found { probe, lease }| {
        let lease = lease.as_ref();
        vec![
            probe.address.to_string(),
            shown(probe.vendor.as_ref()),
            shown(probe.product.as_ref()),
            shown(probe.redfish_version.as_ref()),
            shown(probe.pin.as_ref()),
            shown(lease.and_then(|lease| lease.mac.as_ref())),
            shown(probe.problem.as_ref().map(|problem| &problem.code)),
        ]
    });
    let with_leases = discovery.found.iter().any(|found| found.lease.is_some());
    let mut header = vec!["ADDRESS", "VENDOR", "PRODUCT", "REDFISH", "PIN", "MAC", "PROBLEM"];
    if !with_leases {
        header.remove(5);
    }
    let rows = rows.map(|mut row| {
        if !with_leases {
            row.remove(5);
        }
        row
    });
    if discovery.found.is_empty() { String::new() } else { output::table(&header, rows) }
}

fn summary(discovery: &Discovery) -> String {
    let Discovery { probed, answering, found } = discovery;
    let bmcs = found.iter().filter(|found| found.probe.is_candidate()).count();
    let others = answering - bmcs;
    let more = if others > 0 && found.len() < *answering {
        format!("; {others} more answer otherwise (--all shows them)")
    } else {
        String::new()
    };
    format!("{bmcs} of {probed} addresses answer as a Redfish BMC{more}")
}
