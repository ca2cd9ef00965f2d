//! `bailiwick inspect`: the inventory of one BMC, with no cell and no database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use domain::{Inventory, IpmiAddress};
use redfish::{Client, Credentials, Options, Reader as _, SpkiPin, Target, Trust, WalkOptions};
use tokio::task::JoinHandle;

use crate::errors::{self, Failure, Outcome, failed};
use crate::files;
use crate::inspect_ipmi;
use crate::inventory_table;
use crate::output::{self, Format};
use crate::shell;
use crate::signals::{asked_to_end, interruptible};

/// How long an interrupted command waits for the BMC to end the session.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  # The pin comes from the BMC's own console, or from a first run without one.
  bailiwick inspect https://10.0.0.5 -u admin --password-file pw --pin sha256:0123…
  # Signed by the company's CA; the password comes from a vault.
  vault read -field=pw bmc/r1 |
    bailiwick inspect https://bmc-r1 -u admin --password-file - --ca ca.pem
  # A machine without Redfish.
  bailiwick inspect ipmi://10.0.0.9 -u admin --password-file pw -o table
  # The GPUs' serial numbers.
  bailiwick inspect … -o json | jq -r '.gpus[].serial'")]
pub(crate) struct InspectArgs {
    /// The BMC: https://HOST[:PORT], or ipmi://HOST[:PORT] for one without Redfish; IPv6 addresses in brackets
    #[arg(value_name = "BMC")]
    bmc: String,
    /// User name at the BMC
    #[arg(long, short, requires = "password_file")]
    username: Option<String>,
    /// File that holds the password; `-` reads it from standard input
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
    /// Ends the reading after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    deadline: u64,
    /// Form of the output [default: json]
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Args, Debug)]
#[group(multiple = false)]
struct TrustArgs {
    /// SHA-256 of the BMC's public key (SPKI), which its certificate must show
    #[arg(long, value_name = "sha256:…")]
    pin: Option<SpkiPin>,
    /// PEM file of the CAs, one of which must have signed the BMC's certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Take any certificate: sends the password to whoever answers
    #[arg(long)]
    insecure: bool,
}

impl TrustArgs {
    fn read(&self) -> Outcome<Trust> {
        Ok(match (self.pin, &self.ca, self.insecure) {
            (Some(pin), ..) => Trust::Pin(pin),
            (None, Some(file), _) => Trust::Ca(files::read(file)?),
            (None, None, true) => Trust::Insecure,
            (None, None, false) => Trust::FirstUse,
        })
    }
}

/// Runs the command.
pub(crate) async fn run(args: &InspectArgs) -> Outcome {
    if args.bmc.trim().starts_with(IpmiAddress::SCHEME) {
        return by_ipmi(args).await;
    }
    let trust = args.trust.read()?;
    let target = Target::new(&args.bmc, trust.clone());
    if matches!(trust, Trust::FirstUse) {
        return Err(refuse(args, target).await);
    }
    let credentials = login(args).await?.map(|(user, password)| Credentials::new(user, password.as_str()));
    let options = Options {
        credentials,
        concurrency: usize::from(args.concurrency),
        deadline: Some(Duration::from_secs(args.deadline)),
        ..Options::default()
    };
    let anonymous = options.credentials.is_none();
    let inventory = Box::pin(read(target, options)).await.map_err(|failure| match failure {
        Failure::Problems { problems, .. } if anonymous && asks_for_credentials(&problems) => {
            no_credentials()
        }
        other => other,
    })?;
    output::value(args.output.unwrap_or(Format::Json), &inventory, inventory_table::render)
}

/// A BMC without Redfish. It proves that it knows the password before we do, so that nobody else learns anything of it.
async fn by_ipmi(args: &InspectArgs) -> Outcome {
    let Some(address) = IpmiAddress::parse(&args.bmc) else {
        let message = format!("{:?} is no address of a BMC: write ipmi://HOST[:PORT]", args.bmc);
        return Err(domain::Problem::new("bmc.address-invalid", message).into());
    };
    if !matches!(args.trust.read()?, Trust::FirstUse) {
        return Err(inspect_ipmi::refuse_trust());
    }
    let Some((user, password)) = login(args).await? else { return Err(no_credentials()) };
    let credentials = ipmi::Credentials::new(user, password.as_str());
    let deadline = Duration::from_secs(args.deadline);
    let report = interruptible(inspect_ipmi::read(&address, credentials, deadline)).await?;
    output::value(args.output.unwrap_or(Format::Json), &report, inspect_ipmi::render)
}

/// User name and password, where they are given.
async fn login(args: &InspectArgs) -> Outcome<Option<(String, files::Password)>> {
    let (Some(username), Some(file)) = (&args.username, &args.password_file) else { return Ok(None) };
    let file = file.clone();
    let password = interruptible(files::apart(move || read_password(&file))).await?;
    Ok(Some((username.clone(), password)))
}

fn no_credentials() -> Failure {
    domain::Problem::new("bmc.unauthorized", "the BMC asks for credentials, and none were given")
        .hint("give --username and --password-file")
        .into()
}

fn asks_for_credentials(problems: &[domain::Problem]) -> bool {
    problems
        .iter()
        .any(|problem| matches!(&*problem.code, "redfish.resource.unauthorized" | "bmc.unauthorized"))
}

fn read_password(file: &Path) -> Outcome<files::Password> {
    let password = files::read_password(file)?;
    if let Some(problem) = files::readable_by_others(file) {
        errors::warn(&problem);
    }
    Ok(password)
}

/// Reads the pin without credentials, and says how to go on with it.
async fn refuse(args: &InspectArgs, target: Target) -> Failure {
    let connected = tokio::select! {
        connected = Client::connect(target, Options::default()) => connected,
        () = asked_to_end() => return Failure::Interrupted,
    };
    let client = match connected {
        Ok(client) => client,
        Err(error) => return failed(&error),
    };
    let pin = client.peer_pin();
    client.close().await;
    let Some(pin) = pin else {
        return Failure::new("bmc.trust-required", "nothing says how the BMC proves who it is");
    };
    let mut problem = domain::Problem::new(
        "bmc.trust-required",
        "nothing says how the BMC proves who it is, so no credentials were sent",
    )
    .difference(format!("a key with the pin {pin}"), "one of --pin, --ca, --insecure");
    problem.hint = Some(format!(
        "if the BMC's own console shows the same pin, run\n            {}",
        shell::command_line(&again(args, pin))
    ));
    problem.into()
}

/// The same command with the pin.
fn again(args: &InspectArgs, pin: SpkiPin) -> Vec<String> {
    let mut words = vec!["bailiwick".to_owned(), "inspect".to_owned(), args.bmc.clone()];
    if let (Some(username), Some(file)) = (&args.username, &args.password_file) {
        words.extend([
            "--username".into(),
            username.clone(),
            "--password-file".into(),
            file.display().to_string(),
        ]);
    }
    words.extend(["--pin".to_owned(), pin.to_string()]);
    if let Some(format) = args.output {
        words.extend(["-o".to_owned(), format!("{format:?}").to_lowercase()]);
    }
    words
}

/// Reads the inventory. However it ends, the session at the BMC is closed: they have few.
async fn read(target: Target, options: Options) -> Outcome<Inventory> {
    let mut connecting = tokio::spawn(Client::connect(target, options));
    let client = tokio::select! {
        connected = &mut connecting => unwrap_task(connected)?,
        () = asked_to_end() => {
            abandon(connecting).await;
            return Err(Failure::Interrupted);
        }
    };
    let walk = WalkOptions::default();
    let outcome = tokio::select! {
        inventory = redfish::inventory(&client, &walk) => inventory.map_err(|error| failed(&error)),
        () = asked_to_end() => Err(Failure::Interrupted),
    };
    if tokio::time::timeout(GRACE, client.close()).await.is_err() {
        tracing::warn!(bmc = client.authority(), "the BMC did not end the session in time");
    }
    tracing::debug!(requests = ?client.usage(), "closed");
    outcome
}

/// A login may be under way at this moment; its session is waited for and closed.
async fn abandon(connecting: JoinHandle<Result<Client, redfish::Error>>) {
    let close = async {
        if let Ok(Ok(client)) = connecting.await {
            client.close().await;
        }
    };
    if tokio::time::timeout(GRACE, close).await.is_err() {
        tracing::warn!("the BMC did not answer in time; a session may be left there");
    }
}

fn unwrap_task(joined: Result<Result<Client, redfish::Error>, tokio::task::JoinError>) -> Outcome<Client> {
    match joined {
        Ok(connected) => connected.map_err(|error| failed(&error)),
        Err(error) => Err(Failure::new("runtime", format!("connecting ended early: {error}"))),
    }
}
