//! Starts one counterpart and keeps it until it is told to end, for trying things by hand:
//! `cargo run -p bailiwick-testbed -- kubernetes`.
#![allow(clippy::print_stdout, reason = "a tool of developers whose only output is where things are")]

use std::process::ExitCode;

use bailiwick_testbed::{ControlPlane, Ironic, Postgres, SushyEmulator};
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
        "ironic" => Ironic::start().await.map(|ironic| Counterpart::Ironic(Box::new(ironic))),
        _ => {
            println!("usage: bailiwick-testbed kubernetes|postgresql|sushy-tools|ironic");
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

enum Counterpart {
    Kubernetes(Box<ControlPlane>),
    PostgreSql(Postgres),
    SushyTools(SushyEmulator),
    Ironic(Box<Ironic>),
}

impl Counterpart {
    /// How to reach it.
    fn place(&self) -> String {
        match self {
            Self::Kubernetes(control_plane) => {
                format!("KUBECONFIG={}", control_plane.kubeconfig_admin().display())
            }
            Self::PostgreSql(postgres) => format!("DATABASE_URL={}", postgres.url("postgres")),
            Self::Ironic(ironic) => {
                format!("OS_AUTH_TYPE=none OS_ENDPOINT={}\nimages at {}", ironic.url(), ironic.images_url())
            }
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
