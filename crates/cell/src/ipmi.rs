//! Enrolment of machines that have IPMI and no Redfish (`bmc.address: ipmi://…`). The steps, checks and limits are the same; what
//! IPMI cannot tell stays unknown, and there is no key to pin.

use crate::enrol::{DEADLINE, Enroller, check_identity};
use crate::trouble::Trouble;
use domain::declaration::{MachineSpec, SiteSpec};
use domain::inventory::Requests;
use domain::{Diagnose, IpmiAddress, MachineState, Outcome};
use ipmi::{Client, Credentials, Identity, LoginEnd, Options, Privilege, Target};
use redfish::guard::Kind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use store::{Guard, MachineRecord};

/// How long a BMC is asked whether it is there.
const PATIENCE: Duration = Duration::from_secs(6);

/// How long the BMC may be kept to others: while its credentials change.
const FENCE: Duration = Duration::from_mins(2);

impl Enroller {
    /// Declared → discovered → enrolled, or what an enrolled machine says now.
    pub(crate) async fn ipmi_step(
        &self,
        record: &MachineRecord,
        guard: Guard,
        spec: &MachineSpec,
        site: &SiteSpec,
        bmc: &IpmiAddress,
    ) -> Result<Outcome, Trouble> {
        let step = async {
            let address = locate(bmc, site).await?;
            if record.state == MachineState::Declared {
                let found = ipmi::probe(address, PATIENCE).await.map_err(trouble)?;
                found.speaks_ipmi_2_0().map_err(trouble)?;
                self.store.record_presence(&record.name, guard).await?;
                return Ok(Outcome::Advance(MachineState::Discovered));
            }
            let (identity, cost) = self.ipmi_identity(record, spec, address).await?;
            let inventory = identity.inventory(cost);
            check_identity(spec, &inventory)?;
            let at = self.store.clock().await?;
            self.store.record_enrolment(&record.name, guard, &inventory, &identity.facts(at), at).await?;
            Ok(Outcome::Advance(record.state.max(MachineState::Enrolled)))
        };
        let late = |_| Err(Trouble::from(redfish::Error::Deadline { limit: DEADLINE }.problem()));
        tokio::time::timeout(DEADLINE, step).await.unwrap_or_else(late)
    }

    /// Logs in once, and out again.
    pub(crate) async fn ipmi_login(
        &self,
        record: &MachineRecord,
        spec: &MachineSpec,
        site: &SiteSpec,
        bmc: &IpmiAddress,
    ) -> Result<(), Trouble> {
        let address = locate(bmc, site).await?;
        self.ipmi_identity(record, spec, address).await.map(drop)
    }

    /// Logs in once, counted before it is sent, and reads who the machine is.
    async fn ipmi_identity(
        &self,
        record: &MachineRecord,
        spec: &MachineSpec,
        address: SocketAddr,
    ) -> Result<(Identity, Requests), Trouble> {
        let counted = |error: redfish::Error| Trouble::from(error.problem());
        let login = self.login(&record.name, spec).await?;
        let guard = self.guard(spec, &[&login.username]).await?;
        let _turn = guard.turn(Kind::Command, None, FENCE).await.map_err(counted)?;
        let attempt = guard.budget(&login.username).attempt(&login.password).await.map_err(counted)?;
        let credentials = Credentials::new(login.username.clone(), login.password.as_str());
        // The MAC address is for operators to know; more than that is not needed to read.
        let target = Target { privilege: Privilege::Operator, ..Target::new(address, credentials) };
        let begun = Instant::now();
        let client = match Client::connect(target, Options { logins: 1, ..Options::default() }).await {
            Ok(client) => {
                attempt.accepted().await;
                client
            }
            Err(error) => {
                match error.login_end() {
                    LoginEnd::Refused => attempt.refused().await,
                    LoginEnd::Unsaid => attempt.unsaid().await,
                    LoginEnd::Doubt => drop(attempt),
                }
                return Err(trouble(error));
            }
        };
        let read = client.identity().await;
        let usage = client.usage();
        client.close().await;
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok((read.map_err(trouble)?, Requests { count: usage.commands, bytes: usage.bytes, elapsed_ms }))
    }
}

/// Where the BMC is. Every address that its name has must be inside the site's networks: the cell connects to no other.
async fn locate(bmc: &IpmiAddress, site: &SiteSpec) -> Result<SocketAddr, Trouble> {
    let refuse = |error: redfish::Error| Trouble::from(error.problem());
    let unresolved = |source| redfish::Error::Unresolved { host: bmc.host.clone(), source };
    let found = tokio::net::lookup_host((bmc.host.as_str(), bmc.port)).await;
    let found: Vec<_> = found.map_err(|source| refuse(unresolved(Some(source))))?.collect();
    for address in &found {
        let (address, networks) = (address.ip().to_canonical(), &site.bmc_networks);
        if !networks.iter().any(|network| network.contains(&address)) {
            let networks = networks.clone();
            return Err(refuse(redfish::Error::OutsideNetworks { address, networks }));
        }
    }
    found.first().copied().ok_or_else(|| refuse(unresolved(None)))
}

/// Taken by value, as `map_err` gives it.
#[allow(clippy::needless_pass_by_value)]
fn trouble(error: ipmi::Error) -> Trouble {
    let problem = error.problem();
    if error.is_about_credentials() { Trouble::Refused(problem) } else { Trouble::Passing(problem) }
}
