//! What agents report, and when their silence counts. Times that decide are the database's.

use crate::agents::{AgentError, EnrolmentId, is_current};
use crate::clock::millis;
use crate::error::StoreError;
use crate::machines::{CELL, subject};
use crate::open::Store;
use crate::rows::{Read as _, clean, to_json};
use crate::write::Write;
use domain::agent::{MOST_SCRUBS, Report, ScrubRecord};
use domain::fact::{self, Source};
use domain::probe::Probe;
use domain::{Digest, Name, Problem};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// What an agent says of a problem, in characters at most, where it is logged.
const LONGEST_LOGGED: usize = 256;

/// What a report came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The probe of that digest is not known.
    pub probe_wanted: bool,
    /// What the report says is kept.
    pub kept: bool,
    /// Something that is published depends on what changed.
    pub changed: bool,
    /// An event tells of it.
    pub told: bool,
}

impl Store {
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
            return Ok(Reported { kept: true, ..Reported::default() });
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
        let mut writer = self.writer().await?;
        let done = sqlx::query(self.sql(
            "UPDATE agents SET reported_at = NOW, until = NOW + $1, probe_until = NOW + $1 \
             WHERE machine = $2 AND enrolment = $3 AND said = $4 AND alive = 1",
        ))
        .bind(millis(patience))
        .bind(machine.as_str())
        .bind(hex::encode(enrolment.bytes()))
        .bind(said.to_string())
        .execute(writer.leases())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends what those agents are believed that have been silent too long. Gives their machines.
    pub async fn lapse_agents(&self) -> Result<Vec<Name>, StoreError> {
        const SILENT: &str = "SELECT machine FROM agents WHERE alive = 1 AND until <= NOW ORDER BY machine";
        let Some((mut write, silent)) = self.lapsed(SILENT).await? else { return Ok(Vec::new()) };
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
        let Some((mut write, old)) = self.lapsed(OLD).await? else { return Ok(Vec::new()) };
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

    /// The machines that a query finds, and a write that found them; the writer is not waited for where there are none.
    async fn lapsed(&self, query: &'static str) -> Result<Option<(Write, Vec<Name>)>, StoreError> {
        if sqlx::query(self.sql(query)).fetch_optional(&self.inner.readers).await?.is_none() {
            return Ok(None);
        }
        let mut write = self.write().await?;
        let rows = sqlx::query(self.sql(query)).fetch_all(write.connection()).await?;
        let machines = rows.iter().map(|row| row.name("machine")).collect::<Result<_, _>>()?;
        Ok(Some((write, machines)))
    }

    /// Gives all agents so long to report again: the cell was away, so their silence says nothing.
    pub async fn spare_agents(&self, patience: Duration) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query(self.sql("UPDATE agents SET until = NOW + $1 WHERE alive = 1 AND until < NOW + $1"))
            .bind(millis(patience))
            .execute(&mut *writer)
            .await?;
        sqlx::query(
            self.sql("UPDATE agents SET probe_until = until WHERE alive = 1 AND probe_until < until"),
        )
        .execute(&mut *writer)
        .await?;
        Ok(())
    }
}

impl Write {
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
        let (scrubs, new_scrubs) = scrubs(earlier.as_ref(), report);
        let told = changed
            || new_scrubs > 0
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
        self.tell_scrubs(machine, &scrubs[scrubs.len() - new_scrubs..]).await?;
        let update = self.sql(
            "UPDATE agents SET report = $1, said = $2, registered = $3, alive = 1, \
             reported_at = NOW, until = NOW + $4, \
             probe_until = CASE WHEN CAST($5 AS BIGINT) = 1 THEN NOW + $4 ELSE probe_until END WHERE machine = $6",
        );
        sqlx::query(update)
            .bind(clean(&to_json(&Report { probe: None, scrubs, ..report.clone() })?).into_owned())
            .bind((!probe_wanted).then(|| said.to_string()))
            .bind(registered)
            .bind(millis(patience))
            .bind(i64::from(!probe_wanted))
            .bind(machine.as_str())
            .execute(self.connection())
            .await?;
        Ok(Reported { probe_wanted, kept: true, changed, told })
    }

    /// It came, whatever it says. One that was silent stays so until what it says is kept.
    async fn sign_of_life(&mut self, machine: &Name, patience: Duration) -> Result<(), StoreError> {
        let sql = self
            .sql("UPDATE agents SET reported_at = NOW, until = NOW + $1 WHERE machine = $2 AND alive = 1");
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

    async fn tell_scrubs(&mut self, machine: &Name, scrubs: &[ScrubRecord]) -> Result<(), StoreError> {
        for scrub in scrubs {
            let kind = if scrub.failure.is_none() { "gpu.scrubbed" } else { "gpu.scrub-failed" };
            self.event(kind, &subject(machine), CELL, &json!(scrub)).await?;
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

fn codes(problems: &[Problem]) -> BTreeSet<&str> {
    problems.iter().map(|problem| problem.code.as_str()).collect()
}

/// The last scrubs that are known of a machine, and how many at their end a report tells for the first time: an answer that is lost has it
/// told again.
fn scrubs(earlier: Option<&Value>, report: &Report) -> (Vec<ScrubRecord>, usize) {
    let known = earlier.and_then(|report| serde_json::from_value(report.get("scrubs")?.clone()).ok());
    let mut scrubs: Vec<ScrubRecord> = known.unwrap_or_default();
    let new: Vec<_> = report.scrubs.iter().filter(|scrub| !scrubs.contains(scrub)).cloned().collect();
    let count = new.len();
    scrubs.extend(new);
    scrubs.drain(..scrubs.len().saturating_sub(MOST_SCRUBS));
    (scrubs, count)
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
