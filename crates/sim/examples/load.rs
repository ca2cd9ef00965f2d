//! How fast the simulator answers: `cargo run --release -p bailiwick-sim --example load -- MACHINES REQUESTS`.
//!
//! Starts a site of that many machines (all models in turn), then asks each for that many resources over one keep-alive connection, 64
//! machines at a time, from the same process. Prints the time and the resident memory after each phase.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use bailiwick_sim::{Model, Site};
use reqwest::Client;
use tokio::sync::Semaphore;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let (machines, requests) = match numbers.as_slice() {
        [machines, requests] => (*machines, *requests),
        _ => (1000, 100),
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err("another TLS provider is installed".into());
    }
    let state = tempfile::tempdir()?;
    let mut site = Site::builder(state.path()).seed("load");
    for (index, model) in Model::ALL.into_iter().enumerate() {
        let share = machines / 3 + usize::from(index < machines % 3);
        site = site.machines(model, share);
    }
    let start = Instant::now();
    let site = site.build().start().await?;
    println!("{machines} machines started in {:.2?}; {} MiB resident", start.elapsed(), resident_mib());

    let start = Instant::now();
    let permits = Arc::new(Semaphore::new(64));
    let mut tasks = tokio::task::JoinSet::new();
    for machine in site.machines().to_vec() {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let paths: Vec<String> = site.bmc(&machine.name).map_or_else(Vec::new, |bmc| {
            bmc.tree().paths().filter(|path| !path.contains('?')).map(str::to_owned).take(requests).collect()
        });
        tasks.spawn(async move {
            let client = Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build()?;
            let mut answered = 0_u64;
            for path in paths {
                let request = client.get(format!("{}{path}", machine.url));
                let answer = request.basic_auth(&machine.username, Some(&machine.password)).send().await?;
                answer.error_for_status()?.bytes().await?;
                answered += 1;
            }
            drop(permit);
            Ok::<u64, reqwest::Error>(answered)
        });
    }
    let mut answered = 0;
    while let Some(done) = tasks.join_next().await {
        answered += done??;
    }
    let elapsed = start.elapsed();
    println!(
        "{answered} requests in {elapsed:.2?}: {:.0} requests/s, {:.1} machines/s; {} MiB resident",
        f64::from(u32::try_from(answered)?) / elapsed.as_secs_f64(),
        f64::from(u32::try_from(machines)?) / elapsed.as_secs_f64(),
        resident_mib()
    );
    site.shutdown().await;
    Ok(())
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
