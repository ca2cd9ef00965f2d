//! What the endpoint tells its owner: a node was deployed to, torn down, switched.

use std::fmt;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::states::Power;

/// Something that has happened to a node's machine. Events of one node come in the order in which they happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NodeEvent {
    /// A deploy has ended well: the machine runs what it was given.
    Deployed(Instance),
    /// The machine was torn down: what ran on it is gone.
    Undeployed(Instance),
    /// The machine's real power has changed, by Ironic.
    Power {
        /// The node.
        node_uuid: String,
        /// The new state.
        power: Power,
    },
}

/// What a node was deployed with.
#[derive(Clone)]
pub struct Instance {
    /// The node.
    pub node_uuid: String,
    /// Its name.
    pub name: Option<String>,
    /// The client's id of the instance.
    pub instance_uuid: Option<String>,
    /// The image and what else the client wrote there; may hold secrets.
    pub instance_info: Map<String, Value>,
    /// The config drive, if there was one.
    pub config_drive: Option<ConfigDrive>,
    /// The MAC addresses of the node's ports.
    pub macs: Vec<String>,
}

/// Shows what identifies it; the rest may be secret.
impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("node_uuid", &self.node_uuid)
            .field("name", &self.name)
            .field("instance_uuid", &self.instance_uuid)
            .finish_non_exhaustive()
    }
}

/// A config drive as a client gave it. It has no `Debug` that shows it: user data holds join tokens.
#[derive(Clone, PartialEq)]
pub enum ConfigDrive {
    /// JSON, from which Ironic builds the image (since 1.56).
    Json {
        /// `user_data`: a text as it is, an object as its JSON.
        user_data: Option<String>,
        /// `meta_data`.
        meta_data: Map<String, Value>,
        /// `network_data`.
        network_data: Option<Value>,
    },
    /// A gzipped image, base64; decoded, but not looked into.
    Image(Vec<u8>),
    /// A URL, which is not fetched.
    Url(String),
}

impl fmt::Debug for ConfigDrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json { .. } => "ConfigDrive::Json",
            Self::Image(_) => "ConfigDrive::Image",
            Self::Url(_) => "ConfigDrive::Url",
        })
    }
}

impl ConfigDrive {
    /// The user data, where it can be read.
    pub fn user_data(&self) -> Option<&str> {
        match self {
            Self::Json { user_data, .. } => user_data.as_deref(),
            Self::Image(_) | Self::Url(_) => None,
        }
    }

    /// Reads what came as `configdrive`. `Ok(None)` where there is nothing in it; the error is Ironic's sentence without the parts that
    /// repeat its schema.
    pub(crate) fn parse(given: &Value) -> Result<Option<Self>, String> {
        match given {
            Value::Null => Ok(None),
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(url) if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(Some(Self::Url(url.clone())))
            }
            Value::String(text) => Self::image(text).map(Some),
            Value::Object(map) if map.is_empty() => Ok(None),
            Value::Object(map) => Self::json(map).map(Some),
            _ => {
                Err("Expected types <class 'NoneType'>, <class 'dict'>, <class 'str'> for configdrive"
                    .to_owned())
            }
        }
    }

    fn image(text: &str) -> Result<Self, String> {
        /// An image may be 64 MiB in Ironic; more than this is no config drive.
        const LIMIT: u64 = 64 << 20;
        let compact: String = text.split_ascii_whitespace().collect();
        let bytes =
            STANDARD.decode(compact).map_err(|error| format!("Failed to decode the configdrive: {error}"))?;
        let mut image = Vec::new();
        match flate2::read::GzDecoder::new(bytes.as_slice()).take(LIMIT).read_to_end(&mut image) {
            Ok(_) => Ok(Self::Image(image)),
            // Ironic takes what is no gzip too, and lets the agent fail.
            Err(_) => Ok(Self::Image(bytes)),
        }
    }

    fn json(map: &Map<String, Value>) -> Result<Self, String> {
        const KNOWN: &[&str] = &["meta_data", "network_data", "user_data", "vendor_data"];
        if let Some(unknown) = map.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(format!(
                "Invalid configdrive format: Additional properties are not allowed ('{unknown}' was unexpected)"
            ));
        }
        let user_data = match map.get("user_data") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(object) => Some(object.to_string()),
        };
        let meta_data = map.get("meta_data").and_then(Value::as_object).cloned().unwrap_or_default();
        Ok(Self::Json { user_data, meta_data, network_data: map.get("network_data").cloned() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_config_drive_gives_user_data_and_meta_data() {
        let given = json!({"user_data": "#cloud-config", "meta_data": {"name": "m1"}});
        let drive = ConfigDrive::parse(&given).unwrap().unwrap();
        assert_eq!(drive.user_data(), Some("#cloud-config"));
        assert!(matches!(drive, ConfigDrive::Json { meta_data, .. } if meta_data["name"] == "m1"));
    }

    #[test]
    fn user_data_may_be_an_object() {
        let drive = ConfigDrive::parse(&json!({"user_data": {"ignition": {}}})).unwrap().unwrap();
        assert_eq!(drive.user_data(), Some(r#"{"ignition":{}}"#));
    }

    #[test]
    fn an_image_is_decoded_and_left_opaque() {
        use std::io::Write as _;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"iso").unwrap();
        let given = Value::from(STANDARD.encode(gzip.finish().unwrap()));
        assert_eq!(ConfigDrive::parse(&given).unwrap(), Some(ConfigDrive::Image(b"iso".to_vec())));
    }

    #[test]
    fn an_empty_config_drive_is_none_and_an_unknown_part_is_refused() {
        assert_eq!(ConfigDrive::parse(&json!({})).unwrap(), None);
        assert!(ConfigDrive::parse(&json!({"bogus": 1})).unwrap_err().contains("'bogus' was unexpected"));
        assert!(ConfigDrive::parse(&json!("not base64!")).is_err());
    }

    #[test]
    fn debugging_shows_neither_user_data_nor_instance_info() {
        let drive = ConfigDrive::parse(&json!({"user_data": "planted-secret"})).unwrap();
        let instance = Instance {
            node_uuid: "u".to_owned(),
            name: None,
            instance_uuid: None,
            instance_info: Map::from_iter([("a".to_owned(), Value::from("planted-secret"))]),
            config_drive: drive,
            macs: Vec::new(),
        };
        assert!(!format!("{instance:?} {:?}", instance.config_drive).contains("planted-secret"));
    }
}
