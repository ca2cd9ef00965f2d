//! Starts one counterpart and keeps it until it is told to end, for trying things by hand:
//! `cargo run -p bailiwick-testbed -- kubernetes`.
#![allow(clippy::print_stdout, reason = "a tool of developers whose only output is where things are")]

use std::process::ExitCode;

use bailiwick_testbed::{
    BaremetalOperator, ControlPlane, Error, IpmiSim, Ironic, Node, NodeOptions, Postgres, SushyEmulator,
};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let part = std::env::args().nth(1).unwrap_or_default();
    // Asked for before anything is started, so that nothing is left when the signal comes early.
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => {
                println!("cannot wait for signals: {error}");
                return ExitCode::FAILURE;
            }
        };
    tokio::select! {
        // Dropped with all that it started when a signal comes first.
        outcome = keep(&part) => outcome,
        _ = interrupt.recv() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::SUCCESS,
    }
}

/// Starts the part and keeps it; returns only when that is not possible.
async fn keep(part: &str) -> ExitCode {
    let started = match part {
        "kubernetes" => ControlPlane::start().await.map(|plane| Counterpart::Kubernetes(Box::new(plane))),
        "postgresql" => Postgres::start().await.map(Counterpart::PostgreSql),
        "sushy-tools" => SushyEmulator::start().await.map(Counterpart::SushyTools),
        "openipmi" => IpmiSim::start().await.map(Counterpart::OpenIpmi),
        "ironic" => Ironic::start().await.map(|ironic| Counterpart::Ironic(Box::new(ironic))),
        "baremetal-operator" => start_operator().await,
        "node" => start_node().await,
        _ => {
            println!(
                "usage: bailiwick-testbed kubernetes|node|baremetal-operator|ironic|postgresql|openipmi|sushy-tools"
            );
            return ExitCode::from(2);
        }
    };
    match started {
        Ok(counterpart) => {
            println!("{}\nrunning; Ctrl-C ends it", counterpart.place());
            std::future::pending().await
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// An operator, with what it works on.
async fn start_operator() -> Result<Counterpart, Error> {
    let (control_plane, ironic) = tokio::try_join!(ControlPlane::start(), Ironic::start())?;
    let operator = BaremetalOperator::start(&control_plane, &ironic).await?;
    Ok(Counterpart::Operator(Box::new((operator, ironic, control_plane))))
}

/// A cluster of one node. Its kubelet comes with the administrator's credentials, whose requests for
/// certificates the controller manager approves by itself.
async fn start_node() -> Result<Counterpart, Error> {
    let control_plane = ControlPlane::options().node_lifecycle(true).start().await?;
    let path = control_plane.kubeconfig_admin();
    let kubeconfig = std::fs::read_to_string(path).map_err(|source| Error::File {
        doing: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let configuration = "{ apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration }";
    let mut node = NodeOptions::new("node", &kubeconfig, configuration).start(&control_plane).await?;
    node.wait_until_ready(&control_plane).await?;
    Ok(Counterpart::Node(Box::new((node, control_plane))))
}

enum Counterpart {
    // Dropped in order: what works on something before that.
    Operator(Box<(BaremetalOperator, Ironic, ControlPlane)>),
    Node(Box<(Node, ControlPlane)>),
    Kubernetes(Box<ControlPlane>),
    PostgreSql(Postgres),
    SushyTools(SushyEmulator),
    OpenIpmi(IpmiSim),
    Ironic(Box<Ironic>),
}

impl Counterpart {
    /// How to reach it.
    fn place(&self) -> String {
        let kubeconfig = |plane: &ControlPlane| format!("KUBECONFIG={}", plane.kubeconfig_admin().display());
        match self {
            Self::Kubernetes(control_plane) => kubeconfig(control_plane),
            Self::Node(both) => {
                format!("{}\nkubelet in {}", kubeconfig(&both.1), both.0.kubelet_dir().display())
            }
            Self::Operator(all) => format!(
                "{}\nnamespace {}\n{}",
                kubeconfig(&all.2),
                all.0.namespace(),
                place_of_ironic(&all.1)
            ),
            Self::PostgreSql(postgres) => format!("DATABASE_URL={}", postgres.url("postgres")),
            Self::Ironic(ironic) => place_of_ironic(ironic),
            Self::OpenIpmi(bmc) => format!(
                "ipmitool -I lanplus -H {} -p {} -U {} -P {} -C 3",
                bmc.address().ip(),
                bmc.address().port(),
                bmc.username(),
                bmc.password()
            ),
            Self::SushyTools(emulator) => format!(
                "https://{} as {} with password {}\n{}",
                emulator.address(),
                emulator.username(),
                emulator.password(),
                emulator.certificate_pem()
            ),
        }
    }
}

fn place_of_ironic(ironic: &Ironic) -> String {
    let images = format!("{} at {}", ironic.images_dir().display(), ironic.images_url());
    format!("OS_AUTH_TYPE=none OS_ENDPOINT={}\nimages of {images}", ironic.url())
}
