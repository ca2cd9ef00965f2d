//! Virtual media: what is in which slot, and what a client must say to change it (quirk 32).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::behaviour::VirtualMediaStyle;
use crate::messages;

/// What is in the slots; a slot that nothing was ever put into is not here.
#[derive(Debug, Default)]
pub(crate) struct Media(Mutex<HashMap<String, Slot>>);

#[derive(Debug, Default)]
struct Slot {
    image: Option<String>,
    /// What was in it, shown until then.
    lingering: Option<(String, Instant)>,
}

/// A request that changes a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Insert(String),
    Eject,
}

/// An error body; the status is 400.
pub(crate) type Refused = Value;

impl Media {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn apply(&self, slot: &str, change: Change, style: &VirtualMediaStyle) {
        let mut slots = self.lock();
        let slot = slots.entry(slot.to_owned()).or_default();
        let before = slot.image.take();
        match change {
            Change::Insert(image) => *slot = Slot { image: Some(image), lingering: None },
            Change::Eject => {
                let until = Instant::now() + style.inserted_after_eject;
                slot.lingering = before.map(|image| (image, until));
            }
        }
    }

    /// Takes out everything, as a restart of the BMC does.
    pub(crate) fn eject_all(&self) {
        self.lock().values_mut().for_each(|slot| *slot = Slot::default());
    }

    /// What is really in the slot.
    pub(crate) fn image(&self, slot: &str) -> Option<String> {
        self.lock().get(slot)?.image.clone()
    }

    /// What the slot shows, where anything was ever put into it.
    pub(crate) fn shown(&self, slot: &str) -> Option<Value> {
        let slots = self.lock();
        let slot = slots.get(slot)?;
        let lingering = slot.lingering.as_ref().filter(|(_, until)| Instant::now() < *until);
        let image = slot.image.as_deref().or_else(|| lingering.map(|(image, _)| image.as_str()));
        let name = image.map(|image| image.rsplit('/').next().unwrap_or(image));
        Some(json!({"Image": image, "ImageName": name, "Inserted": image.is_some(),
            "ConnectedVia": if image.is_some() { "URI" } else { "NotConnected" }}))
    }
}

/// What an `InsertMedia` action asks for.
pub(crate) fn insert(body: &Value, style: &VirtualMediaStyle) -> Result<Change, Refused> {
    if let Some(parameter) = style.refuses.iter().find(|parameter| body.get(parameter.as_str()).is_some()) {
        return Err(messages::parameter_unknown(parameter));
    }
    if let Some(parameter) = style.demands.iter().find(|parameter| body.get(parameter.as_str()).is_none()) {
        return Err(messages::parameter_missing(parameter));
    }
    image(body).map(Change::Insert).ok_or_else(|| messages::parameter_missing("Image"))
}

/// What a PATCH of a slot asks for.
pub(crate) fn patch(body: &Value, style: &VirtualMediaStyle) -> Result<Change, Refused> {
    if !style.patch_only {
        return Err(messages::property_not_writable("Image"));
    }
    // Without `Inserted` the image would be named and not attached (Lenovo).
    match (image(body), body["Inserted"].as_bool()) {
        (Some(image), Some(true)) => Ok(Change::Insert(image)),
        (Some(_), _) => Err(messages::property_missing("Inserted")),
        (None, _) => Ok(Change::Eject),
    }
}

fn image(body: &Value) -> Option<String> {
    let image = body.get("Image")?.as_str()?;
    (!image.is_empty()).then(|| image.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plain() -> VirtualMediaStyle {
        VirtualMediaStyle::default()
    }

    #[test]
    fn what_was_ejected_may_linger_without_being_there() {
        let media = Media::default();
        let style = VirtualMediaStyle { inserted_after_eject: Duration::from_hours(1), ..plain() };
        media.apply("/cd", Change::Insert("http://a/x.iso".to_owned()), &style);
        assert_eq!(media.shown("/cd").unwrap()["ImageName"], "x.iso");
        media.apply("/cd", Change::Eject, &style);
        assert_eq!(media.shown("/cd").unwrap()["Inserted"], true);
        assert_eq!(media.image("/cd"), None);
    }

    #[test]
    fn parameters_are_demanded_and_refused() {
        let strict = VirtualMediaStyle {
            refuses: vec!["Inserted".to_owned()],
            demands: vec!["TransferProtocolType".to_owned()],
            ..plain()
        };
        let code = |body: Value| match insert(&body, &strict) {
            Ok(change) => format!("{change:?}"),
            Err(error) => error["error"]["code"].as_str().unwrap().rsplit('.').next().unwrap().to_owned(),
        };
        assert_eq!(code(json!({"Image": "a"})), "ActionParameterMissing");
        assert_eq!(
            code(json!({"Image": "a", "Inserted": true, "TransferProtocolType": "HTTP"})),
            "ActionParameterUnknown"
        );
        assert_eq!(code(json!({"TransferProtocolType": "HTTP"})), "ActionParameterMissing");
        assert_eq!(code(json!({"Image": "a", "TransferProtocolType": "HTTP"})), "Insert(\"a\")");
    }

    #[test]
    fn a_patch_needs_inserted_to_attach() {
        let style = VirtualMediaStyle { patch_only: true, ..plain() };
        assert!(patch(&json!({"Image": "a"}), &style).is_err());
        assert_eq!(
            patch(&json!({"Image": "a", "Inserted": true}), &style),
            Ok(Change::Insert("a".to_owned()))
        );
        assert_eq!(patch(&json!({"Image": null, "Inserted": false}), &style), Ok(Change::Eject));
        assert!(patch(&json!({"Image": "a", "Inserted": true}), &plain()).is_err());
    }
}
