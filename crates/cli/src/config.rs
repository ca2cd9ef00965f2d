//! Configuration of a cell: TOML, where every key is also a flag and an environment variable.
//!
//! The keys are defined once, here: the same fields are read from the file, from flags and from the environment; the
//! reference page is generated from them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cell::{
    AgentSettings, IronicSettings, Metal3Settings, ProvisionerSettings, ServiceSettings, Settings,
    SinkSettings,
};
use clap::{Args, ValueEnum};
use domain::agent::CellUrl;
use domain::{Name, Problem, manifest};
use serde::Deserialize;
use toml::Spanned;

use crate::errors::{Failure, Outcome, problem};
use crate::span::Span;

/// Where a cell keeps its data unless told otherwise.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/bailiwick";

/// Every key. Absent means the default.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[command(next_help_heading = "Configuration (each also a key of the file and an environment variable)")]
pub(crate) struct Keys {
    /// Address of the API [default: 127.0.0.1:8460]
    #[arg(long, env = "BAILIWICK_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Host names by which clients may call the API, beside localhost and the address itself
    #[arg(
        long,
        env = "BAILIWICK_HOSTS",
        hide_env_values = true,
        value_name = "NAME,…",
        value_delimiter = ','
    )]
    pub(crate) hosts: Option<Vec<String>>,
    /// Directory of the database, the keys and the first token [default: /var/lib/bailiwick]
    #[arg(long, env = "BAILIWICK_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// sqlite:///PATH or postgres://… [default: SQLite in the data directory]
    #[arg(long, env = "BAILIWICK_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// The cell's jurisdiction: needed the first time, never changed afterwards
    #[arg(long, env = "BAILIWICK_JURISDICTION", hide_env_values = true, value_name = "NAME", value_parser = crate::apply::parse_name)]
    pub(crate) jurisdiction: Option<Name>,
    /// Directory where the secrets that `secretRef` names are mounted: DIR/NAME/KEY
    #[arg(long, env = "BAILIWICK_SECRETS_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) secrets_dir: Option<PathBuf>,
    /// Publish into this directory: declared/ and observed/
    #[arg(long, env = "BAILIWICK_PUBLISH_DIRECTORY", hide_env_values = true, value_name = "DIR")]
    pub(crate) publish_directory: Option<PathBuf>,
    /// Publish to a cluster; implied by the next two
    #[arg(long, env = "BAILIWICK_PUBLISH_CLUSTER", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) publish_cluster: Option<bool>,
    /// Kubeconfig of that cluster [default: KUBECONFIG, ~/.kube/config, or the Pod's service account]
    #[arg(long, env = "BAILIWICK_PUBLISH_KUBECONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) publish_kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig [default: its current one]
    #[arg(long, env = "BAILIWICK_PUBLISH_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub(crate) publish_context: Option<String>,
    /// User name under which the cell writes to clusters; the admission policy lets only this user write [default: bailiwick-cell]
    #[arg(long, env = "BAILIWICK_CLUSTER_USER", hide_env_values = true, value_name = "NAME")]
    pub(crate) cluster_user: Option<String>,
    /// Machines of one site worked on at once, by all replicas together; each site has its own [default: 64]
    #[arg(long, env = "BAILIWICK_MACHINES_PER_SITE", hide_env_values = true, value_name = "N", value_parser = at_least_one)]
    pub(crate) machines_per_site: Option<usize>,
    /// How long a replica that says nothing is believed to live; then others take over its machines [default: 15s]
    #[arg(long, env = "BAILIWICK_LEASE", hide_env_values = true, value_name = "SPAN")]
    pub(crate) lease: Option<Span>,
    /// Ironic's API, which provisions machines: http[s]://HOST[:PORT]
    #[arg(long, env = "BAILIWICK_IRONIC_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) ironic_url: Option<String>,
    /// User name of Ironic's http_basic [default: no authentication]
    #[arg(long, env = "BAILIWICK_IRONIC_USERNAME", hide_env_values = true, value_name = "NAME")]
    pub(crate) ironic_username: Option<String>,
    /// File of the password of Ironic's http_basic
    #[arg(long, env = "BAILIWICK_IRONIC_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) ironic_password_file: Option<PathBuf>,
    /// CA certificates (PEM) that Ironic's certificate is checked by
    #[arg(long, env = "BAILIWICK_IRONIC_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) ironic_ca_file: Option<PathBuf>,
    /// Take any certificate of Ironic, and plain HTTP to another host: BMC passwords travel there
    #[arg(long, env = "BAILIWICK_IRONIC_INSECURE", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) ironic_insecure: Option<bool>,
    /// URL of the ISO image of ironic-python-agent, as Ironic reaches it [default: what Ironic is configured with]
    #[arg(long, env = "BAILIWICK_IRONIC_AGENT_ISO", hide_env_values = true, value_name = "URL")]
    pub(crate) ironic_agent_iso: Option<String>,
    /// Have Ironic check the certificates of BMCs by the CAs of its system
    #[arg(long, env = "BAILIWICK_IRONIC_VERIFY_BMC", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) ironic_verify_bmc: Option<bool>,
    /// Kubeconfig of the management cluster in which baremetal-operator provisions machines; instead of ironic-url
    #[arg(long, env = "BAILIWICK_METAL3_KUBECONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) metal3_kubeconfig: Option<PathBuf>,
    /// Namespace of the BareMetalHosts [default: metal3]
    #[arg(long, env = "BAILIWICK_METAL3_NAMESPACE", hide_env_values = true, value_name = "NAME")]
    pub(crate) metal3_namespace: Option<String>,
    /// Ironic behind baremetal-operator is configured to erase whole disks: BareMetalHosts do not tell
    #[arg(long, env = "BAILIWICK_METAL3_ERASES_DISKS", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) metal3_erases_disks: Option<bool>,
    /// Steps at once that speak with the provisioning service [default: 32]
    #[arg(long, env = "BAILIWICK_PROVISIONER_AT_ONCE", hide_env_values = true, value_name = "N", value_parser = at_least_one)]
    pub(crate) provisioner_at_once: Option<usize>,
    /// Requests at once to one BMC [default: 4]
    #[arg(long, env = "BAILIWICK_REQUESTS_PER_BMC", hide_env_values = true, value_name = "N", value_parser = at_least_one)]
    pub(crate) requests_per_bmc: Option<usize>,
    /// Requests at once to all BMCs of one site; each site has its own [default: 128]
    #[arg(long, env = "BAILIWICK_REQUESTS_PER_SITE", hide_env_values = true, value_name = "N", value_parser = at_least_one)]
    pub(crate) requests_per_site: Option<usize>,
    /// How long an inventory stays fresh, such as 30m or 1h [default: 1h]
    #[arg(long, env = "BAILIWICK_REFRESH", hide_env_values = true, value_name = "SPAN")]
    pub(crate) refresh: Option<Span>,
    /// Address at which agents call, by mutual TLS [default: none, and then no slice goes to a cluster]
    #[arg(long, env = "BAILIWICK_AGENT_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    pub(crate) agent_listen: Option<SocketAddr>,
    /// Where machines reach that address: https://HOST[:PORT]. With it, those that are provisioned enrol their own agents
    #[arg(long, env = "BAILIWICK_AGENT_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) agent_url: Option<CellUrl>,
    /// How often an agent reports while nothing changes; three times that, and it is silent [default: 30s]
    #[arg(long, env = "BAILIWICK_AGENT_REPORT_INTERVAL", hide_env_values = true, value_name = "SPAN")]
    pub(crate) agent_report_interval: Option<Span>,
    /// How long an agent may hand out devices after its last report; running pods do not depend on it [default: 15m]
    #[arg(long, env = "BAILIWICK_AGENT_PERMIT_LIFE", hide_env_values = true, value_name = "SPAN")]
    pub(crate) agent_permit_life: Option<Span>,
    /// How long an agent's certificate is valid; it is renewed at two thirds of that [default: 24h]
    #[arg(long, env = "BAILIWICK_AGENT_CERTIFICATE_LIFE", hide_env_values = true, value_name = "SPAN")]
    pub(crate) agent_certificate_life: Option<Span>,
    /// Form of the log on standard error [default: text]
    #[arg(long, env = "BAILIWICK_LOG_FORMAT", hide_env_values = true, value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or filters such as info,bailiwick_redfish=debug [default: info]
    #[arg(long, env = "BAILIWICK_LOG_LEVEL", hide_env_values = true, value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
}

/// Forms of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 on is needed".to_owned()),
        Ok(number) => Ok(number),
    }
}

impl Keys {
    /// What the file says where these say nothing.
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            listen: self.listen.or(file.listen),
            hosts: self.hosts.or(file.hosts),
            data_dir: self.data_dir.or(file.data_dir),
            database_url: self.database_url.or(file.database_url),
            jurisdiction: self.jurisdiction.or(file.jurisdiction),
            secrets_dir: self.secrets_dir.or(file.secrets_dir),
            publish_directory: self.publish_directory.or(file.publish_directory),
            publish_cluster: self.publish_cluster.or(file.publish_cluster),
            publish_kubeconfig: self.publish_kubeconfig.or(file.publish_kubeconfig),
            publish_context: self.publish_context.or(file.publish_context),
            cluster_user: self.cluster_user.or(file.cluster_user),
            machines_per_site: self.machines_per_site.or(file.machines_per_site),
            lease: self.lease.or(file.lease),
            ironic_url: self.ironic_url.or(file.ironic_url),
            ironic_username: self.ironic_username.or(file.ironic_username),
            ironic_password_file: self.ironic_password_file.or(file.ironic_password_file),
            ironic_ca_file: self.ironic_ca_file.or(file.ironic_ca_file),
            ironic_insecure: self.ironic_insecure.or(file.ironic_insecure),
            ironic_agent_iso: self.ironic_agent_iso.or(file.ironic_agent_iso),
            ironic_verify_bmc: self.ironic_verify_bmc.or(file.ironic_verify_bmc),
            metal3_kubeconfig: self.metal3_kubeconfig.or(file.metal3_kubeconfig),
            metal3_namespace: self.metal3_namespace.or(file.metal3_namespace),
            metal3_erases_disks: self.metal3_erases_disks.or(file.metal3_erases_disks),
            provisioner_at_once: self.provisioner_at_once.or(file.provisioner_at_once),
            requests_per_bmc: self.requests_per_bmc.or(file.requests_per_bmc),
            requests_per_site: self.requests_per_site.or(file.requests_per_site),
            refresh: self.refresh.or(file.refresh),
            agent_listen: self.agent_listen.or(file.agent_listen),
            agent_url: self.agent_url.or(file.agent_url),
            agent_report_interval: self.agent_report_interval.or(file.agent_report_interval),
            agent_permit_life: self.agent_permit_life.or(file.agent_permit_life),
            agent_certificate_life: self.agent_certificate_life.or(file.agent_certificate_life),
            log_format: self.log_format.or(file.log_format),
            log_level: self.log_level.or(file.log_level),
        }
    }

    /// The settings of the cell.
    pub(crate) fn settings(self) -> Settings {
        let sinks = self.sinks();
        let provisioners = self.provisioners();
        let agents = self.agents();
        let mut settings = Settings::new(self.data_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)));
        let default = settings.clone();
        settings.listen = self.listen.unwrap_or(default.listen);
        settings.hosts = self.hosts.unwrap_or(default.hosts);
        settings.database_url = self.database_url;
        settings.jurisdiction = self.jurisdiction;
        settings.secrets_dir = self.secrets_dir;
        settings.sinks = sinks;
        settings.provisioners = provisioners;
        settings.agents = agents;
        settings.machines_per_site = self.machines_per_site.unwrap_or(default.machines_per_site);
        settings.lease = self.lease.map_or(default.lease, Span::duration);
        settings.cluster_user = self.cluster_user.unwrap_or(default.cluster_user);
        settings.requests_per_bmc = self.requests_per_bmc.unwrap_or(default.requests_per_bmc);
        settings.requests_per_site = self.requests_per_site.unwrap_or(default.requests_per_site);
        settings.refresh = self.refresh.map_or(default.refresh, Span::duration);
        settings
    }

    /// Refuses keys that say nothing without another one.
    pub(crate) fn check(&self) -> Outcome {
        match (&self.agent_url, self.agent_listen) {
            (Some(url), None) => {
                let message = format!("agents are told to call {url}, and the cell does not listen for them");
                Err(Failure::new("config.agent-url", message))
            }
            _ => Ok(()),
        }
    }

    fn agents(&self) -> Option<AgentSettings> {
        let default = AgentSettings::new(self.agent_listen?);
        Some(AgentSettings {
            url: self.agent_url.clone(),
            report_interval: self.agent_report_interval.map_or(default.report_interval, Span::duration),
            permit_life: self.agent_permit_life.map_or(default.permit_life, Span::duration),
            certificate_life: self.agent_certificate_life.map_or(default.certificate_life, Span::duration),
            ..default
        })
    }

    fn provisioners(&self) -> Vec<ProvisionerSettings> {
        let service = |name: &str, service| ProvisionerSettings {
            name: name.to_owned(),
            sites: Vec::new(),
            service,
            at_once: self.provisioner_at_once.unwrap_or(32),
        };
        let metal3 = self.metal3_kubeconfig.clone().map(|kubeconfig| {
            let settings = Metal3Settings {
                kubeconfig,
                namespace: self.metal3_namespace.clone().unwrap_or_else(|| "metal3".to_owned()),
                inspect: true,
                clean: true,
                erases_disks: self.metal3_erases_disks.unwrap_or_default(),
                verify_bmc: self.ironic_verify_bmc.unwrap_or_default(),
            };
            service("metal3", ServiceSettings::Metal3(settings))
        });
        let ironic = self.ironic_url.clone().map(|url| {
            let settings = IronicSettings {
                url,
                username: self.ironic_username.clone(),
                password_file: self.ironic_password_file.clone(),
                ca_file: self.ironic_ca_file.clone(),
                insecure: self.ironic_insecure.unwrap_or_default(),
                agent_iso: self.ironic_agent_iso.clone(),
                verify_bmc: self.ironic_verify_bmc.unwrap_or_default(),
                driver: None,
                answer_within: None,
            };
            service("ironic", ServiceSettings::Ironic(settings))
        });
        metal3.into_iter().chain(ironic).collect()
    }

    fn sinks(&self) -> Vec<SinkSettings> {
        let mut sinks: Vec<SinkSettings> =
            self.publish_directory.iter().cloned().map(SinkSettings::Directory).collect();
        let (kubeconfig, context) = (self.publish_kubeconfig.clone(), self.publish_context.clone());
        // An explicit `false` switches a cluster off that the file describes.
        if self.publish_cluster.unwrap_or(kubeconfig.is_some() || context.is_some()) {
            sinks.push(SinkSettings::Cluster { kubeconfig, context });
        }
        sinks
    }
}

/// Reads a configuration file; every mistake of a key with its line and what was probably meant.
pub(crate) fn read(path: &Path) -> Outcome<Keys> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new("config.unreadable", format!("{} cannot be read: {error}", path.display()))
    })?;
    parse(&path.display().to_string(), &text).map_err(Failure::all)
}

fn parse(file: &str, text: &str) -> Result<Keys, Vec<Problem>> {
    let place = |span: Option<Range<usize>>| match span {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
            format!("{file}:{line}:{column}")
        }
        None => file.to_owned(),
    };
    let malformed = |error: &toml::de::Error| {
        let sentence = error.message().lines().next().unwrap_or("not TOML").to_owned();
        vec![problem("config.malformed", sentence).at(place(error.span()))]
    };
    let known = names();
    let found: BTreeMap<Spanned<String>, toml::Value> =
        toml::from_str(text).map_err(|error| malformed(&error))?;
    let unknown: Vec<Problem> = found
        .keys()
        .filter(|key| !known.contains(key.get_ref()))
        .map(|key| {
            problem("config.unknown-key", format!("unknown key `{}`", key.get_ref()))
                .hint(manifest::suggestion(key.get_ref(), &known))
                .at(place(Some(key.span())))
        })
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    toml::from_str(text).map_err(|error| malformed(&error))
}

/// Names of all keys, in order.
pub(crate) fn names() -> Vec<String> {
    arguments().get_arguments().filter_map(|argument| argument.get_long()).map(str::to_owned).collect()
}

fn arguments() -> clap::Command {
    Keys::augment_args(clap::Command::new("keys"))
}

/// `docs/reference/config.md`.
pub(crate) fn reference() -> String {
    let rows: String = arguments()
        .get_arguments()
        .map(|argument| {
            let name = argument.get_long().unwrap_or_default();
            let variable = argument.get_env().map(|name| name.to_string_lossy()).unwrap_or_default();
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            format!("| `{name}` | `--{name}` | `{variable}` | {} |\n", help.replace('|', "\\|"))
        })
        .collect();
    format!(
        "# Configuration of a cell\n\n\
         `bailiwick serve --config cell.toml` reads TOML. Every key is also a flag and an environment variable; a flag goes before the\n\
         environment, the environment before the file, the file before the default. A key that does not exist is an error.\n\n\
         | key | flag | environment variable | meaning |\n|---|---|---|---|\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{FromArgMatches as _, Parser};

    /// One value for each key, as TOML.
    const ALL: &str = r#"
listen = "127.0.0.1:1"
hosts = ["a", "b"]
data-dir = "/d"
database-url = "postgres://x"
jurisdiction = "eu"
secrets-dir = "/s"
publish-directory = "/p"
publish-cluster = true
publish-kubeconfig = "/k"
publish-context = "c"
cluster-user = "u"
machines-per-site = 4
lease = "10s"
ironic-url = "http://127.0.0.1:6385"
ironic-username = "i"
ironic-password-file = "/i"
ironic-ca-file = "/c"
ironic-insecure = true
ironic-agent-iso = "http://a/a.iso"
ironic-verify-bmc = true
metal3-kubeconfig = "/m"
metal3-namespace = "n"
metal3-erases-disks = true
provisioner-at-once = 5
requests-per-bmc = 2
requests-per-site = 3
refresh = "30m"
agent-listen = "127.0.0.1:2"
agent-url = "https://cell.example:8461"
agent-report-interval = "20s"
agent-permit-life = "5m"
agent-certificate-life = "12h"
log-format = "json"
log-level = "debug"
"#;

    fn keys(text: &str) -> Keys {
        parse("cell.toml", text).unwrap()
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        keys: Keys,
    }

    #[test]
    fn every_key_is_a_flag_and_an_environment_variable_of_the_same_name() {
        let all: toml::Table = toml::from_str(ALL).unwrap();
        assert_eq!(all.keys().collect::<std::collections::BTreeSet<_>>(), names().iter().collect());
        for argument in arguments().get_arguments() {
            let name = argument.get_long().unwrap();
            let variable = format!("BAILIWICK_{}", name.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().unwrap().to_str().unwrap(), variable);
        }
    }

    #[test]
    fn a_flag_says_the_same_as_its_key() {
        let all: toml::Table = toml::from_str(ALL).unwrap();
        for (name, value) in &all {
            let as_flag = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Array(items) => {
                    items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(",")
                }
                other => other.to_string(),
            };
            let matches = <Line as clap::CommandFactory>::command()
                .get_matches_from(["x".to_owned(), format!("--{name}={as_flag}")]);
            let by_flag = Line::from_arg_matches(&matches).unwrap().keys;
            let by_key = keys(&toml::Table::from_iter([(name.clone(), value.clone())]).to_string());
            assert_eq!(by_flag, by_key, "{name}");
            assert_ne!(by_flag, Keys::default(), "{name}");
        }
    }

    #[test]
    fn a_flag_goes_before_the_file_for_every_key() {
        let file = keys(ALL);
        assert_eq!(Keys::default().or(file.clone()), file);
        let flags = keys(
            &ALL.replace("127.0.0.1:1", "127.0.0.1:2")
                .replace("true", "false")
                .replace("\"/", "\"/other")
                .replace("cell.example", "other.example")
                .replace("30m", "31m"),
        );
        assert_eq!(flags.clone().or(file), flags);
    }

    #[test]
    fn an_unknown_key_is_told_with_file_line_and_suggestion() {
        let problems =
            parse("cell.toml", "listen = \"127.0.0.1:1\"\n\ndata_dir = \"/x\"\njursdiction = \"eu\"\n")
                .unwrap_err();
        let told: Vec<_> = problems
            .iter()
            .map(|p| (p.code.as_str(), p.at.as_deref().unwrap(), p.hint.as_deref().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("config.unknown-key", "cell.toml:3:1", "did you mean `data-dir`?"),
                ("config.unknown-key", "cell.toml:4:1", "did you mean `jurisdiction`?"),
            ]
        );
    }

    #[test]
    fn a_value_that_cannot_be_is_told_with_its_line() {
        for (text, place) in [
            ("listen = 8460\n", "cell.toml:1:10"),
            ("\nrefresh = \"soon\"\n", "cell.toml:2:11"),
            ("listen = \n", "cell.toml:1:10"),
            ("agent-url = \"http://cell.example\"\n", "cell.toml:1:13"),
        ] {
            let problem = parse("cell.toml", text).unwrap_err().remove(0);
            assert_eq!(
                (problem.code.as_str(), problem.at.as_deref()),
                ("config.malformed", Some(place)),
                "{text}"
            );
        }
    }

    #[test]
    fn where_agents_call_is_told_to_machines_only_by_a_cell_that_listens_for_them() {
        let url = r#"agent-url = "https://cell.example""#;
        let both = keys(&format!("agent-listen = \"127.0.0.1:2\"\n{url}"));
        assert!(both.check().is_ok());
        let told = both.settings().agents.unwrap().url.unwrap();
        assert_eq!(told.to_string(), "https://cell.example:8461");
        let Err(Failure::Problems { problems, exit }) = keys(url).check() else { panic!("not refused") };
        assert_eq!((problems[0].code.as_str(), exit), ("config.agent-url", crate::exit::Exit::BadInput));
        assert!(problems[0].hint.is_some());
    }

    #[test]
    fn a_cluster_is_published_to_when_one_is_named_and_not_switched_off() {
        let sinks = |text: &str| keys(text).settings().sinks.len();
        assert_eq!(sinks(""), 0);
        assert_eq!(sinks("publish-directory = \"/p\"\npublish-cluster = true"), 2);
        assert_eq!(sinks("publish-context = \"c\""), 1);
        assert_eq!(sinks("publish-context = \"c\"\npublish-cluster = false"), 0);
    }
}
