//! Reset actions of systems and managers: where they are, and which kinds the BMC offers.

use serde_json::{Value, json};

use crate::client::Client;
use crate::reader::{ReadError, Reader as _};
use crate::write::{Change, Outcome, Payload, Repeat, WriteError};

/// A reset action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reset {
    target: String,
    /// The ResetTypes offered; `None` where the BMC does not say.
    offered: Option<Vec<String>>,
}

impl Reset {
    /// The action of a resource, such as `#ComputerSystem.Reset`. `None` where it has none.
    pub(crate) async fn of(client: &Client, body: &Value, name: &str) -> Result<Option<Self>, ReadError> {
        let Some(action) = body.get("Actions").and_then(|actions| actions.get(name)) else { return Ok(None) };
        let Some(target) = action.get("target").and_then(Value::as_str) else { return Ok(None) };
        let mut offered = texts(action.get("ResetType@Redfish.AllowableValues"));
        // The values are in one place or the other (DSP0266 §8.4.3).
        if offered.is_none()
            && let Some(info) = action.get("@Redfish.ActionInfo").and_then(Value::as_str)
        {
            match client.get(info).await {
                Ok(info) => offered = parameter(&info.body, "ResetType"),
                Err(error @ ReadError::Bmc(_)) => return Err(error),
                // Without the list the usual kinds are tried.
                Err(_) => {}
            }
        }
        Ok(Some(Self { target: target.to_owned(), offered }))
    }

    /// Those of the kinds that the BMC offers, in their order; all where it does not say.
    pub(crate) fn among<'k>(&self, kinds: &[&'k str]) -> Vec<&'k str> {
        let offers = |kind: &&&str| match &self.offered {
            Some(offered) => offered.iter().any(|known| known.eq_ignore_ascii_case(kind)),
            // A button toggles: it is pressed only where the BMC says that there is one.
            None => **kind != "PushPowerButton",
        };
        kinds.iter().filter(offers).copied().collect()
    }

    /// Sends the action once. The caller repeats, looking at the effect in between.
    pub(crate) async fn send(&self, client: &Client, kind: &str) -> Result<Outcome, WriteError> {
        let payload = Payload::of(&json!({"ResetType": kind}));
        let method = http::Method::POST;
        client
            .change(Change { method, uri: &self.target, payload: Some(&payload), repeat: Repeat::Never })
            .await
    }
}

fn parameter(info: &Value, name: &str) -> Option<Vec<String>> {
    let parameters = info.get("Parameters")?.as_array()?;
    let found =
        parameters.iter().find(|parameter| parameter.get("Name").and_then(Value::as_str) == Some(name));
    texts(found?.get("AllowableValues"))
}

fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    let texts: Vec<String> =
        value?.as_array()?.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
    (!texts.is_empty()).then_some(texts)
}
