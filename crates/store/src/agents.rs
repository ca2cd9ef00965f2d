//! Agents: their one-time tokens, what they report, and when their silence counts. Times that decide are the database's.

use crate::error::StoreError;
use crate::machines::{CELL, MachineRecord, state, subject};
use crate::open::Store;
use crate::queue::timed;
use crate::rows::{Read as _, clean, to_json};
use crate::write::Write;
use domain::agent::{PreparedDevice, Report};
use domain::fact::{self, Source};
use domain::probe::Probe;
use domain::{Digest, Inventory, MachineState, Name, Problem};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::any::AnyRow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// Bytes that name an enrolment.
const ENROLMENT_BYTES: usize = 8;

/// What an agent says of a problem, in characters at most, where it is logged.
const LONGEST_LOGGED: usize = 256;

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

/// What a report came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The probe of that digest is not known.
    pub probe_wanted: bool,
    /// Something that is published depends on what changed.
    pub changed: bool,
    /// An event tells of it.
    pub told: bool,
}

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

    /// The time by the database's clock: what expires, expires by it.
    pub async fn clock(&self) -> Result<Timestamp, StoreError> {
        sqlx::query(self.sql("SELECT NOW AS present")).fetch_one(&self.inner.readers).await?.time("present")
    }

    /// Keeps what an agent said. While it goes on saying the same, only the time is written. From a silence of `patience` on,
    /// its plugin counts as gone. Unless it `may_tell`, a report that an event would tell of is taken for a sign of life alone: what it
    /// says is kept from a later one.
    pub async fn record_report(
        &self,
        machine: &Name,
        enrolment: EnrolmentId,
        report: &Report,
        patience: Duration,
        may_tell: bool,
    ) -> Result<Reported, StoreError> {
        let said = said(report)?;
        if self.repeat_report(machine, enrolment, &said, patience).await? {
            return Ok(Reported::default());
        }
        let mut write = self.write().await?;
        let reported = write.report(machine, enrolment, report, &said, patience, may_tell).await?;
        write.commit().await?;
        Ok(reported)
    }

    /// The same as last time: that it came is a lease, and needs not wait for the disk.
    async fn repeat_report(
        &self,
        machine: &Name,
        enrolment: EnrolmentId,
        said: &Digest,
        patience: Duration,
    ) -> Result<bool, StoreError> {
        let mut writer = self.lease_writer().await?;
        let done = sqlx::query(self.sql(
            "UPDATE agents SET reported_at = NOW, until = NOW + $1, probe_until = NOW + $1 \
             WHERE machine = $2 AND enrolment = $3 AND said = $4 AND alive = 1",
        ))
        .bind(millis(patience))
        .bind(machine.as_str())
        .bind(hex::encode(enrolment.0))
        .bind(said.to_string())
        .execute(&mut *writer.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends what those agents are believed that have been silent too long. Gives their machines.
    pub async fn lapse_agents(&self) -> Result<Vec<Name>, StoreError> {
        const SILENT: &str = "SELECT machine FROM agents WHERE alive = 1 AND until <= NOW ORDER BY machine";
        if sqlx::query(self.sql(SILENT)).fetch_optional(&self.inner.readers).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut write = self.write().await?;
        let rows = sqlx::query(self.sql(SILENT)).fetch_all(write.connection()).await?;
        let silent: Vec<Name> = rows.iter().map(|row| row.name("machine")).collect::<Result<_, _>>()?;
        for machine in &silent {
            sqlx::query("UPDATE agents SET alive = 0, registered = NULL, said = NULL WHERE machine = $1")
                .bind(machine.as_str())
                .execute(write.connection())
                .await?;
            write.event("agent.silent", &subject(machine), CELL, &json!({})).await?;
        }
        write.commit().await?;
        Ok(silent)
    }

    /// Forgets probes of agents that have said long enough that theirs is another one, and have not told it. Gives their machines.
    pub async fn lapse_probes(&self) -> Result<Vec<Name>, StoreError> {
        const OLD: &str = "SELECT a.machine FROM agents a JOIN probes p ON p.machine = a.machine \
            WHERE a.alive = 1 AND a.probe_until <= NOW ORDER BY a.machine";
        if sqlx::query(self.sql(OLD)).fetch_optional(&self.inner.readers).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut write = self.write().await?;
        let rows = sqlx::query(self.sql(OLD)).fetch_all(write.connection()).await?;
        let old: Vec<Name> = rows.iter().map(|row| row.name("machine")).collect::<Result<_, _>>()?;
        for machine in &old {
            for forget in
                ["DELETE FROM probes WHERE machine = $1", "UPDATE agents SET said = NULL WHERE machine = $1"]
            {
                sqlx::query(forget).bind(machine.as_str()).execute(write.connection()).await?;
            }
            write.replace_facts_of(machine, Source::Nvml, &[]).await?;
            write.event("agent.probe-ended", &subject(machine), CELL, &json!({})).await?;
        }
        write.commit().await?;
        Ok(old)
    }

    /// Gives all agents so long to report again: the cell was away, so their silence says nothing.
    pub async fn spare_agents(&self, patience: Duration) -> Result<(), StoreError> {
        sqlx::query(self.sql("UPDATE agents SET until = NOW + $1 WHERE alive = 1 AND until < NOW + $1"))
            .bind(millis(patience))
            .execute(&self.inner.writer)
            .await?;
        sqlx::query(
            self.sql("UPDATE agents SET probe_until = until WHERE alive = 1 AND probe_until < until"),
        )
        .execute(&self.inner.writer)
        .await?;
        Ok(())
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
        let (version, prepared, problems) =
            report.map(|report| (Some(report.version), report.prepared, report.problems)).unwrap_or_default();
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
    async fn is_its_host(&mut self, machine: &Name, found: Option<&str>) -> Result<(), StoreError> {
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

    async fn report(
        &mut self,
        machine: &Name,
        enrolment: EnrolmentId,
        report: &Report,
        said: &Digest,
        patience: Duration,
        may_tell: bool,
    ) -> Result<Reported, StoreError> {
        let row = sqlx::query(
            "SELECT a.enrolment, a.registered, a.report, a.alive, p.digest AS probe \
             FROM agents a LEFT JOIN probes p ON p.machine = a.machine WHERE a.machine = $1",
        )
        .bind(machine.as_str())
        .fetch_optional(self.connection())
        .await?;
        is_current(machine, row.as_ref(), enrolment)?;
        let Some(row) = row else { return Err(AgentError::Ended(machine.clone()).into()) };
        let mut known: Option<Digest> = row.maybe_parsed("probe")?;
        let mut changed = row.number("alive")? == 0;
        let earlier: Option<Value> = row.maybe_json("report")?;
        let before = row.maybe_number("registered")?;
        let registered = report.registered.map(Timestamp::as_millisecond);
        let told = changed
            || known != Some(report.digest)
            || before != registered
            || codes(&problems_of(earlier.as_ref())) != codes(&report.problems);
        if told && !may_tell {
            self.sign_of_life(machine, patience).await?;
            return Ok(Reported::default());
        }
        if changed {
            // What was read before it spoke again is told to nobody any more.
            self.event("agent.reporting", &subject(machine), CELL, &json!({ "bootId": report.boot_id }))
                .await?;
        }
        if let Some(probe) = &report.probe
            && known != Some(report.digest)
        {
            self.is_its_host(machine, probe.host.system_uuid.as_deref()).await?;
            self.replace_probe(machine, probe, &report.digest, known.as_ref()).await?;
            known = Some(report.digest);
            changed = true;
        }
        let probe_wanted = known != Some(report.digest);
        if before != registered {
            changed = true;
            let kind = if registered.is_some() { "agent.registered" } else { "agent.unregistered" };
            self.event(kind, &subject(machine), CELL, &json!({ "bootId": report.boot_id })).await?;
        }
        self.tell_problems(machine, report, earlier.as_ref()).await?;
        let update = timed(
            self.backend(),
            "UPDATE agents SET report = $1, said = $2, registered = $3, alive = 1, \
             reported_at = NOW, until = NOW + $4, \
             probe_until = CASE WHEN CAST($5 AS BIGINT) = 1 THEN NOW + $4 ELSE probe_until END WHERE machine = $6",
        );
        sqlx::query(update)
            .bind(clean(&to_json(&Report { probe: None, ..report.clone() })?).into_owned())
            .bind((!probe_wanted).then(|| said.to_string()))
            .bind(registered)
            .bind(millis(patience))
            .bind(i64::from(!probe_wanted))
            .bind(machine.as_str())
            .execute(self.connection())
            .await?;
        Ok(Reported { probe_wanted, changed, told })
    }

    /// It came, whatever it says. One that was silent stays so until what it says is kept.
    async fn sign_of_life(&mut self, machine: &Name, patience: Duration) -> Result<(), StoreError> {
        let sql = timed(
            self.backend(),
            "UPDATE agents SET reported_at = NOW, until = NOW + $1 WHERE machine = $2 AND alive = 1",
        );
        sqlx::query(sql).bind(millis(patience)).bind(machine.as_str()).execute(self.connection()).await?;
        Ok(())
    }

    async fn tell_problems(
        &mut self,
        machine: &Name,
        report: &Report,
        earlier: Option<&Value>,
    ) -> Result<(), StoreError> {
        if codes(&problems_of(earlier)) != codes(&report.problems) {
            // The record of the agent has them whole; the log is kept for ever.
            let brief = |problem: &Problem| {
                let cut = |text: &str| text.chars().take(LONGEST_LOGGED).collect::<String>();
                json!({ "code": cut(&problem.code), "message": cut(&problem.message) })
            };
            let data = json!({ "problems": report.problems.iter().map(brief).collect::<Vec<_>>() });
            self.event("agent.problems", &subject(machine), CELL, &data).await?;
        }
        Ok(())
    }

    async fn replace_probe(
        &mut self,
        machine: &Name,
        probe: &Probe,
        digest: &Digest,
        before: Option<&Digest>,
    ) -> Result<(), StoreError> {
        let now = self.now;
        sqlx::query(
            "INSERT INTO probes (machine, digest, document, at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (machine) DO UPDATE SET digest = excluded.digest, document = excluded.document, at = excluded.at",
        )
        .bind(machine.as_str())
        .bind(digest.to_string())
        .bind(clean(&to_json(probe)?).into_owned())
        .bind(now.as_millisecond())
        .execute(self.connection())
        .await?;
        self.replace_facts_of(machine, Source::Nvml, &fact::from_probe(probe, now)).await?;
        let data = json!({
            "digest": digest, "before": before, "gpus": probe.gpus.len(),
            "driver": probe.driver.as_ref().and_then(|driver| driver.version.as_ref()),
            "ill": probe.gpus.iter().filter(|gpu| !gpu.health.is_empty()).count(),
        });
        self.event("agent.probed", &subject(machine), CELL, &data).await?;
        Ok(())
    }
}

fn is_current(machine: &Name, row: Option<&AnyRow>, enrolment: EnrolmentId) -> Result<(), StoreError> {
    let current = row.map(|row| row.text("enrolment")).transpose()?;
    if current.is_some_and(|current| current == hex::encode(enrolment.0)) {
        return Ok(());
    }
    Err(AgentError::Ended(machine.clone()).into())
}

fn codes(problems: &[Problem]) -> BTreeSet<&str> {
    problems.iter().map(|problem| problem.code.as_str()).collect()
}

/// The problems of a report as it was kept.
fn problems_of(report: Option<&Value>) -> Vec<Problem> {
    let problems = report.and_then(|report| report.get("problems").cloned());
    problems.and_then(|problems| serde_json::from_value(problems).ok()).unwrap_or_default()
}

/// Digest of all of a report but the body of its probe, for which its digest stands.
fn said(report: &Report) -> Result<Digest, StoreError> {
    Ok(Digest::of(to_json(&Report { probe: None, ..report.clone() })?.as_bytes()))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4)
}
