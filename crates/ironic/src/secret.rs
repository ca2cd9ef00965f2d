//! A value that is sent and never shown.

use std::fmt;

use zeroize::Zeroizing;

/// A password, a token, or a document that holds one. `Debug` shows dots, it cannot be serialised by accident, and it is
/// wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value itself, for the request that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What servers put in the place of a secret, and what we do.
pub(crate) const MASK: &str = "******";

/// Secrets shorter than this are not sought in texts: replacing every `a` would make a text unreadable and tell the secret.
const SHORTEST: usize = 4;

/// Replaces every secret in a text that somebody else wrote: Ironic quotes whole patches when it refuses one. The text as
/// JSON or Python would quote it is sought too.
pub(crate) fn redact(text: &str, secrets: &[Secret]) -> String {
    let mut text = text.to_owned();
    let mut forms: Vec<Zeroizing<String>> = Vec::new();
    for secret in secrets {
        let plain = secret.reveal();
        let quoted = Zeroizing::new(serde_json::Value::from(plain).to_string());
        forms.push(Zeroizing::new(quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()));
        forms.push(Zeroizing::new(plain.escape_default().to_string()));
        forms.push(Zeroizing::new(plain.to_owned()));
    }
    // The longest first, so that none is hidden by a part of it.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    for form in forms.iter().filter(|form| form.len() >= SHORTEST) {
        text = text.replace(form.as_str(), MASK);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("calvin")), "Secret(…)");
    }

    #[test]
    fn a_secret_is_taken_out_however_it_is_quoted() {
        let secret = Secret::new(r#"pa"ss\word"#);
        let text = r#"plain pa"ss\word, JSON "pa\"ss\\word""#;
        assert_eq!(redact(text, std::slice::from_ref(&secret)), r#"plain ******, JSON "******""#);
    }

    proptest! {
        #[test]
        fn no_text_shows_a_secret_of_some_length(before in ".{0,20}", secret in "[a-zé0-9\"\\\\ ]{4,20}", after in ".{0,20}") {
            let redacted = redact(&format!("{before}{secret}{after}"), &[Secret::new(secret.clone())]);
            prop_assert!(!redacted.contains(&secret));
        }
    }
}
