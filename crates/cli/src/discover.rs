//! `bailiwick discover`: what answers as a BMC, by Redfish or else by IPMI, without credentials.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use domain::{Diagnose as _, Problem};
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

Nothing is sent but a request for the service root, and to the IPMI port a presence ping and the
question which sessions there are. Compare each pin with what the BMC's own console shows before you
declare it.")]
pub(crate) struct DiscoverArgs {
    /// Networks (10.0.0.0/24, 10.0.0.0/24:8443), addresses and hosts (HOST, HOST:PORT, [IPV6]:PORT), separated by commas or spaces
    #[arg(value_name = "TARGET", value_delimiter = ',', required_unless_present = "dhcp_leases")]
    targets: Vec<String>,
    /// Port where a target names none
    #[arg(long, default_value_t = 443, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// UDP port where addresses that answer no Redfish are asked whether they speak IPMI
    #[arg(long, value_name = "PORT", default_value_t = domain::IpmiAddress::PORT, value_parser = clap::value_parser!(u16).range(1..))]
    ipmi_port: u16,
    /// Ask nobody for IPMI
    #[arg(long, conflicts_with = "ipmi_port")]
    no_ipmi: bool,
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
    what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
}

/// What answers at an address, and by which protocol; `redfish` also where it is no BMC at all.
#[derive(Debug, Serialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
enum What {
    Redfish(Probe),
    Ipmi(ByIpmi),
}

/// A BMC that answers by IPMI, and not by Redfish.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ByIpmi {
    /// The address asked.
    address: SocketAddr,
    /// Newest version that it offers sessions of; `null` where it answers the presence ping alone.
    version: Option<&'static str>,
    /// Who made the BMC, where it tells.
    vendor: Option<&'static str>,
    /// Whether it answers the presence ping.
    pong: bool,
    /// Whether anybody may log in without name and password.
    anonymous: Option<bool>,
    /// Whether a login needs a BMC key (Kg) beside the password.
    key_set: Option<bool>,
    /// Why it cannot be read as it is.
    problem: Option<Problem>,
}

impl ByIpmi {
    fn of(found: &ipmi::Probe) -> Self {
        let sessions = found.sessions.as_ref();
        Self {
            address: found.address,
            version: found.version(),
            vendor: found.maker(),
            pong: found.pong,
            anonymous: sessions.map(|sessions| sessions.anonymous),
            key_set: sessions.map(|sessions| sessions.key_set),
            problem: found.speaks_ipmi_2_0().err().map(|error| error.problem()),
        }
    }
}

impl Found {
    /// Each address has one finding, by whichever protocol.
    fn address(&self) -> SocketAddr {
        match &self.what {
            What::Redfish(probe) => probe.address,
            What::Ipmi(found) => found.address,
        }
    }

    /// Whether it is, or may be, a BMC.
    fn is_candidate(&self) -> bool {
        match &self.what {
            What::Redfish(probe) => probe.is_candidate(),
            What::Ipmi(_) => true,
        }
    }
}

/// Asks one address by both protocols at once, so that where nothing is nobody waits for longer. Redfish goes before IPMI.
async fn ask(address: SocketAddr, ipmi_port: Option<u16>, patience: Patience) -> Option<What> {
    let by_ipmi = async {
        let port = ipmi_port?;
        ipmi::probe(SocketAddr::new(address.ip(), port), patience.connect).await.ok()
    };
    let mut by_ipmi = std::pin::pin!(by_ipmi);
    let mut by_redfish = std::pin::pin!(probe(address, patience));
    let (probe, found) = tokio::select! {
        probe = &mut by_redfish => {
            if probe.is_candidate() {
                return Some(What::Redfish(probe));
            }
            (probe, by_ipmi.await)
        }
        found = &mut by_ipmi => (by_redfish.await, found),
    };
    match found {
        Some(found) if !probe.is_candidate() => Some(What::Ipmi(ByIpmi::of(&found))),
        _ => probe.answers().then_some(What::Redfish(probe)),
    }
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
    let ipmi_port = (!args.no_ipmi).then_some(args.ipmi_port);
    let mut probes = futures_util::stream::iter(addresses)
        .map(|(address, lease)| async move {
            Some(Found { what: ask(address, ipmi_port, patience).await?, lease })
        })
        .buffer_unordered(usize::from(args.concurrency));
    let mut answering: Vec<Found> = Vec::new();
    while let Some(found) = probes.next().await {
        bar.inc(1);
        if let Some(found) = found {
            answering.push(found);
            bar.set_message(format!("{} answering", answering.len()));
        }
    }
    bar.finish_and_clear();
    answering.sort_by_key(Found::address);
    // An address that was named with several Redfish ports has one IPMI port.
    answering.dedup_by_key(|found| found.address());
    let count = answering.len();
    let found = answering.into_iter().filter(|found| args.all || found.is_candidate()).collect();
    Discovery { probed, answering: count, found }
}

fn render(discovery: &Discovery) -> String {
    if discovery.found.is_empty() {
        return String::new();
    }
    let with_leases = discovery.found.iter().any(|found| found.lease.is_some());
    let with_ipmi = discovery.found.iter().any(|found| matches!(found.what, What::Ipmi(_)));
    let columns = |[address, vendor, product, redfish, ipmi, pin, mac, problem]: [String; 8]| {
        let mut row = vec![address, vendor, product, redfish];
        row.extend(with_ipmi.then_some(ipmi));
        row.push(pin);
        row.extend(with_leases.then_some(mac));
        row.push(problem);
        row
    };
    let header = ["ADDRESS", "VENDOR", "PRODUCT", "REDFISH", "IPMI", "PIN", "MAC", "PROBLEM"];
    let header = columns(header.map(ToOwned::to_owned));
    let header: Vec<_> = header.iter().map(String::as_str).collect();
    let rows = discovery.found.iter().map(|found| {
        let mac = shown(found.lease.as_ref().and_then(|lease| lease.mac.as_ref()));
        let code = |problem: Option<&Problem>| shown(problem.map(|problem| &problem.code));
        columns(match &found.what {
            What::Redfish(probe) => [
                probe.address.to_string(),
                shown(probe.vendor.as_ref()),
                shown(probe.product.as_ref()),
                shown(probe.redfish_version.as_ref()),
                String::new(),
                shown(probe.pin.as_ref()),
                mac,
                code(probe.problem.as_ref()),
            ],
            What::Ipmi(by_ipmi) => [
                by_ipmi.address.to_string(),
                shown(by_ipmi.vendor.as_ref()),
                String::new(),
                String::new(),
                by_ipmi.version.unwrap_or("ping").to_owned(),
                String::new(),
                mac,
                code(by_ipmi.problem.as_ref()),
            ],
        })
    });
    output::table(&header, rows)
}

fn summary(discovery: &Discovery) -> String {
    let Discovery { probed, answering, found } = discovery;
    let bmcs = found.iter().filter(|found| found.is_candidate()).count();
    let by_ipmi = found.iter().filter(|found| matches!(found.what, What::Ipmi(_))).count();
    let others = answering - bmcs;
    let ipmi = if by_ipmi > 0 { format!("; {by_ipmi} by IPMI alone") } else { String::new() };
    let more = if others > 0 && found.len() < *answering {
        format!("; {others} more answer otherwise (--all shows them)")
    } else {
        String::new()
    };
    format!("{} of {probed} addresses answer as a Redfish BMC{ipmi}{more}", bmcs - by_ipmi)
}
