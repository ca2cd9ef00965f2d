//! What firmware writes where it knows nothing: no value, however it is spelled (facts: redfish identity rule 7).

/// Words that firmware writes where it knows nothing.
const FILLERS: &[&str] = &[
    "n/a",
    "na",
    "none",
    "null",
    "nil",
    "unknown",
    "undefined",
    "unspecified",
    "not specified",
    "not available",
    "notavailable",
    "not applicable",
    "notapplicable",
    "not present",
    "not provided",
    "not populated",
    "not set",
    "empty",
    "invalid",
    "tbd",
    "to be filled by o.e.m.",
    "to be filled by oem",
    "to be filled by o.e.m",
    "default string",
    "default",
    "o.e.m.",
    "oem",
    "system manufacturer",
    "system product name",
    "system serial number",
    "system sku",
    "sku",
    "chassis serial number",
    "base board serial number",
    "<blank>",
    "(null)",
    "no asset tag",
];

/// Whether a trimmed text is a word for "nothing".
pub fn is_filler(text: &str) -> bool {
    let bare = text.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
    bare.is_empty()
        || bare.chars().all(|c| matches!(c, '-' | '.' | '*' | '?' | ' '))
        || FILLERS.iter().any(|filler| bare.eq_ignore_ascii_case(filler))
        || bare.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("STATIC:"))
        || is_excuse(bare)
}

/// Sentences and names of variables that firmware shows where a value should be: "version not available" (BlueField),
/// "no valid image", `$PRODUCT_SERIAL_NUMBER`, `CPLDSerialNumber` (NVIDIA).
fn is_excuse(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let is_variable = text.strip_prefix('$').is_some_and(|name| {
        name.contains('_') && name.chars().all(|c| c.is_ascii_uppercase() || matches!(c, '_' | '0'..='9'))
    });
    is_variable
        || lower.ends_with(" not available")
        || lower.starts_with("no valid ")
        || (lower.ends_with("serialnumber") && !text.contains(|c: char| c.is_ascii_digit() || c == ' '))
}

/// Serial numbers that firmware ships with.
const DEFAULT_SERIALS: &[&str] = &["0123456789", "123456789", "1234567890", "01234567890123456789ab"];

/// Whether a trimmed text identifies nothing: a filler, zeros, ones or a counting sequence.
pub fn is_placeholder(text: &str) -> bool {
    if is_filler(text) {
        return true;
    }
    let lower = text.to_ascii_lowercase();
    if DEFAULT_SERIALS.contains(&lower.as_str()) {
        return true;
    }
    let bare = lower.strip_prefix("0x").unwrap_or(&lower);
    let mut digits = bare.chars().filter(|c| !matches!(c, '-' | ':' | ' ' | '.' | '_'));
    let Some(first) = digits.next() else { return true };
    let length = 1 + digits.clone().count();
    let repeated = digits.all(|c| c == first);
    repeated
        && match first {
            '0' => true,
            'f' | 'x' => length >= 4,
            '1' => length >= 8,
            _ => false,
        }
}
