//! JSON written straight into text. A fleet with all its partitions is hundreds of megabytes of it: no tree of values is built
//! first, and what many devices share is written once and copied.

use serde::Serialize;

/// JSON under way: members or items, each followed by a comma until what holds them is closed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    /// One whole object. `room`: so many bytes it will about take.
    pub(crate) fn object_of(room: usize, members: impl FnOnce(&mut Self)) -> String {
        let mut text = Self(String::with_capacity(room));
        text.item(members);
        text.0.pop();
        text.0
    }

    pub(crate) fn string(&mut self, name: &str, value: &str) {
        self.strings(name, &[value]);
    }

    /// A string that is these parts, one after the other.
    pub(crate) fn strings(&mut self, name: &str, parts: &[&str]) {
        self.name(name);
        self.0.push('"');
        for part in parts {
            self.escaped(part);
        }
        self.0.push_str("\",");
    }

    pub(crate) fn truth(&mut self, name: &str, value: bool) {
        self.name(name);
        self.0.push_str(if value { "true," } else { "false," });
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.0.push_str(&value.to_string());
        self.0.push(',');
    }

    pub(crate) fn object(&mut self, name: &str, members: impl FnOnce(&mut Self)) {
        self.name(name);
        self.item(members);
    }

    pub(crate) fn array(&mut self, name: &str, items: impl FnOnce(&mut Self)) {
        self.name(name);
        self.closed('[', ']', items);
    }

    /// An object in an array.
    pub(crate) fn item(&mut self, members: impl FnOnce(&mut Self)) {
        self.closed('{', '}', members);
    }

    /// Any value in an array. What this crate writes so cannot fail.
    pub(crate) fn value(&mut self, value: &impl Serialize) {
        self.0.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
        self.0.push(',');
    }

    /// What was written before, at once.
    pub(crate) fn extend(&mut self, written: &Self) {
        self.0.push_str(&written.0);
    }

    fn name(&mut self, name: &str) {
        self.0.push('"');
        self.escaped(name);
        self.0.push_str("\":");
    }

    fn closed(&mut self, open: char, close: char, inside: impl FnOnce(&mut Self)) {
        self.0.push(open);
        inside(self);
        if self.0.ends_with(',') {
            self.0.pop();
        }
        self.0.push(close);
        self.0.push(',');
    }

    fn escaped(&mut self, text: &str) {
        if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            return self.0.push_str(text);
        }
        let quoted = serde_json::to_string(text).unwrap_or_default();
        self.0.push_str(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default());
    }
}

/// Items of an array that may be split into several.
#[derive(Debug, Default)]
pub(crate) struct Items {
    text: Text,
    ends: Vec<usize>,
}

impl Items {
    pub(crate) fn push(&mut self, members: impl FnOnce(&mut Text)) {
        self.text.item(members);
        self.ends.push(self.text.0.len());
    }

    pub(crate) fn clear(&mut self) {
        self.text.0.clear();
        self.ends.clear();
    }

    /// As many at a time.
    pub(crate) fn chunks(&self, size: usize) -> impl Iterator<Item = Chunk<'_>> {
        let mut begin = 0;
        self.ends.chunks(size).map(move |ends| {
            let end = ends.last().copied().unwrap_or(begin);
            Chunk(&self.text.0[std::mem::replace(&mut begin, end)..end])
        })
    }
}

/// Some items of an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'a>(&'a str);

impl Chunk<'_> {
    pub(crate) fn bytes(self) -> usize {
        self.0.len()
    }

    pub(crate) fn write(self, text: &mut Text) {
        text.0.push_str(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_written_reads_as_what_was_meant() {
        let text = Text::object_of(0, |text| {
            text.truth("yes", true);
            text.object("inner", |inner| inner.number("seven", 7));
            text.object("empty", |_| {});
            text.array("list", |list| {
                list.item(|item| item.strings("name", &["a", "-b"]));
                list.value(&json!({ "c": [1] }));
            });
        });
        let meant = json!({ "yes": true, "inner": { "seven": 7 }, "empty": {}, "list": [{ "name": "a-b" }, { "c": [1] }] });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), meant);
    }

    #[test]
    fn items_are_split_without_losing_one() {
        let mut items = Items::default();
        (0..5).for_each(|at| items.push(|item| item.number("at", at)));
        let chunks: Vec<_> = items.chunks(2).map(|chunk| chunk.0.to_owned()).collect();
        assert_eq!(chunks, [r#"{"at":0},{"at":1},"#, r#"{"at":2},{"at":3},"#, r#"{"at":4},"#]);
    }

    proptest! {
        #[test]
        fn any_string_is_read_back(name in any::<String>(), value in any::<String>()) {
            let text = Text::object_of(0, |text| text.string(&name, &value));
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({ name: value }));
        }
    }
}
