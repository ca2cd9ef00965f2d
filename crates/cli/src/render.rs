//! `bailiwick render`: objects for a GitOps repository, made from what is declared.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use domain::base_cluster::{self, BaseClusterSpec};
use domain::declaration::Zone;
use domain::{Declaration, Kind, Name, Spec};
use ipnet::IpNet;
use metal3::cluster_api::{self, ClusterInput};
use serde_json::{Value, json};

use crate::args::Global;
use crate::client::Client;
use crate::errors::{Failure, Outcome, problem};
use crate::get::{What, not_found};
use crate::output::{self, Format};

#[derive(Args, Debug)]
pub(crate) struct RenderArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The Cluster API objects of a base cluster: cluster, control plane, machine templates, workers
    #[command(name = "basecluster")]
    BaseCluster(BaseClusterArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick render basecluster fra1-official --workers 12 > clusters/fra1-official.yaml
  bailiwick render basecluster fra1-official --workers 3 -o json | jq '.items[].kind'

For Cluster API 1.14 with its Metal3 provider. The templates choose available machines by the labels that the cell keeps on
their BareMetalHosts: jurisdiction, site and zone. None of the objects holds a secret.")]
struct BaseClusterArgs {
    /// The base cluster
    #[arg(value_parser = crate::apply::parse_name)]
    name: Name,
    /// How many machines are workers
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: u32,
    /// Namespace of the objects, which is that of the BareMetalHosts
    #[arg(long, value_name = "NAME", default_value = "metal3", value_parser = crate::apply::parse_name)]
    namespace: Name,
    /// Networks of pods
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',', default_value = "10.244.0.0/16")]
    pod_cidrs: Vec<IpNet>,
    /// Networks of services
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',', default_value = "10.96.0.0/12")]
    service_cidrs: Vec<IpNet>,
    /// Form of the output [default: yaml]
    #[arg(long, short, value_enum)]
    output: Option<Format>,
}

impl RenderArgs {
    pub(crate) fn output(&self) -> Option<Format> {
        let Action::BaseCluster(args) = &self.action;
        args.output
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &RenderArgs) -> Outcome {
    let Action::BaseCluster(args) = &args.action;
    let client = Client::of(global)?;
    let spec = match declared(&client, Kind::BaseCluster, &args.name).await? {
        Spec::BaseCluster(spec) => *spec,
        _ => return Err(not_found("BaseCluster", args.name.as_str(), What::BaseClusters, &[])),
    };
    let of_site = match declared(&client, Kind::Site, &spec.site).await? {
        Spec::Site(site) => site.zone,
        _ => None,
    };
    let cell = client.version().await?.cell;
    let input = input(args, &spec, spec.zone.as_ref().or(of_site.as_ref()), &cell)?;
    match args.output {
        Some(Format::Json) => {
            let items = cluster_api::render(&input).map_err(Failure::from)?;
            output::value(Format::Json, &json!({ "items": items }), |_| String::new())
        }
        _ => output::text(&cluster_api::render_yaml(&input).map_err(Failure::from)?),
    }
}

async fn declared(client: &Client, kind: Kind, name: &Name) -> Outcome<Spec> {
    let document: Value = client.declaration(kind, name.as_str()).await?;
    let declaration = Declaration::from_json(document);
    declaration
        .map(|declaration| declaration.spec)
        .map_err(|error| Failure::new("cell.answer", format!("{kind}/{name} cannot be read: {error}")))
}

fn input(
    args: &BaseClusterArgs,
    spec: &BaseClusterSpec,
    zone: Option<&Zone>,
    cell: &str,
) -> Outcome<ClusterInput> {
    let Some((host, port)) = endpoint(&spec.endpoint) else {
        let message = format!("the endpoint {:?} has no host and port", spec.endpoint);
        return Err(problem("basecluster.endpoint-malformed", message).into());
    };
    let cell = Name::new(cell).map_err(|error| Failure::new("cell.answer", error.to_string()))?;
    Ok(ClusterInput {
        cell,
        name: args.name.clone(),
        namespace: args.namespace.clone(),
        jurisdiction: spec.jurisdiction.clone(),
        site: spec.site.clone(),
        zone_tier: zone.map_or("none", |zone| zone.tier.as_str()).to_owned(),
        zone_handling: zone.and_then(|zone| zone.handling).map(|handling| handling.as_str().to_owned()),
        kubernetes_version: spec.kubernetes_version.clone(),
        control_plane: match spec.control_plane {
            base_cluster::ControlPlane::External => cluster_api::ControlPlane::External { reference: None },
            base_cluster::ControlPlane::Machines { count } => {
                cluster_api::ControlPlane::Machines { count: u32::from(count) }
            }
        },
        workers: args.workers,
        image: (&spec.image).into(),
        endpoint_host: host,
        endpoint_port: port,
        pod_cidrs: args.pod_cidrs.clone(),
        service_cidrs: args.service_cidrs.clone(),
        host_selector: BTreeMap::new(),
        kubelet_args: BTreeMap::new(),
        health_check: None,
    })
}

fn endpoint(url: &str) -> Option<(String, u16)> {
    let url = url::Url::parse(url).ok()?;
    Some((url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for (url, expected) in [
            ("https://10.0.2.1:6443", Some(("10.0.2.1".to_owned(), 6443))),
            ("https://[fd00::1]:6443", Some(("fd00::1".to_owned(), 6443))),
            ("https://api.example", Some(("api.example".to_owned(), 443))),
            ("10.0.2.1:6443", None),
        ] {
            assert_eq!(endpoint(url), expected, "{url}");
        }
    }
}
