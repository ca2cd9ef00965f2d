//! What one answer and one reading may weigh, and how a body becomes a JSON object.

use bytes::Bytes;
use serde_json::Value;

use crate::message::Messages;
use crate::reader::ReadError;

/// The deepest nesting taken: serde_json's own limit, which keeps its stack bounded.
pub(crate) const DEPTH: usize = 127;

/// What one answer and one reading may weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one body.
    pub body: u64,
    /// Bytes of all bodies of one reading.
    pub total: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 16 << 20, total: 256 << 20 }
    }
}

/// A body as received.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// What came.
    pub(crate) bytes: Bytes,
    /// Whether the connection ended before the body did.
    pub(crate) cut: bool,
    /// Whether the answer said how long the body would be.
    pub(crate) announced: bool,
}

/// A decoded body, and whether bytes that are not UTF-8 had to be replaced.
pub(crate) struct Decoded {
    pub(crate) value: Value,
    pub(crate) repaired: bool,
}

/// Decodes a body that must be a JSON object.
pub(crate) fn decode(uri: &str, content_type: Option<&str>, body: &Body) -> Result<Decoded, ReadError> {
    let uri_owned = || uri.to_owned();
    let truncated = || ReadError::Truncated { uri: uri_owned(), received: body.bytes.len() as u64 };
    // A body without announced length over a connection closed without close_notify is common and complete when
    // its JSON is; one that was announced longer is not.
    if body.cut && body.announced {
        return Err(truncated());
    }
    let bytes = body.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body.bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(if body.cut { truncated() } else { ReadError::Empty { uri: uri_owned() } });
    }
    let not_json =
        || ReadError::NotJson { uri: uri_owned(), content_type: content_type.map(ToOwned::to_owned) };
    let (value, repaired) = match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => (value, false),
        Err(error) if error.is_eof() => return Err(truncated()),
        Err(_) if deeper_than(bytes, DEPTH) => {
            return Err(ReadError::TooDeep { uri: uri_owned(), limit: DEPTH });
        }
        // Latin-1 in a sensor's unit is no reason to lose the resource.
        Err(_) if std::str::from_utf8(bytes).is_err() => {
            let text = String::from_utf8_lossy(bytes);
            (serde_json::from_str(&text).map_err(|_| not_json())?, true)
        }
        Err(_) => return Err(not_json()),
    };
    let Value::Object(members) = &value else { return Err(not_json()) };
    if members.contains_key("error") && !members.contains_key("@odata.id") {
        return Err(ReadError::ErrorBody { uri: uri_owned(), message_id: Messages::of_json(&value).first() });
    }
    Ok(Decoded { value, repaired })
}

/// Whether brackets outside strings nest deeper than `limit`. Asked only after parsing failed, since the parser does not
/// tell this failure from others.
fn deeper_than(bytes: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match (in_string, *byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_bytes(bytes: &[u8]) -> Result<Value, &'static str> {
        let body = Body { bytes: Bytes::copy_from_slice(bytes), cut: false, announced: true };
        decode("/x", Some("application/json"), &body).map(|d| d.value).map_err(|e| e.code())
    }

    fn nested(levels: usize) -> Vec<u8> {
        format!("{}{}{}", r#"{"a":"#.repeat(levels), "1", "}".repeat(levels)).into_bytes()
    }

    #[test]
    fn nesting_is_taken_up_to_the_limit() {
        assert!(decode_bytes(&nested(DEPTH)).is_ok());
        assert_eq!(decode_bytes(&nested(DEPTH + 1)), Err("redfish.body.too-deep"));
        assert_eq!(decode_bytes(&nested(1_000_000)), Err("redfish.body.too-deep"));
    }

    #[test]
    fn half_a_document_is_truncated() {
        assert_eq!(decode_bytes(br#"{"Name": "Sys"#), Err("redfish.body.truncated"));
    }

    #[test]
    fn a_body_that_is_no_object_is_not_json_for_us() {
        for body in ["<html></html>", "[1]", "null", "\"x\"", "{,}"] {
            assert_eq!(decode_bytes(body.as_bytes()), Err("redfish.body.not-json"), "{body}");
        }
    }

    #[test]
    fn an_empty_body_has_its_own_code() {
        assert_eq!(decode_bytes(b" \n"), Err("redfish.body.empty"));
    }

    #[test]
    fn a_byte_order_mark_and_latin_1_are_tolerated() {
        assert!(decode_bytes(b"\xef\xbb\xbf{}").is_ok());
        assert!(decode_bytes(b"{\"Units\":\"\xb0C\"}").is_ok());
    }

    #[test]
    fn an_error_under_a_status_of_success_is_not_a_resource() {
        assert_eq!(decode_bytes(br#"{"error":{"code":"Base.1.0.GeneralError"}}"#), Err("redfish.body.error"));
    }

    #[test]
    fn a_body_cut_off_counts_only_if_its_length_was_not_announced() {
        let body = |announced| Body { bytes: Bytes::from_static(b"{}"), cut: true, announced };
        assert!(decode("/x", None, &body(false)).is_ok());
        assert_eq!(
            decode("/x", None, &body(true)).map(|_| ()).map_err(|e| e.code()),
            Err("redfish.body.truncated")
        );
    }

    proptest! {
        #[test]
        fn only_objects_come_out_of_whatever_bytes_go_in(
            bytes in prop::collection::vec(any::<u8>(), 0..64), cut: bool, announced: bool,
        ) {
            let body = Body { bytes: Bytes::from(bytes), cut, announced };
            if let Ok(decoded) = decode("/x", None, &body) {
                prop_assert!(decoded.value.is_object());
            }
        }

        #[test]
        fn a_document_cut_anywhere_is_truncated_or_empty(cut in 0_usize..40) {
            let document = br#"{"Name": "a \"name\"", "List": [1, -2.5e3]}"#;
            let outcome = decode_bytes(&document[..cut]);
            let expected = if cut == 0 { "redfish.body.empty" } else { "redfish.body.truncated" };
            prop_assert_eq!(outcome, Err(expected));
        }
    }
}
