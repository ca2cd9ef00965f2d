//! Agents: their one-time tokens, their enrolments, and what is known of them. Times that decide are the database's.

use crate::clock::millis;
use crate::error::StoreError;
use crate::machines::{CELL, MachineRecord, state, subject};
use crate::open::Store;
use crate::queue::Guard;
use crate::rows::Read as _;
use crate::write::Write;
use domain::agent::{PreparedDevice, Report, ScrubRecord};
use domain::fact::Source;
use domain::probe::Probe;
use domain::{Digest, Instance, Inventory, MachineState, Name, Problem};
use jiff::Timestamp;
use serde_json::json;
use sqlx::any::AnyRow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// Bytes that name an enrolment.
const ENROLMENT_BYTES: usize = 8;

/// Why an agent is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// Nobody made this token, or it was replaced by a newer one.
    #[error("no machine has this token")]
    TokenUnknown,
    /// It was used already.
    #[error("the token of {0} was used already")]
    TokenUsed(Name),
    /// It came too late.
    #[error("the token of {0} has ended")]
    TokenLate(Name),
    /// The host is another machine than the one that the token, or the certificate, is for.
    #[error("this is the agent of {machine}, and its host does not show that it is that machine")]
    OtherMachine {
        /// Whose agent it is.
        machine: Name,
        /// System UUID that the host says.
        found: Option<String>,
        /// System UUID that the machine's BMC says.
        expected: String,
    },
    /// The machine's state lets no agent in.
    #[error("{machine} is {state}: no agent of it is let in")]
    NotAllowed {
        /// Which machine.
        machine: Name,
        /// Its state.
        state: MachineState,
    },
    /// The certificate is of an enrolment that has ended.
    #[error("the enrolment of this agent of {0} has ended")]
    Ended(Name),
}

impl AgentError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TokenUnknown => "agent.token-unknown",
            Self::TokenUsed(_) => "agent.token-used",
            Self::TokenLate(_) => "agent.token-late",
            Self::OtherMachine { .. } => "agent.other-machine",
            Self::NotAllowed { .. } => "agent.not-allowed",
            Self::Ended(_) => "agent.ended",
        }
    }
}

/// Names one enrolment of an agent: eight random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrolmentId([u8; ENROLMENT_BYTES]);

impl EnrolmentId {
    /// The one of these bytes.
    pub fn new(bytes: [u8; ENROLMENT_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; ENROLMENT_BYTES] {
        &self.0
    }
}

/// An agent and what it said last.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentRecord {
    /// Its machine.
    pub machine: Name,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// When it reported last.
    pub reported_at: Option<Timestamp>,
    /// Whether it has reported in time.
    pub alive: bool,
    /// Since when its plugin is registered, by its host's clock; `None` while it is not, or the agent is silent.
    pub registered: Option<Timestamp>,
    /// Its version.
    pub version: Option<String>,
    /// Devices prepared for claims.
    pub prepared: Vec<PreparedDevice>,
    /// What keeps it from its work.
    pub problems: Vec<Problem>,
    /// The last scrubs of its GPUs, oldest first.
    pub scrubs: Vec<ScrubRecord>,
    /// Its last probe.
    pub probe: Option<ProbeRecord>,
}

/// What the driver of a machine told last.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeRecord {
    /// What it told.
    pub probe: Arc<Probe>,
    /// Digest of it without times and readings.
    pub digest: Digest,
    /// When it came.
    pub at: Timestamp,
}

/// Documents by machine, as they were read last: whoever looks at all agents again and again reads those that changed.
pub(crate) type Cache<T> = Mutex<BTreeMap<Name, (Digest, Arc<T>)>>;

const COLUMNS: &str = "a.machine, a.enrolled_at, a.reported_at, a.alive, a.registered, a.report, \
    p.digest AS probe, p.at AS probe_at FROM agents a LEFT JOIN probes p ON p.machine = a.machine";

impl Store {
    /// Makes a one-time token for the agent of a machine, in the place of one that was not used. Only its digest is kept.
    pub async fn create_agent_token(
        &self,
        machine: &Name,
        life: Duration,
        actor: &str,
    ) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut()).map_err(StoreError::Random)?;
        let mut write = self.write().await?;
        write.may_have_agent(machine).await?;
        // Those that were used are kept until their end, so that they are known as such.
        let forget =
            self.sql("DELETE FROM agent_tokens WHERE (machine = $1 AND used_by IS NULL) OR expires_at <= NOW - 86400000");
        sqlx::query(forget).bind(machine.as_str()).execute(write.connection()).await?;
        let row = sqlx::query(self.sql(
            "INSERT INTO agent_tokens (digest, machine, expires_at) VALUES ($1, $2, NOW + $3) RETURNING expires_at",
        ))
        .bind(Digest::of(secret.as_ref()).to_string())
        .bind(machine.as_str())
        .bind(millis(life))
        .fetch_one(write.connection())
        .await?;
        let data = json!({ "expiresAt": row.time("expires_at")? });
        write.event("agent.token-created", &subject(machine), actor, &data).await?;
        write.commit().await?;
        Ok(secret)
    }

    /// Makes a one-time token good for the agent of a machine that is being provisioned, in the place of those that were not used;
    /// only its digest is given. A step that is taken again finds it as it is, used or not, and no later end. Refused where this is
    /// not the machine's present use, of which the token is.
    pub async fn keep_agent_token(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        instance: &Instance,
        token: &Digest,
        life: Duration,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let record = write.machine_at(machine, guard.into()).await?;
        let present = record.instance.is_some_and(|present| present.id == instance.id);
        if record.state != MachineState::Provisioning || !present {
            return Err(StoreError::Superseded { machine: machine.clone() });
        }
        sqlx::query("DELETE FROM agent_tokens WHERE machine = $1 AND used_by IS NULL AND digest <> $2")
            .bind(machine.as_str())
            .bind(token.to_string())
            .execute(write.connection())
            .await?;
        let row = sqlx::query(self.sql(
            "INSERT INTO agent_tokens (digest, machine, expires_at) VALUES ($1, $2, NOW + $3) \
             ON CONFLICT (digest) DO NOTHING RETURNING expires_at",
        ))
        .bind(token.to_string())
        .bind(machine.as_str())
        .bind(millis(life))
        .fetch_optional(write.connection())
        .await?;
        if let Some(row) = row {
            let data = json!({ "expiresAt": row.time("expires_at")?, "instance": instance.id });
            write.event("agent.token-created", &subject(machine), CELL, &data).await?;
        }
        write.commit().await
    }

    /// Whose token this is, as long as it may be good: asked without waiting for anybody who writes.
    pub async fn agent_token(&self, token: &Digest) -> Result<Name, StoreError> {
        let row = sqlx::query(self.sql(
            "SELECT machine, CASE WHEN expires_at <= NOW THEN 1 ELSE 0 END AS late FROM agent_tokens WHERE digest = $1",
        ))
        .bind(token.to_string())
        .fetch_optional(&self.inner.readers)
        .await?
        .ok_or(AgentError::TokenUnknown)?;
        let machine = row.name("machine")?;
        if row.number("late")? == 0 { Ok(machine) } else { Err(AgentError::TokenLate(machine).into()) }
    }

    /// An agent comes with the digest of a token, of its public key, and the system UUID of its host. Gives the machine, and
    /// the enrolment that its certificates name from now on; those of an earlier one are void.
    pub async fn enrol_agent(
        &self,
        token: &Digest,
        key: &Digest,
        system_uuid: Option<&str>,
    ) -> Result<(Name, EnrolmentId), StoreError> {
        let mut enrolment = [0; ENROLMENT_BYTES];
        getrandom::fill(&mut enrolment).map_err(StoreError::Random)?;
        let mut write = self.write().await?;
        let row = sqlx::query(self.sql(
            "SELECT machine, used_by, CASE WHEN expires_at <= NOW THEN 1 ELSE 0 END AS late \
             FROM agent_tokens WHERE digest = $1",
        ))
        .bind(token.to_string())
        .fetch_optional(write.connection())
        .await?
        .ok_or(AgentError::TokenUnknown)?;
        let machine = row.name("machine")?;
        if row.number("late")? != 0 {
            return Err(AgentError::TokenLate(machine).into());
        }
        let used_by: Option<Digest> = row.maybe_parsed("used_by")?;
        if used_by.is_some_and(|used_by| used_by != *key) {
            return Err(AgentError::TokenUsed(machine).into());
        }
        write.may_have_agent(&machine).await?;
        write.is_its_host(&machine, system_uuid).await?;
        sqlx::query("UPDATE agent_tokens SET used_by = $1 WHERE digest = $2")
            .bind(key.to_string())
            .bind(token.to_string())
            .execute(write.connection())
            .await?;
        write.forget_agent(&machine).await?;
        let now = write.now;
        sqlx::query("INSERT INTO agents (machine, enrolment, enrolled_at) VALUES ($1, $2, $3)")
            .bind(machine.as_str())
            .bind(hex::encode(enrolment))
            .bind(now.as_millisecond())
            .execute(write.connection())
            .await?;
        let data = json!({ "key": key, "again": used_by.is_some() });
        write.event("agent.enrolled", &subject(&machine), CELL, &data).await?;
        write.commit().await?;
        Ok((machine, EnrolmentId(enrolment)))
    }

    /// Whether a certificate of this enrolment lets an agent in. Gives the time by the database's clock, by which to judge
    /// whether the certificate itself still does.
    pub async fn admit_agent(&self, machine: &Name, enrolment: EnrolmentId) -> Result<Timestamp, StoreError> {
        let row = sqlx::query(self.sql("SELECT enrolment, NOW AS present FROM agents WHERE machine = $1"))
            .bind(machine.as_str())
            .fetch_optional(&self.inner.readers)
            .await?;
        is_current(machine, row.as_ref(), enrolment)?;
        row.ok_or_else(|| AgentError::Ended(machine.clone()))?.time("present")
    }

    /// All agents, by machine.
    pub async fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} ORDER BY a.machine"));
        let rows = sqlx::query(sql).fetch_all(&self.inner.readers).await?;
        let mut agents = Vec::with_capacity(rows.len());
        for row in &rows {
            agents.push(self.agent_record(row).await?);
        }
        let there: BTreeSet<_> = agents.iter().map(|agent| &agent.machine).collect();
        self.probes().retain(|machine, _| there.contains(machine));
        Ok(agents)
    }

    /// The agent of one machine.
    pub async fn agent(&self, machine: &Name) -> Result<Option<AgentRecord>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} WHERE a.machine = $1"));
        let row = sqlx::query(sql).bind(machine.as_str()).fetch_optional(&self.inner.readers).await?;
        match row {
            Some(row) => Ok(Some(self.agent_record(&row).await?)),
            None => Ok(None),
        }
    }

    async fn agent_record(&self, row: &AnyRow) -> Result<AgentRecord, StoreError> {
        let machine = row.name("machine")?;
        let report: Option<Report> = row.maybe_json("report")?;
        let (version, prepared, problems, scrubs) = report
            .map(|report| (Some(report.version), report.prepared, report.problems, report.scrubs))
            .unwrap_or_default();
        let probe = match row.maybe_parsed("probe")?.zip(row.maybe_time("probe_at")?) {
            Some((digest, at)) => {
                let probe = self.probe(&machine, &digest).await?;
                probe.map(|probe| ProbeRecord { probe, digest, at })
            }
            None => None,
        };
        Ok(AgentRecord {
            machine,
            enrolled_at: row.time("enrolled_at")?,
            reported_at: row.maybe_time("reported_at")?,
            alive: row.number("alive")? != 0,
            registered: row.maybe_time("registered")?,
            version,
            prepared,
            problems,
            scrubs,
            probe,
        })
    }

    /// The probe of this digest. `None` where another took its place meanwhile.
    async fn probe(&self, machine: &Name, digest: &Digest) -> Result<Option<Arc<Probe>>, StoreError> {
        let known = self.probes().get(machine).filter(|(known, _)| known == digest).cloned();
        if let Some((_, probe)) = known {
            return Ok(Some(probe));
        }
        let row = sqlx::query("SELECT document FROM probes WHERE machine = $1 AND digest = $2")
            .bind(machine.as_str())
            .bind(digest.to_string())
            .fetch_optional(&self.inner.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let probe: Arc<Probe> = Arc::new(row.json("document")?);
        self.probes().insert(machine.clone(), (*digest, Arc::clone(&probe)));
        Ok(Some(probe))
    }

    /// Who made a machine, what it is called, and which of its parts prove themselves, of its newest inventory; nothing else is
    /// filled in.
    pub async fn model(&self, machine: &MachineRecord) -> Result<Option<Arc<Inventory>>, StoreError> {
        let Some(mark) = &machine.inventory else { return Ok(None) };
        let known = self.models().get(&machine.name).filter(|(known, _)| *known == mark.digest).cloned();
        if let Some((_, model)) = known {
            return Ok(Some(model));
        }
        let Some((inventory, _)) = self.inventory(&machine.name).await? else { return Ok(None) };
        let model = Arc::new(Inventory {
            identity: inventory.identity,
            bmc: inventory.bmc,
            component_integrity: inventory.component_integrity,
            ..Inventory::default()
        });
        self.models().insert(machine.name.clone(), (mark.digest, Arc::clone(&model)));
        Ok(Some(model))
    }

    fn models(&self) -> MutexGuard<'_, BTreeMap<Name, (Digest, Arc<Inventory>)>> {
        self.inner.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn probes(&self) -> MutexGuard<'_, BTreeMap<Name, (Digest, Arc<Probe>)>> {
        self.inner.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write {
    /// What ran on a machine is erased, or not to be trusted: its agent is forgotten, and with it every token, since whoever used
    /// the machine may have kept one.
    pub(crate) async fn void_agent(&mut self, machine: &Name) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM agent_tokens WHERE machine = $1")
            .bind(machine.as_str())
            .execute(self.connection())
            .await?;
        self.forget_agent(machine).await
    }

    /// The agent of a machine, its reports and certificates are void.
    async fn forget_agent(&mut self, machine: &Name) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM agents WHERE machine = $1")
            .bind(machine.as_str())
            .execute(self.connection())
            .await?;
        self.replace_facts_of(machine, Source::Nvml, &[]).await
    }

    /// Refuses a machine whose identity was not checked yet, and one that runs nothing of ours.
    async fn may_have_agent(&mut self, machine: &Name) -> Result<(), StoreError> {
        let row = sqlx::query("SELECT state FROM machines WHERE name = $1")
            .bind(machine.as_str())
            .fetch_optional(self.connection())
            .await?;
        let row =
            row.ok_or_else(|| StoreError::NotFound { kind: domain::Kind::Machine, name: machine.clone() })?;
        let state = state(&row)?;
        if state.is_enrolled() && !state.voids_agent() {
            return Ok(());
        }
        Err(AgentError::NotAllowed { machine: machine.clone(), state }.into())
    }

    /// Whether a host that says this UUID is the machine. Where its BMC tells none there is nothing to compare.
    pub(crate) async fn is_its_host(
        &mut self,
        machine: &Name,
        found: Option<&str>,
    ) -> Result<(), StoreError> {
        let row = sqlx::query("SELECT uuid FROM machines WHERE name = $1")
            .bind(machine.as_str())
            .fetch_one(self.connection())
            .await?;
        match row.maybe_text("uuid")? {
            Some(expected) if !found.is_some_and(|found| found.trim().eq_ignore_ascii_case(&expected)) => {
                let found = found.map(str::to_owned);
                Err(AgentError::OtherMachine { machine: machine.clone(), found, expected }.into())
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn is_current(
    machine: &Name,
    row: Option<&AnyRow>,
    enrolment: EnrolmentId,
) -> Result<(), StoreError> {
    let current = row.map(|row| row.text("enrolment")).transpose()?;
    if current.is_some_and(|current| current == hex::encode(enrolment.0)) {
        return Ok(());
    }
    Err(AgentError::Ended(machine.clone()).into())
}
