//! Provisioning services: Ironic's API, and baremetal-operator behind `BareMetalHost` objects. One contract for both.
//!
//! Each call observes and does at most one thing, so that a step of the lifecycle may be repeated (DESIGN §3.5).

mod ironic;
mod metal3;

use crate::error::coded;
use crate::trouble::Trouble;
use domain::base_cluster::Image;
use domain::declaration::{MachineSpec, SiteSpec, Zone};
use domain::erasure::Item;
use domain::{Fact, Inventory, Name, Problem};
use jiff::Timestamp;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::Zeroizing;
use uuid::Uuid;

pub(crate) use self::ironic::Ironic;
pub(crate) use self::metal3::Metal3;

/// A provisioning service, and which sites it serves.
#[derive(Clone, Debug)]
pub struct ProvisionerSettings {
    /// What people call it: in `history`, in records of erasures.
    pub name: String,
    /// The sites whose machines it takes; every site where empty.
    pub sites: Vec<Name>,
    /// Which service.
    pub service: ServiceSettings,
    /// Steps at once that speak with it.
    pub at_once: usize,
}

/// How a provisioning service is reached.
#[derive(Clone, Debug)]
pub enum ServiceSettings {
    /// Ironic's API.
    Ironic(IronicSettings),
    /// BareMetalHosts in a management cluster.
    Metal3(Metal3Settings),
}

/// How baremetal-operator is reached.
#[derive(Clone, Debug, Default)]
pub struct Metal3Settings {
    /// Kubeconfig of the management cluster.
    pub kubeconfig: PathBuf,
    /// Namespace of the BareMetalHosts.
    pub namespace: String,
    /// Whether the operator's agent reads the hardware.
    pub inspect: bool,
    /// Whether disks are cleaned.
    pub clean: bool,
    /// Whether that cleaning erases whole disks, by Ironic's configuration: baremetal-operator does not tell.
    pub erases_disks: bool,
    /// Whether the certificates of BMCs are checked.
    pub verify_bmc: bool,
}

/// How Ironic is reached.
#[derive(Clone, Debug, Default)]
pub struct IronicSettings {
    /// `http[s]://HOST[:PORT]`.
    pub url: String,
    /// User name of `http_basic`; none where absent.
    pub username: Option<String>,
    /// File of its password.
    pub password_file: Option<PathBuf>,
    /// CA certificates (PEM) that its certificate is checked by.
    pub ca_file: Option<PathBuf>,
    /// Take any certificate, and plain HTTP to another host.
    pub insecure: bool,
    /// URL of the agent's ISO image, as Ironic reaches it; what Ironic is configured with where absent.
    pub agent_iso: Option<String>,
    /// Whether Ironic checks the certificates of BMCs. Off for BMCs with certificates of their own making.
    pub verify_bmc: bool,
    /// Hardware type; `redfish` or `ipmi` where absent, by the machine's address. `fake-hardware` is for trials.
    pub driver: Option<String>,
    /// How long one answer may take; as long as speaking with a BMC may take where absent.
    pub answer_within: Option<Duration>,
}

/// A machine as a provisioning service is told of it.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// The cell's identity.
    pub cell: &'a str,
    pub machine: &'a Name,
    pub spec: &'a MachineSpec,
    pub site: &'a SiteSpec,
    pub zone: Option<&'a Zone>,
    pub inventory: Option<&'a Inventory>,
    /// The account that the service has at the BMC.
    pub username: &'a str,
    pub password: &'a Zeroizing<String>,
    /// Tells which password it is, and nothing of it.
    pub credentials: String,
}

/// The use that a machine is erased after, or before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use<'a> {
    /// Names it: what is asked for on its behalf is asked for once.
    pub id: Uuid,
    /// When it began.
    pub since: Option<Timestamp>,
    /// The image of its base cluster, as long as that is declared.
    pub image: Option<&'a Image>,
    /// There was none yet: the machine is erased before it.
    pub is_first: bool,
    /// A node of it has joined: something was put on the machine, whatever a provisioning service remembers.
    pub has_joined: bool,
}

/// What is to run on a machine.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub instance: Uuid,
    pub image: Image,
    pub user_data: Zeroizing<String>,
    /// `meta_data.json` of the configuration drive.
    pub meta_data: Value,
}

/// What one call came to.
#[derive(Debug)]
pub(crate) enum Progress<T> {
    /// It is as wished.
    Reached(T),
    /// One thing was done; there may be more at once.
    Acted(String),
    /// What was begun goes on.
    Waiting(Wait),
}

impl<T> Progress<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Progress<U> {
        match self {
            Self::Reached(value) => Progress::Reached(change(value)),
            Self::Acted(what) => Progress::Acted(what),
            Self::Waiting(wait) => Progress::Waiting(wait),
        }
    }

    /// What is not at its end; what is, without what it should have come with, is looked at again.
    fn without<U>(self) -> Progress<U> {
        match self {
            Self::Reached(_) => Progress::Acted("it has gone again".to_owned()),
            Self::Acted(what) => Progress::Acted(what),
            Self::Waiting(wait) => Progress::Waiting(wait),
        }
    }
}

/// What is waited for.
#[derive(Debug)]
pub(crate) struct Wait {
    pub what: String,
    pub poll: Duration,
    pub usual: Duration,
}

/// Codes of what another configuration mends: no service at all, and none for this site.
pub(crate) const UNSERVED: [&str; 2] = ["provision.not-configured", "provision.no-service"];

/// The provisioning services of a cell.
#[derive(Clone, Debug)]
pub(crate) struct Services(Arc<[Provisioner]>);

impl Services {
    pub(crate) fn new(settings: &[ProvisionerSettings]) -> Result<Self, Problem> {
        settings.iter().map(Provisioner::new).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The service that takes machines of this site, or why none does.
    pub(crate) fn of(&self, site: &Name) -> Result<&Provisioner, Problem> {
        if self.0.is_empty() {
            let message = "no provisioning service is configured, so enrolled machines stay enrolled";
            return Err(coded(UNSERVED[0], message));
        }
        self.0.iter().find(|service| service.serves(site)).ok_or_else(|| {
            coded(UNSERVED[1], format!("no provisioning service takes machines of Site/{site}"))
        })
    }
}

/// A provisioning service that serves.
#[derive(Debug)]
pub(crate) struct Provisioner {
    pub name: String,
    sites: Vec<Name>,
    service: Service,
    at_once: usize,
    places: tokio::sync::Semaphore,
}

#[derive(Debug)]
enum Service {
    Ironic(Ironic),
    Metal3(Metal3),
}

impl Provisioner {
    pub(crate) fn new(settings: &ProvisionerSettings) -> Result<Self, Problem> {
        let service = match &settings.service {
            ServiceSettings::Ironic(ironic) => Service::Ironic(Ironic::new(ironic)?),
            ServiceSettings::Metal3(metal3) => Service::Metal3(Metal3::new(metal3)),
        };
        Ok(Self {
            name: settings.name.clone(),
            sites: settings.sites.clone(),
            service,
            at_once: settings.at_once.max(1),
            places: tokio::sync::Semaphore::new(settings.at_once.max(1)),
        })
    }

    pub(crate) fn serves(&self, site: &Name) -> bool {
        self.sites.is_empty() || self.sites.contains(site)
    }

    /// A place among those that speak with the service at once. Nobody waits for one here: a service that hangs would hold its
    /// site's workers.
    fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Trouble> {
        self.places.try_acquire().map_err(|_| {
            let message = format!(
                "{} is spoken with for {} machines at once, and that many are served now",
                self.name, self.at_once
            );
            Trouble::NoPlace(coded("limit.provisioner", message))
        })
    }

    /// The service knows the machine and has looked at it: what it found.
    pub(crate) async fn inspect(&self, subject: &Subject<'_>) -> Result<Progress<Vec<Fact>>, Trouble> {
        let _place = self.place()?;
        match &self.service {
            Service::Ironic(ironic) => ironic.inspect(subject).await,
            Service::Metal3(metal3) => metal3.inspect(subject).await,
        }
    }

    /// The machine carries nothing, is erased, and ready. `work` is what this call has to remember until the next.
    pub(crate) async fn erase(
        &self,
        subject: &Subject<'_>,
        use_of: Use<'_>,
        work: &mut Option<Value>,
    ) -> Result<Progress<Vec<Item>>, Trouble> {
        let _place = self.place()?;
        match &self.service {
            Service::Ironic(ironic) => ironic.erase(subject, use_of, work).await,
            Service::Metal3(metal3) => metal3.erase(subject, use_of).await,
        }
    }

    /// What the service could never deploy so that it joins is refused before a machine is taken for it.
    pub(crate) fn accepts(&self, image: &Image) -> Result<(), Trouble> {
        match &self.service {
            Service::Ironic(_) => Ok(()),
            Service::Metal3(_) => Metal3::accepts(image),
        }
    }

    /// The machine runs this.
    pub(crate) async fn deploy(
        &self,
        subject: &Subject<'_>,
        deployment: &Deployment,
    ) -> Result<Progress<()>, Trouble> {
        let _place = self.place()?;
        match &self.service {
            Service::Ironic(ironic) => ironic.deploy(subject, deployment).await,
            Service::Metal3(metal3) => metal3.deploy(subject, deployment).await,
        }
    }

    /// The service knows the machine no more.
    pub(crate) async fn remove(&self, subject: &Subject<'_>) -> Result<Progress<()>, Trouble> {
        let _place = self.place()?;
        match &self.service {
            Service::Ironic(ironic) => ironic.remove(subject).await,
            Service::Metal3(metal3) => metal3.remove(subject).await,
        }
    }

    /// The same of a machine that is lost: the service forgets it as it is, and does nothing to it.
    pub(crate) async fn forget(&self, subject: &Subject<'_>) -> Result<Progress<()>, Trouble> {
        let _place = self.place()?;
        match &self.service {
            Service::Ironic(ironic) => ironic.forget(subject).await,
            Service::Metal3(metal3) => metal3.forget(subject).await,
        }
    }

    /// The service leaves the machine alone, or takes it up again: maintenance in Ironic; in Metal3
    /// the host is detached, since Ironic goes on putting back the power of one that is paused only. Says
    /// whether the service has the machine. `work` is what [`Self::erase`] had to remember when the machine was set aside: what that
    /// had switched off is on again when the machine comes back.
    pub(crate) async fn hold(
        &self,
        subject: &Subject<'_>,
        reason: Option<&str>,
        work: Option<&Value>,
    ) -> Result<Progress<bool>, Trouble> {
        let _place = self.place()?;
        match &self.service {
            Service::Ironic(ironic) => ironic.hold(subject, reason, work).await,
            Service::Metal3(metal3) => metal3.hold(subject, reason.is_some()).await,
        }
    }
}
