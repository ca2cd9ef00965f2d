//! BIOS settings that hold from the next reset on, and the tasks that come of them (quirks 10, 11, 17, 18).

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::behaviour::{SettingsStyle, TaskStyle};
use crate::messages;

/// What is to be applied at the next reset.
#[derive(Debug, Default)]
pub(crate) struct Settings(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pending: Map<String, Value>,
    tasks: Vec<Task>,
}

#[derive(Debug)]
struct Task {
    complete: bool,
    reads: u32,
}

impl Settings {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes attributes for the next reset; the number of the task, where there is to be one.
    pub(crate) fn change(&self, attributes: &Map<String, Value>, style: SettingsStyle) -> Option<usize> {
        let mut state = self.lock();
        state.pending.extend(attributes.clone());
        let style = style.tasks?;
        state.tasks.push(Task { complete: style.complete_before_reset, reads: 0 });
        Some(state.tasks.len())
    }

    /// What is to come, as the settings object shows it.
    pub(crate) fn pending(&self) -> Value {
        Value::Object(self.lock().pending.clone())
    }

    /// The host is reset: what is to be applied now, if anything is.
    pub(crate) fn apply(&self) -> Option<Value> {
        let mut state = self.lock();
        state.tasks.iter_mut().for_each(|task| task.complete = true);
        let pending = std::mem::take(&mut state.pending);
        (!pending.is_empty()).then(|| Value::Object(pending))
    }

    /// The tasks that can be seen.
    pub(crate) fn listed(&self, style: Option<TaskStyle>) -> Vec<usize> {
        let style = style.unwrap_or_default();
        let tasks = &self.lock().tasks;
        (1..=tasks.len()).filter(|n| !(style.vanishes && tasks[n - 1].complete)).collect()
    }

    /// A task as it is read once more; none where it is not there yet, or no longer.
    pub(crate) fn read(&self, path: &str, number: usize, style: Option<TaskStyle>) -> Option<Value> {
        let style = style.unwrap_or_default();
        let mut state = self.lock();
        let task = state.tasks.get_mut(number.checked_sub(1)?)?;
        task.reads = task.reads.saturating_add(1);
        if task.reads <= style.late || (task.complete && style.vanishes) {
            return None;
        }
        let fresh = task.reads <= style.late.saturating_add(style.new);
        let (at, status) = match (fresh, task.complete) {
            (true, _) => ("New", "OK"),
            (false, true) => ("Completed", "OK"),
            (false, false) => ("Pending", "OK"),
        };
        Some(json!({
            "@odata.id": path, "@odata.type": "#Task.v1_7_0.Task", "Id": number.to_string(), "Name": "BIOS settings",
            "TaskState": at, "TaskStatus": status, "PercentComplete": if at == "Completed" { 100 } else { 0 }, "Messages": [],
        }))
    }
}

/// The attributes of a PATCH of the settings object, where they are ones that this BIOS has.
pub(crate) fn attributes<'a>(
    body: &'a Value,
    known: &Value,
    style: SettingsStyle,
) -> Result<&'a Map<String, Value>, Value> {
    if style.apply_time_required && !body["@Redfish.SettingsApplyTime"]["ApplyTime"].is_string() {
        return Err(messages::property_missing("@Redfish.SettingsApplyTime"));
    }
    let attributes =
        body["Attributes"].as_object().ok_or_else(|| messages::property_missing("Attributes"))?;
    match attributes.keys().find(|name| known.get(name.as_str()).is_none()) {
        Some(unknown) => Err(messages::property_unknown(unknown)),
        None => Ok(attributes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/redfish/v1/TaskService/Tasks/1";

    fn with_task(style: TaskStyle) -> (Settings, SettingsStyle) {
        let (settings, style) =
            (Settings::default(), SettingsStyle { apply_time_required: false, tasks: Some(style) });
        let body = json!({"Attributes": {"Sriov": "On"}});
        settings.change(attributes(&body, &json!({"Sriov": "Off"}), style).unwrap(), style);
        (settings, style)
    }

    fn states(settings: &Settings, style: SettingsStyle, reads: usize) -> Vec<Option<String>> {
        let state = |_| Some(settings.read(PATH, 1, style.tasks)?["TaskState"].as_str()?.to_owned());
        (0..reads).map(state).collect()
    }

    #[test]
    fn settings_wait_for_a_reset_and_so_does_their_task() {
        let (settings, style) = with_task(TaskStyle::default());
        assert_eq!(settings.pending(), json!({"Sriov": "On"}));
        assert_eq!(states(&settings, style, 1), [Some("Pending".to_owned())]);
        assert_eq!(settings.apply(), Some(json!({"Sriov": "On"})));
        assert_eq!(states(&settings, style, 1), [Some("Completed".to_owned())]);
        assert_eq!((settings.apply(), settings.pending()), (None, json!({})));
    }

    #[test]
    fn a_task_may_come_late_say_new_and_vanish() {
        let (settings, style) =
            with_task(TaskStyle { late: 1, new: 1, vanishes: true, ..TaskStyle::default() });
        let expected = [None, Some("New".to_owned()), Some("Pending".to_owned())];
        assert_eq!(states(&settings, style, 3), expected);
        settings.apply();
        assert_eq!(states(&settings, style, 1), [None]);
        assert_eq!(settings.listed(style.tasks), Vec::<usize>::new());
    }

    #[test]
    fn what_the_bios_does_not_have_is_refused() {
        let style = SettingsStyle { apply_time_required: true, tasks: None };
        let known = json!({"Sriov": "Off"});
        let body = json!({"Attributes": {"Sriov": "On"}});
        assert!(attributes(&body, &known, style).is_err(), "no apply time");
        let body =
            json!({"Attributes": {"Srio v": "On"}, "@Redfish.SettingsApplyTime": {"ApplyTime": "OnReset"}});
        assert!(attributes(&body, &known, style).is_err(), "no such attribute");
    }
}
