//! Starts one counterpart and keeps it until it is told to end, for trying things by hand:
//! `cargo run -p bailiwick-testbed -- kubernetes`.
#![allow(clippy::print_stdout, reason = "a tool of developers whose only output is where things are")]

use std::process::ExitCode;

use bailiwick_testbed::{ControlPlane, Error, Postgres, SushyEmulator};

const USAGE: &str = "usage: bailiwick-testbed kubernetes|postgresql|sushy-tools";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(part) = std::env::args().nth(1) else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    match keep(&part).await {
        Ok(code) => code,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn keep(part: &str) -> Result<ExitCode, Error> {
    match part {
        "kubernetes" => {
            let control_plane = ControlPlane::start().await?;
            println!("KUBECONFIG={}", control_plane.kubeconfig_admin().display());
            until_interrupted().await;
        }
        "postgresql" => {
            let postgres = Postgres::start().await?;
            println!("DATABASE_URL={}", postgres.url("postgres"));
            until_interrupted().await;
        }
        "sushy-tools" => {
            let emulator = SushyEmulator::start().await?;
            println!(
                "https://{} as {} with password {}\n{}",
                emulator.address(),
                emulator.username(),
                emulator.password(),
                emulator.certificate_pem()
            );
            until_interrupted().await;
        }
        _ => {
            println!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn until_interrupted() {
    println!("running; Ctrl-C ends it");
    // Where the signal cannot be waited for, ending at once is all that is left.
    let _ = tokio::signal::ctrl_c().await;
}
