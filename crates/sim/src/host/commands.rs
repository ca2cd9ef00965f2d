//! The commands of an agent: what Ironic asks, and the records that it reads back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::hardware::Hardware;

/// One running agent, as its server and its host share it.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) hardware: Hardware,
    token: Mutex<Option<String>>,
    records: Mutex<Vec<Record>>,
    jobs: mpsc::UnboundedSender<Job>,
    finished: Notify,
}

/// A command as Ironic reads it.
#[derive(Clone, Debug)]
struct Record {
    id: String,
    name: String,
    params: Value,
    outcome: Option<Outcome>,
}

/// How a command ended: its result, or why it failed.
pub(crate) type Outcome = Result<Value, String>;

/// Work for the host.
#[derive(Debug)]
pub(crate) struct Job {
    id: String,
    pub(crate) work: Work,
}

/// What takes time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    /// A clean or deploy step; `kind` is `clean` or `deploy`.
    Step { kind: &'static str, step: Value },
    /// A boot loader is written.
    Bootloader,
    /// The host switches itself off.
    PowerOff,
}

/// Why a request is refused: status and sentence.
pub(crate) type Refused = (u16, &'static str);

impl Agent {
    pub(crate) fn new(hardware: Hardware) -> (Self, mpsc::UnboundedReceiver<Job>) {
        let (jobs, work) = mpsc::unbounded_channel();
        let (token, records) = (Mutex::default(), Mutex::default());
        (Self { hardware, token, records, jobs, finished: Notify::new() }, work)
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token that every command must carry from now on.
    pub(crate) fn set_token(&self, token: Option<String>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    pub(crate) fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn admits(&self, given: Option<&str>) -> Result<(), Refused> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        match token.as_deref() {
            Some(token) if given != Some(token) => Err((401, "Token invalid: agent_token does not match.")),
            _ => Ok(()),
        }
    }

    /// `GET /v1/commands/`.
    pub(crate) fn list(&self, token: Option<&str>) -> Result<Value, Refused> {
        self.admits(token)?;
        Ok(json!({"commands": self.records().iter().map(Record::show).collect::<Vec<_>>()}))
    }

    /// `GET /v1/commands/ID`.
    pub(crate) fn one(&self, id: &str, token: Option<&str>) -> Result<Value, Refused> {
        self.admits(token)?;
        let records = self.records();
        let record = records.iter().find(|record| record.id == id).ok_or((404, "No such command."))?;
        Ok(record.show())
    }

    /// `POST /v1/commands/`: answers when the command is done if `wait`, else at once.
    pub(crate) async fn execute(
        &self,
        body: &Value,
        token: Option<&str>,
        wait: bool,
    ) -> Result<Value, Refused> {
        self.admits(token)?;
        let name = body["name"].as_str().ok_or((400, "A command needs a name."))?;
        let params = body.get("params").cloned().unwrap_or_default();
        let id = uuid::Uuid::new_v4().to_string();
        let plan = plan(name, &params, &self.hardware);
        let mut record = Record { id: id.clone(), name: short(name).to_owned(), params, outcome: None };
        let job = match plan {
            Plan::Unknown => return Err((400, "There is no such command.")),
            Plan::Answer(outcome) => {
                record.outcome = Some(outcome);
                None
            }
            // Answered before it is done: afterwards there is nobody to answer.
            Plan::Work(Work::PowerOff) => {
                record.outcome = Some(Ok(Value::Null));
                Some(Work::PowerOff)
            }
            Plan::Work(work) => Some(work),
        };
        let shown = record.show();
        {
            let mut records = self.records();
            if job.is_some() && records.iter().any(|record| record.outcome.is_none()) {
                return Err((409, "Agent is busy executing another command."));
            }
            records.push(record);
        }
        let Some(work) = job else { return Ok(shown) };
        if self.jobs.send(Job { id: id.clone(), work }).is_err() {
            return Err((503, "The agent is ending."));
        }
        if wait { Ok(self.finished(&id).await) } else { Ok(shown) }
    }

    async fn finished(&self, id: &str) -> Value {
        loop {
            let changed = self.finished.notified();
            let record = self.records().iter().find(|record| record.id == id).cloned();
            match record {
                Some(record) if record.outcome.is_none() => changed.await,
                Some(record) => return record.show(),
                None => return Value::Null,
            }
        }
    }

    /// Records how a job ended.
    pub(crate) fn finish(&self, job: &Job, outcome: Outcome) {
        if let Some(record) = self.records().iter_mut().find(|record| record.id == job.id) {
            record.outcome.get_or_insert(outcome);
        }
        self.finished.notify_waiters();
    }
}

impl Record {
    fn show(&self) -> Value {
        let (status, result, error) = match &self.outcome {
            None => ("RUNNING", Value::Null, Value::Null),
            Some(Ok(result)) => ("SUCCEEDED", result.clone(), Value::Null),
            Some(Err(why)) => {
                let error = json!({"type": "AgentError", "code": 500, "message": why, "details": why});
                ("FAILED", Value::Null, error)
            }
        };
        json!({"id": self.id, "command_name": self.name, "command_params": self.params, "command_status": status,
            "command_result": result, "command_error": error})
    }
}

/// What becomes of a command.
#[derive(Debug, PartialEq)]
enum Plan {
    Unknown,
    Answer(Outcome),
    Work(Work),
}

fn plan(name: &str, params: &Value, hardware: &Hardware) -> Plan {
    let step = |kind| Plan::Work(Work::Step { kind, step: params["step"].clone() });
    match name {
        "clean.get_clean_steps" => Plan::Answer(Ok(with_versions("clean_steps", &clean_steps(hardware)))),
        "deploy.get_deploy_steps" => Plan::Answer(Ok(with_versions("deploy_steps", &deploy_steps()))),
        "service.get_service_steps" => Plan::Answer(Ok(with_versions("service_steps", &json!({})))),
        "clean.execute_clean_step" => step("clean"),
        "deploy.execute_deploy_step" => step("deploy"),
        "image.install_bootloader" => Plan::Work(Work::Bootloader),
        "standby.get_partition_uuids" => Plan::Answer(Ok(json!({"partitions": {}, "root uuid": null}))),
        "standby.sync" => Plan::Answer(Ok(Value::Null)),
        "standby.power_off" => Plan::Work(Work::PowerOff),
        // An empty archive: a simulated ramdisk keeps no log.
        "log.collect_system_logs" => Plan::Answer(Ok(json!({"system_logs": ""}))),
        _ => Plan::Unknown,
    }
}

/// The hardware managers of this agent; steps of parts that the machine does not have are not offered.
const GENERIC: &str = "GenericHardwareManager";
const ACCELERATORS: &str = "AcceleratorHardwareManager";
const TPM: &str = "TpmHardwareManager";

fn with_versions(steps: &str, by_manager: &Value) -> Value {
    json!({steps: by_manager, "hardware_manager_version": {GENERIC: "1.2", ACCELERATORS: "1.0", TPM: "1.0"}})
}

fn one_step(step: &str, priority: u32) -> Value {
    json!({"step": step, "priority": priority, "interface": "deploy", "reboot_requested": false, "abortable": true})
}

/// Those of accelerators and TPM are run where they are asked for: automated cleaning leaves out what has priority 0.
fn clean_steps(hardware: &Hardware) -> Value {
    let mut steps = json!({GENERIC: [
        one_step("erase_devices", 10), one_step("erase_devices_metadata", 99), one_step("erase_devices_express", 0),
    ]});
    if !hardware.gpus.is_empty() {
        steps[ACCELERATORS] = json!([one_step("erase_gpu_memory", 0)]);
    }
    if hardware.tpm {
        steps[TPM] = json!([one_step("clear_tpm", 0)]);
    }
    steps
}

/// Never empty: without one Ironic asks for them at every heartbeat, and for nothing else (facts §8).
fn deploy_steps() -> Value {
    json!({GENERIC: [one_step("write_image", 0), one_step("erase_devices_metadata", 0)]})
}

/// Commands are recorded without the name of their extension.
fn short(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, short)| short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> (Agent, mpsc::UnboundedReceiver<Job>) {
        Agent::new(Hardware::default())
    }

    #[tokio::test]
    async fn a_command_needs_the_token_of_this_boot() {
        let (agent, _work) = agent();
        agent.set_token(Some("right".to_owned()));
        let steps = json!({"name": "deploy.get_deploy_steps", "params": {}});
        assert_eq!(agent.execute(&steps, Some("wrong"), true).await.unwrap_err().0, 401);
        let record = agent.execute(&steps, Some("right"), true).await.unwrap();
        assert_eq!(record["command_name"], "get_deploy_steps");
        assert!(!record["command_result"]["deploy_steps"][GENERIC].as_array().unwrap().is_empty());
        assert_eq!(agent.list(None).unwrap_err().0, 401);
    }

    #[tokio::test]
    async fn one_command_runs_at_a_time_and_is_read_back() {
        let (agent, mut work) = agent();
        let clean =
            json!({"name": "clean.execute_clean_step", "params": {"step": {"step": "erase_devices"}}});
        let running = agent.execute(&clean, None, false).await.unwrap();
        assert_eq!(running["command_status"], "RUNNING");
        assert_eq!(agent.execute(&clean, None, false).await.unwrap_err().0, 409);
        let job = work.recv().await.unwrap();
        agent.finish(&job, Err("disk is on fire".to_owned()));
        let listed = agent.list(None).unwrap();
        assert_eq!(listed["commands"][0]["command_status"], "FAILED");
        assert_eq!(listed["commands"][0]["command_error"]["details"], "disk is on fire");
    }

    #[tokio::test]
    async fn what_no_agent_knows_is_refused() {
        let (agent, _work) = agent();
        let unknown = json!({"name": "rescue.dance", "params": {}});
        assert_eq!(agent.execute(&unknown, None, false).await.unwrap_err().0, 400);
        assert_eq!(agent.execute(&json!({}), None, false).await.unwrap_err().0, 400);
    }

    #[test]
    fn steps_for_gpus_and_tpm_are_offered_where_there_are_any() {
        let steps = clean_steps(&Hardware::with_tpm());
        assert!(steps.get(TPM).is_some() && steps.get(ACCELERATORS).is_none());
    }
}
