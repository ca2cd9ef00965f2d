//! Versions of firmware as makers write them, and an order that is only told where it is certain.
//!
//! Makers agree on nothing: `GB200Nvl-25.01-5`, `42S-2.83`, `TGBT42S 2.83 2023-07-05`, `U46 v1.58 (03/02/2023)`, `6.00.30.00`,
//! `96.10.4A.00.01`, `1.4b`, `4301A56`, `0x12` (quirk 28). What stands before and after the version proper (family, build,
//! date) is told apart; the rest is fields of numbers and letters. Where two readings of the same text would order two versions
//! differently, there is no order: a guess could let old firmware pass.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// Longer texts are no versions; what a BMC sends has no limit of its own.
const LONGEST: usize = 128;

/// A version as the maker writes it. Two are equal as values only if their texts are; see [`Version::compare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    text: String,
    /// Product line, in lower case: `gb200nvl`, `hgx`, `u46`, `tgbt`.
    family: Option<String>,
    proper: Proper,
    /// What tells two releases of one version apart.
    detail: Detail,
}

/// The version itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proper {
    /// Fields between dots, dashes and the like.
    Fields(Vec<Field>),
    /// A date is only comparable with a date: 2023-07-05 is not newer than 2.83.
    Date(Date),
}

/// Year, month, day: ordered as dates are.
type Date = (u16, u8, u8);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Detail {
    /// Lenovo's build: 42S is older than 42T, and than 43A.
    build: Option<String>,
    /// Date of the release.
    date: Option<Date>,
}

/// Letters and digits between two separators, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    text: String,
    runs: Vec<Run>,
}

/// Digits alone or letters alone.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Run {
    /// Without leading zeros, so that length and then text is the order.
    Number(String),
    Letters(String),
    /// `0x1c`, its digits as those of a number.
    Hexadecimal(String),
}

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version: it must have a digit and at most {LONGEST} characters")]
pub struct NotAVersion(pub String);

impl Version {
    /// Reads a version.
    pub fn new(text: &str) -> Result<Self, NotAVersion> {
        let trimmed = text.trim();
        let no = || NotAVersion(text.chars().take(LONGEST).collect());
        if trimmed.len() > LONGEST
            || !trimmed.bytes().any(|byte| byte.is_ascii_digit())
            || !trimmed.is_ascii()
        {
            return Err(no());
        }
        let lower = trimmed.to_ascii_lowercase();
        let words: Vec<&str> = lower
            .split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | ',' | ';' | '"' | '\''))
            .filter(|word| !word.is_empty())
            .collect();
        let (mut family, mut detail) = (Vec::new(), Detail::default());
        let (words, mut dates) = without_dates(&words);
        let proper = match (&words[..], &dates[..]) {
            ([], [_]) => dates.pop().map(Proper::Date),
            (_, [] | [_]) => {
                detail.date = dates.pop();
                let start = start(&words);
                for word in &words[..start] {
                    match lenovo(word) {
                        Some((line, build)) => {
                            family.push(line);
                            detail.build = Some(build);
                        }
                        None if is_generic(word) => {}
                        None => family.push((*word).to_owned()),
                    }
                }
                read(&words[start..], &mut family, &mut detail)
            }
            // which of two dates is the release's nobody says
            _ => None,
        };
        let proper = proper.ok_or_else(no)?;
        let family = (!family.is_empty()).then(|| family.join(" "));
        Ok(Self { text: trimmed.to_owned(), family, proper, detail })
    }

    /// As the maker writes it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Which of the two is older; `None` where that is not certain. Versions equal by this may differ in writing
    /// (`01.01.03` and `1.1.3`).
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        if self.text.eq_ignore_ascii_case(&other.text) {
            return Some(Ordering::Equal);
        }
        if let (Some(one), Some(two)) = (&self.family, &other.family)
            && one != two
        {
            return None;
        }
        let order = match (&self.proper, &other.proper) {
            (Proper::Fields(one), Proper::Fields(two)) => fields(one, two)?,
            (Proper::Date(one), Proper::Date(two)) => one.cmp(two),
            _ => return None,
        };
        if order.is_ne() {
            return Some(order);
        }
        let build = known(self.detail.build.as_deref(), other.detail.build.as_deref())?;
        let date = known(self.detail.date, other.detail.date)?;
        Some(build.then(date))
    }

    /// How this, found on a machine, stands to `wanted`. As [`Self::compare`], but what `wanted` leaves open (build, date) is
    /// not compared: wanted `2.83`, found `42S-2.83` is equal.
    pub fn against(&self, wanted: &Self) -> Option<Ordering> {
        let mut found = self.clone();
        if wanted.detail.build.is_none() {
            found.detail.build = None;
        }
        if wanted.detail.date.is_none() {
            found.detail.date = None;
        }
        found.compare(wanted)
    }
}

/// Takes the dates out, which makers write before the version and behind it: `Date: 08/04/2023 Ver 1.4`, `2.72 Sep 04 2022`.
fn without_dates<'w>(words: &[&'w str]) -> (Vec<&'w str>, Vec<Date>) {
    let (mut others, mut dates) = (Vec::new(), Vec::new());
    let mut rest = words;
    while let [first, tail @ ..] = rest {
        rest = match (date(first), tail) {
            (Some(date), _) => {
                dates.push(date);
                tail
            }
            (None, [day, year, tail @ ..]) if let Some(date) = spelled(first, day, year) => {
                dates.push(date);
                tail
            }
            _ => {
                others.push(*first);
                tail
            }
        };
    }
    (others, dates)
}

/// `Sep 04 2022`.
fn spelled(month: &str, day: &str, year: &str) -> Option<Date> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    date(&format!("{year}-{month:02}-{day:0>2}"))
}

/// Index of the word that the version proper begins with: the last that says so itself (`v1.58`), else the first that
/// begins with a digit, else the last that has one.
fn start(words: &[&str]) -> usize {
    let digit = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let marked = words.iter().rposition(|word| word.strip_prefix('v').is_some_and(digit));
    marked
        .or_else(|| words.iter().position(|word| digit(word)))
        .or_else(|| words.iter().rposition(|word| word.bytes().any(|byte| byte.is_ascii_digit())))
        .unwrap_or(0)
}

/// Words that name no product line.
fn is_generic(word: &str) -> bool {
    ["bios", "uefi", "bmc", "firmware", "fw", "version", "ver", "v", "rev", "revision", "release", "date"]
        .contains(&word.trim_matches([':', '.', '-']))
}

/// Lenovo's build identifier, as in `TGBT42S`: four letters and digits for the line, three for the build.
fn lenovo(word: &str) -> Option<(String, String)> {
    let build = word.get(4..).filter(|build| is_build(build))?;
    let line = word.get(..4).filter(|line| line.bytes().all(|byte| byte.is_ascii_alphanumeric()))?;
    line.starts_with(|c: char| c.is_ascii_alphabetic()).then(|| (line.to_owned(), build.to_owned()))
}

/// `42s`.
fn is_build(text: &str) -> bool {
    matches!(text.as_bytes(), [a, b, c] if a.is_ascii_digit() && b.is_ascii_digit() && c.is_ascii_alphabetic())
}

/// Reads the words of the version proper; a product line may still stand before its first dash (`GB200Nvl-25.01-5`).
fn read(words: &[&str], family: &mut Vec<String>, detail: &mut Detail) -> Option<Proper> {
    let [first, rest @ ..] = words else { return None };
    let mut first = *first;
    while let Some((head, tail)) = first.split_once(['-', '_']) {
        let begins = |c: char| c.is_ascii_digit();
        if !tail.strip_prefix('v').unwrap_or(tail).starts_with(begins) || head.contains('.') {
            break;
        }
        if is_build(head) && tail.contains('.') {
            detail.build = Some(head.to_owned());
        } else if let Some((line, build)) = lenovo(head) {
            family.push(line);
            detail.build = Some(build);
        } else if is_generic(head) {
        } else if head.starts_with(|c: char| c.is_ascii_alphabetic()) && !is_marked(head) {
            family.push(head.to_owned());
        } else {
            break;
        }
        first = tail;
    }
    let first = if is_marked(first) { &first[1..] } else { first };
    let fields: Vec<Field> = std::iter::once(first)
        .chain(rest.iter().copied())
        .flat_map(|word| word.split(|c: char| !c.is_ascii_alphanumeric()))
        .filter(|field| !field.is_empty())
        .map(Field::new)
        .collect();
    (!fields.is_empty()).then_some(Proper::Fields(fields))
}

/// `v1.58`.
fn is_marked(word: &str) -> bool {
    word.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// 2023-07-05, 20230705, or 07/05/2023: month first, as SMBIOS writes a BIOS release date (DSP0134 7.1).
fn date(word: &str) -> Option<Date> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let dashed = || match word.split('-').collect::<Vec<_>>()[..] {
        [year, month, day] if (year.len(), month.len(), day.len()) == (4, 2, 2) => Some((year, month, day)),
        _ => None,
    };
    let slashed = || match word.split('/').collect::<Vec<_>>()[..] {
        [month, day, year] if year.len() == 4 && month.len() <= 2 && day.len() <= 2 => {
            Some((year, month, day))
        }
        _ => None,
    };
    let compact = || (word.len() == 8).then(|| Some((word.get(..4)?, word.get(4..6)?, word.get(6..)?)))?;
    let (year, month, day) = dashed().or_else(slashed).or_else(compact)?;
    if ![year, month, day].into_iter().all(digits) {
        return None;
    }
    let date = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let possible = (1970..2100).contains(&date.0) && (1..=12).contains(&date.1) && (1..=31).contains(&date.2);
    possible.then_some(date)
}

impl Field {
    fn new(text: &str) -> Self {
        let hex = text.strip_prefix("0x").filter(|digits| !digits.is_empty());
        if let Some(digits) = hex.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            let digits = digits.trim_start_matches('0').to_owned();
            return Self { text: text.to_owned(), runs: vec![Run::Hexadecimal(digits)] };
        }
        let mut runs = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.bytes().next() {
            let number = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != number).unwrap_or(rest.len());
            let (run, tail) = rest.split_at(end);
            runs.push(if number {
                Run::Number(run.trim_start_matches('0').to_owned())
            } else {
                Run::Letters(run.to_owned())
            });
            rest = tail;
        }
        Self { text: text.to_owned(), runs }
    }

    fn zero() -> Self {
        Self::new("0")
    }
}

/// Digits without leading zeros, of any length.
fn number(one: &str, two: &str) -> Ordering {
    one.len().cmp(&two.len()).then_with(|| one.cmp(two))
}

/// Equal if neither is known, no order if one is.
fn known<T: Ord>(one: Option<T>, two: Option<T>) -> Option<Ordering> {
    match (one, two) {
        (Some(one), Some(two)) => Some(one.cmp(&two)),
        (None, None) => Some(Ordering::Equal),
        _ => None,
    }
}

/// The order of two lists of fields: as numbers with letters behind them, and as hexadecimal numbers. NVIDIA counts
/// 96.10.4A in hexadecimal, Supermicro 1.4b in letters, and nothing in the text says which.
fn fields(one: &[Field], two: &[Field]) -> Option<Ordering> {
    let by_letters = by_letters(one, two);
    let by_hex = by_hex(one, two);
    match (by_letters, by_hex) {
        (Some(letters), Some(hex)) => (letters == hex).then_some(letters),
        (Some(letters), None) => Some(letters),
        // that letters are digits at all shows only in fields of one form: A05 is not newer than 1.2
        (None, Some(hex)) => has_same_form(one, two).then_some(hex),
        (None, None) => None,
    }
}

fn by_letters(one: &[Field], two: &[Field]) -> Option<Ordering> {
    // 00.04.0026 and 04.0012 are two forms of one component's version: where fields have a fixed width, all must be there
    let is_padded = |fields: &[Field]| {
        fields.first().is_some_and(|field| field.text.len() > 1 && field.text.starts_with('0'))
    };
    if one.len() != two.len() && (is_padded(one) || is_padded(two)) {
        return None;
    }
    let zero = Field::zero();
    for at in 0..one.len().max(two.len()) {
        let order = field(one.get(at).unwrap_or(&zero), two.get(at).unwrap_or(&zero))?;
        if order.is_ne() {
            return Some(order);
        }
    }
    Some(Ordering::Equal)
}

fn field(one: &Field, two: &Field) -> Option<Ordering> {
    for at in 0..one.runs.len().max(two.runs.len()) {
        let order = match (one.runs.get(at), two.runs.get(at)) {
            (Some(Run::Number(one)), Some(Run::Number(two)))
            | (Some(Run::Hexadecimal(one)), Some(Run::Hexadecimal(two))) => number(one, two),
            (Some(Run::Letters(one)), Some(Run::Letters(two))) if one == two => Ordering::Equal,
            // 1.4a, 1.4b; but a letter in front is a name, and a word may mean before (rc) or after
            (Some(Run::Letters(one)), Some(Run::Letters(two)))
                if at > 0 && one.len() == 1 && two.len() == 1 =>
            {
                one.cmp(two)
            }
            (None, Some(Run::Letters(two))) if at > 0 && two.len() == 1 => Ordering::Less,
            (Some(Run::Letters(one)), None) if at > 0 && one.len() == 1 => Ordering::Greater,
            (None, None) => Ordering::Equal,
            _ => return None,
        };
        if order.is_ne() {
            return Some(order);
        }
    }
    Some(Ordering::Equal)
}

/// With fewer fields, letters are taken for hexadecimal digits only in one form: 1.4b is older than 1.5.
const HEX_FIELDS: usize = 3;

fn by_hex(one: &[Field], two: &[Field]) -> Option<Ordering> {
    let is_hex =
        |fields: &[Field]| fields.iter().all(|field| field.text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_long = one.len() >= HEX_FIELDS && two.len() >= HEX_FIELDS;
    if !is_hex(one) || !is_hex(two) || !(is_long || (one.len() > 1 && has_same_form(one, two))) {
        return None;
    }
    let digits = |fields: &[Field], at: usize| {
        fields.get(at).map_or_else(String::new, |field| field.text.trim_start_matches('0').to_owned())
    };
    let orders = (0..one.len().max(two.len())).map(|at| number(&digits(one, at), &digits(two, at)));
    Some(orders.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal))
}

fn has_same_form(one: &[Field], two: &[Field]) -> bool {
    one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.text.len() == two.text.len())
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Version {
    type Err = NotAVersion;
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        Self::new(text)
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Version {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Version".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "[0-9]", "maxLength": LONGEST })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v(text: &str) -> Version {
        Version::new(text).unwrap()
    }

    fn order(one: &str, two: &str) -> Option<Ordering> {
        v(one).compare(&v(two))
    }

    #[test]
    fn the_older_is_found_however_its_maker_writes() {
        for (older, newer) in [
            ("2.1.3", "2.1.10"),
            ("1.8.2", "2.0"),
            ("6.00.30.00", "6.10.00.00"),
            ("96.00.74.00.01", "96.00.89.00.01"),
            ("96.10.4A.00.01", "96.10.50.00.01"),
            ("96.00.89.00.01", "96.00.A5.00.01"),
            ("96.00.9F.00.01", "96.00.AB.00.01"),
            ("1.7.5F", "1.7.60"),
            ("GB200Nvl-24.10-5", "GB200Nvl-25.01-5"),
            ("24.10-5", "GB200Nvl-25.01-5"),
            ("HGX-22.10-1-rc57", "HGX-22.10-1-rc58"),
            ("HGX-22.10-1-rc57", "HGX-22.10-2"),
            ("42S-2.83", "42T-2.83"),
            ("42Z-2.83", "43A-2.83"),
            ("42S-2.83", "10A-3.10"),
            ("TGBT42S 2.83 2023-07-05", "TGBT44A 2.90 2023-09-01"),
            ("42S-2.83", "TGBT44A 2.90 2023-09-01"),
            ("U8E122J", "U8E124A"),
            ("U46 v1.58 (03/02/2023)", "U46 v1.60 (01/01/2023)"),
            ("U46 v1.58 (12/02/2022)", "U46 v1.58 (03/02/2023)"),
            ("BIOS P79 v1.45 (12/06/2017)", "P79 v1.46 (12/06/2018)"),
            ("iLO 5 v2.72", "iLO 5 v2.100"),
            ("1.4", "1.4a"),
            ("1.4b", "1.5"),
            ("HGX-22.10-1-rc34", "HGX-22.10-1-rc57"),
            ("BIOS Date: 09/01/2022 Ver 1.3", "BIOS Date: 08/04/2023 Ver 1.4"),
            ("BIOS Date: 05/04/2023 Ver 1.4", "BIOS Date: 08/04/2023 Ver 1.4"),
            ("BIOS Date: 08/04/2023 Ver 1.4", "1.4a"),
            ("2.72 Sep 04 2022", "2.90 Jan 01 2022"),
            ("2.72 Sep 04 2022", "2.72 Oct 01 2022"),
            ("0x00 0x0b 0x03 0x04", "0x00 0x10 0x01 0x0f"),
            ("0x00 0x09", "0x00 0x0b"),
            ("11.2.0 Build 44", "11.2.0 Build 45"),
            ("0.1C", "0.20"),
            ("F5.11.CA", "F5.11.CB"),
            ("buildbrain-gcid-35803827", "buildbrain-gcid-38635631"),
            ("4301A56", "4301A57"),
            ("E2MU110", "E2MU200"),
            ("G520.0200.00.05", "G520.0202.00.01"),
            ("00.04.0026.0000_n00", "00.04.0027.0000_n00"),
            ("2023-07-05", "20230706"),
            ("12/31/2022", "01/01/2023"),
            ("0x0f", "0x10"),
            ("v2.3", "2.4"),
        ] {
            assert_eq!(order(older, newer), Some(Ordering::Less), "{older} {newer}");
        }
    }

    #[test]
    fn one_version_in_two_writings_is_one() {
        for (one, two) in [
            ("01.01.03", "1.1.3"),
            ("2.7", "2.7.0"),
            ("V1.45", "1.45"),
            ("P79 v1.45", "1.45"),
            ("gb200nvl-25.01-5", "25.1.5"),
            ("0x012", "0X12"),
            ("2023-07-05", "07/05/2023"),
            ("not ordered 1!", "NOT ORDERED 1!"),
        ] {
            assert_eq!(order(one, two), Some(Ordering::Equal), "{one} {two}");
        }
    }

    #[test]
    fn what_cannot_be_compared_has_no_order() {
        for (one, two) in [
            ("A05", "1.2"),
            ("A05", "B05"),
            ("GB200Nvl-25.01-5", "HGX-22.10-1"),
            ("P79 v1.45", "U46 v1.58"),
            ("2023-07-05", "2.83"),
            ("0x12", "18"),
            ("1.1C", "1.10"),
            ("1.4b", "1.10"),
            ("2.72 Sep 04 2022", "2.72"),
            ("GH200-24.05-2", "GB200Nvl-24.12-8"),
            ("1.7.9", "1.7.5F"),
            ("1.0.4b", "1.0.10"),
            ("2.0-rc1", "2.0"),
            ("2.14.0-dev-5", "2.14.0"),
            ("42S-2.83", "2.83"),
            ("04.0012.0000_n00", "00.04.0026.0000_n00"),
            ("E2MU200", "GDC7502Q"),
        ] {
            assert_eq!(order(one, two), None, "{one} {two}");
        }
    }

    #[test]
    fn what_is_wanted_may_leave_build_and_date_open() {
        let against = |found: &str, wanted: &str| v(found).against(&v(wanted));
        assert_eq!(against("42S-2.83", "2.83"), Some(Ordering::Equal));
        assert_eq!(against("TGBT42S 2.83 2023-07-05", "42S-2.83"), Some(Ordering::Equal));
        assert_eq!(against("U46 v1.58 (03/02/2023)", "1.58"), Some(Ordering::Equal));
        assert_eq!(against("2.83", "42S-2.83"), None);
        assert_eq!(against("42S-2.82", "2.83"), Some(Ordering::Less));
    }

    #[test]
    fn a_text_without_digits_and_one_without_end_are_no_versions() {
        for bad in [
            "",
            "  ",
            "unknown",
            "N/A",
            "-*",
            "1.ü",
            "2023-07-05 2023-07-06",
            "05/04/2023 1.2 08/04/2023",
            &"1".repeat(LONGEST + 1),
        ] {
            assert!(Version::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn yaml_gives_versions_as_they_are_written() {
        let read = |text: &str| serde_saphyr::from_str::<Version>(text).unwrap().to_string();
        assert_eq!(read("1.10"), "1.10");
        assert_eq!(read("6.00.30.00"), "6.00.30.00");
        assert_eq!(read("'0x12'"), "0x12");
    }

    /// Versions of few letters and numbers, so that equal and nearly equal ones are met.
    fn versions() -> impl Strategy<Value = String> {
        let field = prop_oneof![
            "[0-9]{1,2}",
            "0[0-9]",
            "[0-9]{0,2}[abf][0-9]?",
            Just("rc1".to_owned()),
            Just("n00".to_owned()),
            Just("AB".to_owned()),
        ];
        let fields = prop::collection::vec(field, 1..5).prop_map(|fields| fields.join("."));
        let before = prop_oneof![
            Just(""),
            Just("GB200Nvl-"),
            Just("P79 v"),
            Just("42S-"),
            Just("v"),
            Just("TGBT42S ")
        ];
        let after =
            prop_oneof![Just(""), Just(" 2023-07-05"), Just(" (03/02/2023)"), Just("-1"), Just("_n00")];
        let whole =
            (before, fields, after).prop_map(|(before, fields, after)| format!("{before}{fields}{after}"));
        prop_oneof![8 => whole, 1 => Just("2023-07-05".to_owned()), 1 => "0x[0-2][af]( 0x0[0-9a])?"]
            .prop_filter("a version", |text| Version::new(text).is_ok())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn whichever_side_one_looks_from_the_order_is_the_same(one in versions(), two in versions()) {
            prop_assert_eq!(order(&one, &two), order(&two, &one).map(Ordering::reverse));
        }

        #[test]
        fn a_version_is_equal_to_itself(one in versions()) {
            prop_assert_eq!(order(&one, &one), Some(Ordering::Equal));
            prop_assert_eq!(v(&one).against(&v(&one)), Some(Ordering::Equal));
        }

        /// Where all three can be compared: no circles.
        #[test]
        fn what_is_older_than_the_older_is_older(one in versions(), two in versions(), three in versions()) {
            let orders = (order(&one, &two), order(&two, &three), order(&one, &three));
            if let (Some(ab), Some(bc), Some(ac)) = orders && (ab.is_le() && bc.is_le()) {
                let expected = if ab.is_lt() || bc.is_lt() { Ordering::Less } else { Ordering::Equal };
                prop_assert_eq!(ac, expected, "{} {} {}", one, two, three);
            }
        }

        #[test]
        fn dotted_numbers_are_ordered_as_numbers(one in prop::collection::vec(0_u32..300, 1..5), two in prop::collection::vec(0_u32..300, 1..5)) {
            let text = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
            let padded = |numbers: &[u32]| { let mut all = numbers.to_vec(); all.resize(5, 0); all };
            prop_assert_eq!(order(&text(&one), &text(&two)), Some(padded(&one).cmp(&padded(&two))));
        }

        #[test]
        fn five_hexadecimal_fields_are_ordered_as_numbers_or_not_at_all(one in any::<[u8; 5]>(), two in any::<[u8; 5]>()) {
            let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(".");
            let (first, second) = (text(&one), text(&two));
            prop_assume!(Version::new(&first).is_ok() && Version::new(&second).is_ok());
            if let Some(order) = order(&first, &second) {
                prop_assert_eq!(order, one.cmp(&two));
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,140}") {
            let _ = Version::new(&text);
        }
    }
}
