//! `bailiwick quickstart`: a simulated rack, a cell that enrols, provisions and publishes it, in one process with nothing to
//! configure.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::sim::{RunningSite, Site};
use cell::api::types::{ClassItem, GpuItem, Machine, PlanRequest, Publication, Secret};
use cell::{Cell, CellError, RunningCell, Settings, SinkSettings};
use clap::Args;
use domain::assignment::AssignmentSpec;
use domain::declaration::Metadata;
use domain::{Declaration, MachineState, Plan, Spec};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};
use tracing_subscriber::EnvFilter;

use crate::assign::distance;
use crate::client::Client;
use crate::context::Place;
use crate::declarations;
use crate::errors::{Failure, Outcome, failed, note, problem};
use crate::get::{gpu_table, machine_table, trial_names};
use crate::line::Line;
use crate::output::{self, Format, heading};
use crate::progress::Progress;
use crate::rack;
use crate::shell::quote;
use crate::signals::{asked_again, asked_to_end, interruptible};

/// Longer than any machine here takes; something is wrong then.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long news are waited for before the cell is asked again.
const POLL: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick quickstart
  bailiwick quickstart --once
  bailiwick quickstart --once -o json | jq '.gpus | length'

Everything is kept in the data directory; remove it to start anew. A second run finds everything as it was left and changes nothing.")]
pub(crate) struct QuickstartArgs {
    /// End after publishing
    #[arg(long)]
    once: bool,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "./bailiwick-data")]
    data_dir: PathBuf,
    /// Address of the API [default: 127.0.0.1:8460, or a free port where that is taken]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Form of the output [default: table]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

/// What stands at the end.
struct Summary {
    server: String,
    token_file: PathBuf,
    directory: PathBuf,
    changed: bool,
    machines: Vec<Machine>,
    gpus: Vec<GpuItem>,
    classes: Vec<ClassItem>,
    publications: Vec<Publication>,
}

/// Runs the command.
pub(crate) async fn run(args: &QuickstartArgs) -> Outcome {
    let format = args.output.unwrap_or(Format::Table);
    make_private(&args.data_dir)?;
    let _alone = lock(&args.data_dir)?;
    log_to(&args.data_dir.join("quickstart.log"))?;
    let site = Site::quickstart_rack(args.data_dir.join("sim"))
        .start()
        .await
        .map_err(|error| crate::sim::failed(&error))?;
    let outcome = Box::pin(with_site(args, format, &site)).await;
    site.shutdown().await;
    outcome
}

async fn with_site(args: &QuickstartArgs, format: Format, site: &RunningSite) -> Outcome {
    let mut settings = Settings::new(&args.data_dir);
    settings.listen = args.listen.unwrap_or(settings.listen);
    settings.jurisdiction = domain::Name::new(rack::JURISDICTION).ok();
    settings.sinks = vec![SinkSettings::Directory(args.data_dir.join("publish"))];
    let line = Line::start(&args.data_dir.join("sim"), site).await?;
    settings.secrets_dir = Some(line.secrets_dir());
    settings.provisioners = vec![line.provisioner()];
    let running = start_cell(settings, args.listen.is_some()).await?;
    let progress = Progress::new(format != Format::Table);
    let serve = async {
        interruptible(with_cell(args, format, site, &running, &progress)).await?;
        progress.clear();
        if !args.once {
            note(&format!("\nServing on http://{} until interrupted.", running.address()));
            asked_to_end().await;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = serve => outcome,
        failure = line.keep_saved() => Err(failure),
    };
    progress.clear();
    tokio::select! {
        () = running.shutdown() => {}
        () = asked_again() => return Err(Failure::Interrupted),
    }
    line.save()?;
    outcome
}

async fn with_cell(
    args: &QuickstartArgs,
    format: Format,
    site: &RunningSite,
    running: &RunningCell,
    progress: &Progress,
) -> Outcome {
    let inventory = rack::write(&args.data_dir.join("inventory"), site)?;
    let token_file = running.settings().admin_token_file();
    let server = format!("http://{}", running.address());
    let token = Secret(crate::files::read_text(&token_file)?.trim().to_owned());
    let client = Client::new(&Place { server: server.clone(), token: Some(token), ca: None })?;
    let plan = declare(&client, &inventory).await?;
    // What a user decides afterwards stays: a later run assigns nothing, and waits for no machine that shall not serve.
    let assigned = args.data_dir.join("sim/assigned");
    let is_first = !assigned.exists();
    if is_first {
        follow(&client, site, progress, MachineState::Available, arrived).await?;
        assign(&client, site).await?;
        std::fs::write(&assigned, "").map_err(|error| unwritable(&assigned, &error))?;
        follow(&client, site, progress, MachineState::InService, arrived).await?;
    } else {
        follow(&client, site, progress, MachineState::InService, settled).await?;
    }
    let changed = is_first || !plan.is_empty();
    let (machines, gpus, classes, publications) =
        tokio::try_join!(client.machines(), client.gpus(), client.classes(), client.publications())?;
    let directory = args.data_dir.clone();
    let result = Summary { server, token_file, directory, changed, machines, gpus, classes, publications };
    output::value(format, &document(&result), |_| render(&result, args.once, site))
}

/// Declares the rack through the API, like any client.
async fn declare(client: &Client, inventory: &Path) -> Outcome<Plan> {
    let found = declarations::read(&[inventory.to_path_buf()]).await?;
    let request = PlanRequest { apply: found.objects, passwords: found.passwords, ..PlanRequest::default() };
    let plan = client.plan(&request).await?;
    if !plan.is_empty() {
        client.apply(&plan.digest).await?;
    }
    Ok(plan)
}

/// Has every machine provisioned, like `bailiwick provision`.
async fn assign(client: &Client, site: &RunningSite) -> Outcome {
    let base_cluster = domain::Name::new(rack::BASE_CLUSTER).ok();
    let mut request = PlanRequest::default();
    for machine in site.machines() {
        let Ok(name) = domain::Name::new(machine.name.clone()) else { continue };
        let spec = AssignmentSpec { base_cluster: base_cluster.clone(), ..AssignmentSpec::default() };
        let metadata = Metadata { name, labels: BTreeMap::new() };
        request.apply.push(Declaration { metadata, spec: Spec::Assignment(spec) });
    }
    let plan = client.plan(&request).await?;
    if !plan.is_empty() {
        client.apply(&plan.digest).await?;
    }
    Ok(())
}

/// Waits until every machine has come so far, and what they told is published.
async fn follow(
    client: &Client,
    site: &RunningSite,
    progress: &Progress,
    so_far: MachineState,
    is_there: fn(&Machine, MachineState) -> bool,
) -> Outcome {
    let bars: BTreeMap<&str, ProgressBar> = site
        .machines()
        .iter()
        .map(|machine| {
            (machine.name.as_str(), progress.bar(&machine.name, distance(MachineState::InService) + 1))
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    let mut events = client.watch().await?;
    loop {
        let machines: Vec<Machine> = client
            .machines()
            .await?
            .into_iter()
            .filter(|machine| bars.contains_key(machine.name.as_str()))
            .collect();
        for machine in &machines {
            show(&bars[machine.name.as_str()], machine);
        }
        let arrived =
            machines.len() == bars.len() && machines.iter().all(|machine| is_there(machine, so_far));
        if arrived && so_far < MachineState::InService {
            for bar in bars.values() {
                bar.finish_and_clear();
            }
            return Ok(());
        }
        if arrived && published(client).await? {
            for bar in bars.values() {
                bar.set_position(distance(MachineState::InService) + 1);
                bar.finish_with_message("published");
            }
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(late(&machines));
        }
        tokio::select! {
            event = timeout_at(deadline, events.next()) => if let Ok(event) = event && event?.is_none() {
                return Err(Failure::new("cell.unreachable", "the cell ended the stream of events"));
            },
            () = sleep(POLL) => {}
        }
    }
}

/// Whether it has come so far.
fn arrived(machine: &Machine, so_far: MachineState) -> bool {
    machine.state >= so_far && machine.state <= MachineState::InService
}

/// Whether it has come so far, or goes there no more: it waits for people, or shall do something else.
fn settled(machine: &Machine, so_far: MachineState) -> bool {
    machine.state == so_far
        || machine.waiting.is_some()
        || machine.base_cluster.is_none()
        || matches!(machine.state, MachineState::Draining | MachineState::Quarantined | MachineState::Retired)
}

fn show(bar: &ProgressBar, machine: &Machine) {
    bar.set_position(distance(machine.state));
    bar.set_message(match &machine.waiting {
        Some(waiting) => format!("{}: {}", machine.state, waiting.problem.code),
        None => machine.state.to_string(),
    });
}

/// Whether every sink reflects the last enrolment.
async fn published(client: &Client) -> Outcome<bool> {
    let (publications, last) = tokio::try_join!(client.publications(), client.last_event_of("machine."))?;
    if let Some(problem) = publications.iter().find_map(|publication| publication.problem.clone()) {
        return Err(problem.into());
    }
    Ok(!publications.is_empty()
        && publications.iter().all(|publication| publication.at.is_some() && publication.through >= last))
}

fn late(machines: &[Machine]) -> Failure {
    let mut problems = vec![problem(
        "quickstart.enrolment",
        format!("not every machine was provisioned and published within {PATIENCE:?}"),
    )];
    problems.extend(machines.iter().filter_map(|machine| {
        let waiting = machine.waiting.as_ref()?;
        Some(waiting.problem.clone().at(format!("Machine/{}", machine.name)))
    }));
    Failure::all(problems)
}

fn document(result: &Summary) -> serde_json::Value {
    json!({
        "changed": result.changed,
        "jurisdiction": rack::JURISDICTION,
        "server": result.server,
        "tokenFile": result.token_file,
        "dataDirectory": result.directory,
        "publishDirectory": result.directory.join("publish"),
        "machines": result.machines,
        "gpus": result.gpus,
        "classes": result.classes,
        "publications": result.publications,
    })
}

fn render(result: &Summary, once: bool, site: &RunningSite) -> String {
    let mut text = String::new();
    if !result.changed {
        text += &unchanged(&result.machines);
    }
    text += &heading(&format!("Machines ({})", result.machines.len()));
    text += &machine_table(&result.machines);
    text += &heading(&format!("GPUs ({})", result.gpus.len()));
    text += &gpu_table(&result.gpus, &trial_names(&result.classes));
    text += &heading("Published");
    let publish = result.directory.join("publish");
    text += &format!(
        "{}  for Git: policies and classes, to be applied as the cell's user\n",
        publish.join("declared").display()
    );
    text += &format!(
        "{}  for inspection: slices and taints, which only a cell may write\n",
        publish.join("observed").display()
    );
    for publication in &result.publications {
        text += &format!("{} objects, all in place\n", publication.objects);
    }
    text += &heading("What to try next");
    text + &next_steps(result, once, site)
}

fn unchanged(machines: &[Machine]) -> String {
    let elsewhere = machines.iter().filter(|machine| machine.state != MachineState::InService);
    let elsewhere: Vec<_> =
        elsewhere.map(|machine| format!("{} is {}", machine.name, machine.state)).collect();
    if elsewhere.is_empty() {
        return "Everything was declared and provisioned before; nothing was changed.\n".to_owned();
    }
    format!(
        "Everything was declared before; nothing was changed, and {}, as was decided since.\n",
        elsewhere.join(", ")
    )
}

/// Commands to copy.
fn next_steps(result: &Summary, once: bool, site: &RunningSite) -> String {
    let program = program();
    let shown = |path: &Path| quote(&path.display().to_string());
    if once {
        let again = format!("{program} quickstart --data-dir {}", shown(&result.directory));
        return format!("{again}   # the same, and keeps serving\n");
    }
    let token_file = std::path::absolute(&result.token_file).unwrap_or_else(|_| result.token_file.clone());
    let mut text = format!(
        "export BAILIWICK_SERVER={} BAILIWICK_TOKEN_FILE={}\n\
         {program} get machines\n\
         {program} why r1-u01\n\
         {program} get classes\n\
         {program} apply -f {}\n",
        result.server,
        shown(&token_file),
        shown(&result.directory.join("inventory")),
    );
    if let Some(machine) = site.machines().first() {
        text += &format!(
            "{program} inspect {} --username {} --password-file {} --pin {} -o table\n",
            machine.url,
            machine.username,
            shown(site.password_file()),
            machine.pin
        );
    }
    text
}

/// How to call this program again: by name where the shell finds it so, else by its path.
fn program() -> String {
    let Ok(own) = std::env::current_exe() else { return "bailiwick".to_owned() };
    let found = std::env::var_os("PATH").is_some_and(|path| {
        let first = std::env::split_paths(&path)
            .map(|directory| directory.join("bailiwick"))
            .find(|file| file.is_file());
        first.and_then(|file| file.canonicalize().ok()) == own.canonicalize().ok()
    });
    if found {
        return "bailiwick".to_owned();
    }
    let near =
        std::env::current_dir().ok().and_then(|here| own.strip_prefix(here).ok().map(Path::to_path_buf));
    quote(&near.unwrap_or(own).display().to_string())
}

/// Starts the cell at the usual address; where that is taken and nobody insisted on it, at a free port.
async fn start_cell(mut settings: Settings, insisted: bool) -> Outcome<RunningCell> {
    let first = Box::pin(Cell::start(settings.clone())).await;
    match first {
        Err(CellError::Listen { address, source }) if !insisted && source.kind() == ErrorKind::AddrInUse => {
            note(&format!("{address} is taken; a free port is used"));
            settings.listen.set_port(0);
            Box::pin(Cell::start(settings)).await
        }
        other => other,
    }
    .map_err(|error| failed(&error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new("output.write", format!("{} cannot be written: {error}", path.display()))
}

fn make_private(directory: &Path) -> Outcome {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
        Failure::new("output.write", format!("{} cannot be made: {error}", directory.display()))
    })
}

/// Before anything is written: another run may be at work here.
fn lock(directory: &Path) -> Outcome<std::fs::File> {
    let path = directory.join("quickstart.lock");
    let file = std::fs::File::create(&path).map_err(|error| unwritable(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(problem("quickstart.running", format!("another quickstart works in {}", directory.display()))
                .into())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(unwritable(&path, &error)),
    }
}

/// The log would tear the progress bars apart, so it goes to a file: that of the last run.
fn log_to(path: &Path) -> Outcome {
    let file = std::fs::File::create(path).map_err(|error| unwritable(path, &error))?;
    let started = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(file))
        .try_init();
    started.map_err(|error| Failure::new("runtime", format!("the log cannot be started: {error}")))
}
