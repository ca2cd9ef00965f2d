//! Messages of the BMC by their MessageId, never by their text: texts come in any language, and registries may be
//! missing (quirk 44). DSP0266 §8.6 gives the form of an error response.

use serde_json::Value;

/// What a MessageId's last part tells the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The password must be changed before anything else (quirk 4).
    PasswordChangeRequired,
    /// No session is left (quirk 2).
    SessionsExhausted,
    /// The account is locked.
    LockedOut,
    /// User name or password are wrong, whatever the status says.
    BadCredentials,
    /// Not now; the same request is fine later (quirk 16).
    NotNow,
}

/// The last part of the MessageIds that mean something to the transport.
const MEANINGS: &[(&str, Meaning)] = &[
    ("PasswordChangeRequired", Meaning::PasswordChangeRequired),
    ("SessionLimitExceeded", Meaning::SessionsExhausted),
    ("RAC0218", Meaning::SessionsExhausted),
    // "Log in delayed for 600 seconds" of an iDRAC, known from field reports only. The Base registry has nothing like it,
    // so most BMCs that lock an account just say 401.
    ("RAC0212", Meaning::LockedOut),
    ("UnauthorizedLoginAttempt", Meaning::BadCredentials),
    ("InvalidOperationForSystemState", Meaning::NotNow),
    ("ResourceInStandby", Meaning::NotNow),
    ("ResourceInUse", Meaning::NotNow),
    ("ServiceInUnknownState", Meaning::NotNow),
    ("ServiceShuttingDown", Meaning::NotNow),
    ("ServiceTemporarilyUnavailable", Meaning::NotNow),
    ("SYS518", Meaning::NotNow),
];

/// What a MessageId means to the transport: `Base.1.8.PasswordChangeRequired` and `PasswordChangeRequired` are the same.
fn meaning_of(message_id: &str) -> Option<Meaning> {
    let last = message_id.rsplit('.').next().unwrap_or(message_id);
    MEANINGS.iter().find(|(name, _)| last.eq_ignore_ascii_case(name)).map(|(_, meaning)| *meaning)
}

/// The MessageIds of an answer that is an error.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    ids: Vec<String>,
}

impl Messages {
    /// Reads the body of an error. It may be anything, also XHTML (quirk 4).
    pub(crate) fn of_body(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(json) => Self::of_json(&json),
            Err(_) => Self::of_text(&String::from_utf8_lossy(body)),
        }
    }

    /// Reads an error object, or the extended information of a resource.
    pub(crate) fn of_json(body: &Value) -> Self {
        let mut ids = Vec::new();
        let error = body.get("error");
        for holder in [error, Some(body)].into_iter().flatten() {
            if let Some(info) = holder.get("@Message.ExtendedInfo") {
                let entries = info.as_array().map_or(std::slice::from_ref(info), Vec::as_slice);
                ids.extend(
                    entries
                        .iter()
                        .filter_map(|entry| entry.get("MessageId")?.as_str())
                        .map(ToOwned::to_owned),
                );
            }
        }
        // `error.code` repeats the only message or is Base.x.GeneralError: last, so that a better one comes first.
        ids.extend(error.and_then(|e| e.get("code")?.as_str()).map(ToOwned::to_owned));
        Self { ids }
    }

    /// Looks for MessageIds that we know in a page. Only with a dot before: prose does not count.
    fn of_text(page: &str) -> Self {
        let known = MEANINGS.iter().map(|(name, _)| format!(".{name}"));
        Self { ids: known.filter(|id| page.contains(id.as_str())).collect() }
    }

    /// The first MessageId, for people.
    pub(crate) fn first(&self) -> Option<String> {
        self.ids.first().map(|id| id.trim_start_matches('.').to_owned())
    }

    /// Whether one of them has this meaning.
    pub(crate) fn mean(&self, meaning: Meaning) -> bool {
        self.ids.iter().any(|id| meaning_of(id) == Some(meaning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quirk_44_the_language_of_a_message_does_not_matter() {
        let body = r#"{"error":{"code":"Base.1.12.GeneralError","message":"不明なエラー","@Message.ExtendedInfo":
            [{"MessageId":"Base.1.12.PasswordChangeRequired","Message":"パスワードを変更してください"}]}}"#;
        assert!(Messages::of_body(body.as_bytes()).mean(Meaning::PasswordChangeRequired));
    }

    #[test]
    fn quirk_44_a_message_id_of_an_unknown_registry_is_read_by_its_last_part() {
        for id in ["PasswordChangeRequired", "Xyz.PasswordChangeRequired", "Base.v1_8.passwordchangerequired"]
        {
            assert_eq!(meaning_of(id), Some(Meaning::PasswordChangeRequired), "{id}");
        }
        assert_eq!(meaning_of("Base.1.8.PasswordChangeRequiredNot"), None);
        assert_eq!(meaning_of(""), None);
    }

    #[test]
    fn extended_information_that_is_one_object_counts() {
        let body = br#"{"error":{"@Message.ExtendedInfo":{"MessageId":"IDRAC.2.8.RAC0218"}}}"#;
        let messages = Messages::of_body(body);
        assert!(messages.mean(Meaning::SessionsExhausted));
        assert_eq!(messages.first().as_deref(), Some("IDRAC.2.8.RAC0218"));
    }

    #[test]
    fn quirk_04_a_message_id_is_found_in_an_xhtml_page_but_prose_is_not() {
        let page = b"<html><body>Base.1.0.PasswordChangeRequired</body></html>";
        assert!(Messages::of_body(page).mean(Meaning::PasswordChangeRequired));
        assert!(!Messages::of_body(b"<p>PasswordChangeRequired</p>").mean(Meaning::PasswordChangeRequired));
    }
}
