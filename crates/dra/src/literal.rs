//! CEL literals: what a person declared never becomes code.

use std::fmt::Write as _;

/// A single-quoted CEL string literal. Everything but plain printable ASCII is written as an escape, so that neither quotes,
/// backslashes nor line breaks of a model's name can end the literal (CEL specification, "String and Bytes Values").
pub(crate) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' | '"' | '`' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c if u32::from(c) <= 0xffff => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('\'');
    out
}

/// A list of string literals.
pub(crate) fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    format!("[{}]", items.into_iter().map(string).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_literal_evaluates_to_the_text_it_was_made_from(text in any::<String>()) {
            let program = cel::Program::compile(&string(&text)).unwrap();
            let value = program.execute(&cel::Context::default()).unwrap();
            prop_assert_eq!(value, cel::Value::String(std::sync::Arc::new(text)));
        }
    }
}
