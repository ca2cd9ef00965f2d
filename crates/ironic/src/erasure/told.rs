//! Cleanings that Ironic's history tells of: newer versions note `Starting manual cleaning with steps=[…]` and `Manual
//! Cleaning completed successfully with steps=[]` (Ironic 39, `log_step_flow_history`; the list at the end is empty, since it
//! is wiped before it is noted, and a cleaning by the agent has no start). So the history proves steps that no poll saw,
//! where it has them.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::history::HistoryEvent;
use crate::node::Step;

const STARTED: &str = "cleaning with steps=";
const COMPLETED: &str = "Cleaning completed successfully with steps=";

/// What the history says since some time.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Whether a cleaning ended well.
    pub(super) completed: bool,
    /// The steps of those cleanings that ended well, as far as they are told.
    pub(super) steps: Vec<Step>,
}

/// Reads the history, oldest first, from `since` on.
pub(super) fn told(history: &[HistoryEvent], since: Timestamp) -> Told {
    let mut told = Told::default();
    let mut started: Vec<Step> = Vec::new();
    for event in history.iter().filter(|event| event.created_at.is_some_and(|at| at >= since)) {
        if let Some((_, steps)) = event.event.split_once(COMPLETED) {
            told.completed = true;
            told.steps.append(&mut started);
            told.steps.extend(steps_of(steps));
        } else if let Some((_, steps)) = event.event.split_once(STARTED) {
            started = steps_of(steps);
        } else if event.is_error() {
            started.clear();
        }
    }
    told
}

fn steps_of(text: &str) -> Vec<Step> {
    let Some(Value::Array(steps)) = Literal::read(text) else { return Vec::new() };
    steps.into_iter().filter_map(|step| serde_json::from_value(step).ok()).collect()
}

/// Reads what Python's `repr` writes of lists, dictionaries, strings, numbers, `True`, `False` and `None`.
struct Literal<'a> {
    rest: &'a str,
}

/// Steps hold arguments that hold little.
const DEPTH: usize = 16;

impl<'a> Literal<'a> {
    fn read(text: &'a str) -> Option<Value> {
        Self { rest: text }.value(DEPTH)
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        self.skip();
        match self.rest.chars().next()? {
            '[' => self.list(depth),
            '{' => self.map(depth),
            quote @ ('\'' | '"') => self.text(quote).map(Value::String),
            _ => self.word(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut members = Vec::new();
        self.take("[");
        while !self.take("]") {
            members.push(self.value(depth)?);
            self.take(",");
        }
        Some(Value::Array(members))
    }

    fn map(&mut self, depth: usize) -> Option<Value> {
        let mut members = Map::new();
        self.take("{");
        while !self.take("}") {
            let Value::String(key) = self.value(depth)? else { return None };
            if !self.take(":") {
                return None;
            }
            members.insert(key, self.value(depth)?);
            self.take(",");
        }
        Some(Value::Object(members))
    }

    fn text(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => text.push(characters.next()?.1),
                _ if character == quote => {
                    self.rest = self.rest.get(at + 1..)?;
                    return Some(text);
                }
                _ => text.push(character),
            }
        }
        None
    }

    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find([',', ']', '}', ' ', ':']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "" => None,
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            "None" => Some(Value::Null),
            number => serde_json::from_str(number).ok().filter(Value::is_number),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(second: i64, severity: &str, text: &str) -> HistoryEvent {
        HistoryEvent {
            uuid: String::new(),
            created_at: Some(at(second)),
            severity: severity.to_owned(),
            event_type: None,
            event: text.to_owned(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const START: &str = "Starting manual cleaning with steps=[{'interface': 'bios', 'step': 'factory_reset', 'abortable': False, 'priority': 0}]";
    const END: &str = "Manual Cleaning completed successfully with steps=[]";

    #[test]
    fn the_steps_are_told_at_the_start_and_that_they_are_done_at_the_end() {
        let told = told(&[event(1, "INFO", START), event(2, "INFO", END)], at(0));
        let expected = Step { priority: Some(0), ..Step::new("bios", "factory_reset") };
        assert_eq!(told, Told { completed: true, steps: vec![expected] });
    }

    #[test]
    fn what_failed_or_has_not_ended_or_was_before_is_not_told() {
        for history in [
            vec![event(1, "INFO", START)],
            vec![event(1, "INFO", START), event(2, "ERROR", "Clean step failed"), event(3, "INFO", END)],
            vec![event(-2, "INFO", START), event(-1, "INFO", END)],
        ] {
            assert!(told(&history, at(0)).steps.is_empty(), "{history:?}");
        }
    }

    #[test]
    fn pythons_literals_are_read() {
        let text = r#"[{'a': True, 'b': None, "it's": -3, 'c': [1.5, 'x\'y'], 'd': {}}]"#;
        assert_eq!(
            Literal::read(text),
            Some(json!([{"a": true, "b": null, "it's": -3, "c": [1.5, "x'y"], "d": {}}]))
        );
    }

    proptest! {
        #[test]
        fn whatever_the_history_says_it_is_read_or_not(text in r#"[\[\]{}',:" a-z0-9TFN\\]{0,60}|.{0,40}"#) {
            let _read = Literal::read(&text);
        }
    }
}
