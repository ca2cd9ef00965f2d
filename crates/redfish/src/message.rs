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

/// One message. What it says in words is not kept, and its arguments are never shown: BMCs repeat in them what was sent,
/// passwords included.
#[derive(Default)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) args: Vec<String>,
    /// The properties that it is about, as pointers or as names.
    pub(crate) related: Vec<String>,
}

/// The messages of an answer.
#[derive(Default)]
pub(crate) struct Messages {
    pub(crate) all: Vec<Message>,
}

impl Message {
    fn of(entry: &Value) -> Option<Self> {
        let texts = |name: &str| -> Vec<String> {
            let entries = entry.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            entries.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
        };
        let id = entry.get("MessageId")?.as_str()?.to_owned();
        Some(Self { id, args: texts("MessageArgs"), related: texts("RelatedProperties") })
    }

    fn named(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// The MessageId without registry and version.
    pub(crate) fn key(&self) -> &str {
        self.id.rsplit('.').next().unwrap_or(&self.id)
    }
}

/// The entries of a member `…@Message.ExtendedInfo`: an array, or one object instead.
fn entries(info: &Value) -> impl Iterator<Item = Message> + '_ {
    info.as_array().map_or(std::slice::from_ref(info), Vec::as_slice).iter().filter_map(Message::of)
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
        let mut all = Vec::new();
        let error = body.get("error");
        for holder in [error, Some(body)].into_iter().flatten() {
            if let Some(info) = holder.get("@Message.ExtendedInfo") {
                all.extend(entries(info));
            }
        }
        // `error.code` repeats the only message or is Base.x.GeneralError: last, so that a better one comes first.
        all.extend(error.and_then(|e| e.get("code")?.as_str()).map(Message::named));
        Self { all }
    }

    /// Reads the answer to a change: as [`Messages::of_body`], and what is annotated to single properties (DSP0266 §7.5.4).
    pub(crate) fn of_change(body: &[u8]) -> Self {
        let Ok(json) = serde_json::from_slice::<Value>(body) else { return Self::of_body(body) };
        let mut messages = Self::of_json(&json);
        for (name, info) in json.as_object().into_iter().flatten() {
            let Some(property) = name.strip_suffix("@Message.ExtendedInfo").filter(|name| !name.is_empty())
            else {
                continue;
            };
            messages.all.extend(entries(info).map(|mut message| {
                message.related.insert(0, property.to_owned());
                message
            }));
        }
        messages
    }

    /// Looks for MessageIds that we know in a page. Only with a dot before: prose does not count.
    fn of_text(page: &str) -> Self {
        let known = MEANINGS.iter().map(|(name, _)| format!(".{name}"));
        Self { all: known.filter(|id| page.contains(id.as_str())).map(|id| Message::named(&id)).collect() }
    }

    /// The first MessageId, for people.
    pub(crate) fn first(&self) -> Option<String> {
        self.all.first().map(|message| message.id.trim_start_matches('.').to_owned())
    }

    /// Where the account is whose password must be changed: the argument of that message (Base registry, 1.1).
    pub(crate) fn account_uri(&self) -> Option<String> {
        let demands = |message: &&Message| meaning_of(&message.id) == Some(Meaning::PasswordChangeRequired);
        let uri = self.all.iter().find(demands)?.args.first()?;
        uri.starts_with('/').then(|| uri.clone())
    }

    /// Whether one of them has this meaning.
    pub(crate) fn mean(&self, meaning: Meaning) -> bool {
        self.all.iter().any(|message| meaning_of(&message.id) == Some(meaning))
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
