//! As much of ISO 9660 (ECMA-119) as a host needs: small images to boot in tests, and the files of a configdrive.
//!
//! What is read comes from elsewhere: every offset and length is checked, and depth and number of entries are bounded.

use bytes::Bytes;

const SECTOR: usize = 2048;
/// Where the volume descriptors begin: the sixteenth sector.
const DESCRIPTORS: usize = 16 * SECTOR;
/// Directory records read at most, of all directories on the way to a file.
const RECORDS: usize = 4096;

/// An ISO 9660 image of 128 KiB that boots nothing real: a volume identifier, an empty root directory, and this text where a boot
/// loader's configuration would be. Provisioning services take it for an ISO, because it is one.
pub fn image(volume: &str, boot_configuration: &str) -> Vec<u8> {
    let mut image = vec![0; 128 * 1024];
    let root = 20 * SECTOR;
    let descriptor = &mut image[DESCRIPTORS..DESCRIPTORS + SECTOR];
    descriptor[..7].copy_from_slice(b"\x01CD001\x01");
    let volume: Vec<u8> = volume.bytes().chain(std::iter::repeat(b' ')).take(32).collect();
    descriptor[40..72].copy_from_slice(&volume);
    both(&mut descriptor[80..88], 64);
    descriptor[120..124].copy_from_slice(&[1, 0, 0, 1]);
    descriptor[124..128].copy_from_slice(&[1, 0, 0, 1]);
    descriptor[128..132].copy_from_slice(&[0, 8, 8, 0]);
    let itself = directory_record(20, SECTOR, 0);
    descriptor[156..156 + itself.len()].copy_from_slice(&itself);
    descriptor[881] = 1;
    image[DESCRIPTORS + SECTOR..DESCRIPTORS + SECTOR + 7].copy_from_slice(b"\xffCD001\x01");
    let parent = directory_record(20, SECTOR, 1);
    image[root..root + itself.len()].copy_from_slice(&itself);
    image[root + itself.len()..root + itself.len() + parent.len()].copy_from_slice(&parent);
    let text = boot_configuration.as_bytes();
    let at = 21 * SECTOR;
    let length = text.len().min(image.len() - at);
    image[at..at + length].copy_from_slice(&text[..length]);
    image
}

/// An image that hosts take for Ironic's agent, as [`image`]; it names this API where one is given.
pub fn agent(ironic_url: Option<&str>) -> Vec<u8> {
    let parameter = ironic_url.map(|url| format!("{API_PARAMETER}{url}")).unwrap_or_default();
    image(AGENT_VOLUME, &format!("linux /vmlinuz {parameter}\n"))
}

/// The kernel parameter by which ironic-python-agent is told where Ironic is.
const API_PARAMETER: &str = "ipa-api-url=";
/// The volume identifier of an agent that is told it otherwise.
const AGENT_VOLUME: &str = "AGENT";

/// What the beginning of an image says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ironic's agent, and the API that its kernel parameters name.
    Agent(Option<String>),
    /// Anything else that is an ISO.
    Live,
}

/// What this beginning of an image says; none where it is no ISO.
pub(crate) fn kind(start: &[u8]) -> Option<Kind> {
    if !is_iso(start) {
        return None;
    }
    let parameter = API_PARAMETER.as_bytes();
    if let Some(at) = start.windows(parameter.len()).position(|window| window == parameter) {
        let value = start[at + parameter.len()..].split(|b| b.is_ascii_whitespace() || b"\0\"'".contains(b));
        let url = value.into_iter().next().unwrap_or_default();
        return Some(Kind::Agent(Some(String::from_utf8_lossy(url).into_owned())));
    }
    Some(if volume(start) == AGENT_VOLUME { Kind::Agent(None) } else { Kind::Live })
}

/// Both byte orders, as most numbers are written (ECMA-119 §7.3.3).
fn both(into: &mut [u8], number: u32) {
    into[..4].copy_from_slice(&number.to_le_bytes());
    into[4..8].copy_from_slice(&number.to_be_bytes());
}

/// The record of a directory under the name 0 (itself) or 1 (its parent).
fn directory_record(sector: u32, length: usize, name: u8) -> [u8; 34] {
    let mut record = [0; 34];
    record[0] = 34;
    both(&mut record[2..10], sector);
    both(&mut record[10..18], u32::try_from(length).unwrap_or_default());
    record[25] = 2;
    record[28] = 1;
    record[31] = 1;
    record[32] = 1;
    record[33] = name;
    record
}

/// Whether this begins as an ISO 9660 image does.
pub(crate) fn is_iso(start: &[u8]) -> bool {
    start.get(DESCRIPTORS + 1..DESCRIPTORS + 6) == Some(b"CD001")
}

/// The volume identifier.
pub(crate) fn volume(start: &[u8]) -> String {
    let name = start.get(DESCRIPTORS + 40..DESCRIPTORS + 72).unwrap_or_default();
    String::from_utf8_lossy(name).trim_end_matches([' ', '\0']).to_owned()
}

/// The content of a file in an image that is all here.
pub(crate) fn file(image: &Bytes, path: &[&str]) -> Option<Bytes> {
    if !is_iso(image) {
        return None;
    }
    let mut left = RECORDS;
    let mut found = Entry::parse(image.get(DESCRIPTORS + 156..DESCRIPTORS + 190)?)?;
    for name in path {
        if !found.directory {
            return None;
        }
        found = found.entries(image, &mut left).into_iter().find(|entry| entry.is_called(name))?;
    }
    (!found.directory).then(|| found.content(image))?
}

/// A directory record (ECMA-119 §9.1).
#[derive(Debug)]
struct Entry {
    sector: usize,
    length: usize,
    directory: bool,
    name: String,
}

impl Entry {
    fn parse(record: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let bytes = record.get(at..at + 4)?;
            Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
        };
        let name_length = usize::from(*record.get(32)?);
        let name = record.get(33..33 + name_length)?;
        // System use begins at an even offset after the name.
        let rest = record.get((33 + name_length).next_multiple_of(2)..).unwrap_or_default();
        let name = rock_ridge_name(rest).unwrap_or_else(|| String::from_utf8_lossy(name).into_owned());
        Some(Self { sector: number(2)?, length: number(10)?, directory: record.get(25)? & 2 != 0, name })
    }

    fn content(&self, image: &Bytes) -> Option<Bytes> {
        let start = self.sector.checked_mul(SECTOR)?;
        let end = start.checked_add(self.length)?;
        (end <= image.len()).then(|| image.slice(start..end))
    }

    fn entries(&self, image: &Bytes, left: &mut usize) -> Vec<Self> {
        let mut out = Vec::new();
        let Some(content) = self.content(image) else { return out };
        // Records do not cross sectors; a length of zero ends a sector.
        for sector in content.chunks(SECTOR) {
            let mut at = 0;
            while let Some(length) = sector.get(at).map(|length| usize::from(*length)) {
                if length == 0 || *left == 0 {
                    break;
                }
                *left -= 1;
                out.extend(sector.get(at..at + length).and_then(Self::parse));
                at += length;
            }
        }
        out
    }

    /// Names without Rock Ridge end in a version, and may be in capitals and cut.
    fn is_called(&self, name: &str) -> bool {
        let own = self.name.split(';').next().unwrap_or_default().trim_end_matches('.');
        own.eq_ignore_ascii_case(name)
    }
}

/// The name in the system use area (RRIP `NM`), put together from its parts.
fn rock_ridge_name(mut area: &[u8]) -> Option<String> {
    let mut name = None;
    while let [kind @ .., length, _version] = area.get(..4)? {
        let length = usize::from(*length);
        if length < 4 {
            break;
        }
        let field = area.get(..length)?;
        if kind == b"NM" {
            let part = field.get(5..).unwrap_or_default();
            name.get_or_insert_with(String::new).push_str(&String::from_utf8_lossy(part));
        }
        area = &area[length..];
        if area.len() < 4 {
            break;
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_says_its_volume_and_holds_no_file() {
        let image = Bytes::from(image("LIVE", "linux /vmlinuz"));
        assert!(is_iso(&image));
        assert_eq!(volume(&image), "LIVE");
        assert_eq!(file(&image, &["openstack"]), None);
    }

    #[test]
    fn an_agent_is_known_by_its_content() {
        assert_eq!(kind(&agent(None)), Some(Kind::Agent(None)));
        let named = agent(Some("http://127.0.0.1:6385"));
        assert_eq!(kind(&named), Some(Kind::Agent(Some("http://127.0.0.1:6385".to_owned()))));
        assert_eq!(kind(&image("LIVE", "linux /vmlinuz quiet")), Some(Kind::Live));
        assert_eq!(kind(b"<html>not found</html>"), None);
    }

    /// An image with one directory and one file in it, named as Rock Ridge names them.
    fn configdrive(content: &[u8]) -> Vec<u8> {
        let record = |sector: u32, length: usize, directory: bool, name: &str| {
            let mut record = directory_record(sector, length, 0).to_vec();
            record[25] = if directory { 2 } else { 0 };
            record.extend([b'N', b'M', u8::try_from(5 + name.len()).unwrap(), 1, 0]);
            record.extend(name.bytes());
            record[0] = u8::try_from(record.len()).unwrap();
            record
        };
        let mut image = image("config-2", "");
        let mut put = |sector: usize, skip: usize, bytes: &[u8]| {
            let at = sector * SECTOR + skip;
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(20, 68, &record(22, SECTOR, true, "openstack"));
        put(22, 0, &record(23, content.len(), false, "user_data"));
        put(23, 0, content);
        image
    }

    #[test]
    fn files_are_found_by_their_rock_ridge_names() {
        let image = Bytes::from(configdrive(b"#cloud-config"));
        assert_eq!(file(&image, &["openstack", "user_data"]).unwrap().as_ref(), b"#cloud-config");
        assert_eq!(file(&image, &["openstack", "other"]), None);
        assert_eq!(file(&image, &["openstack"]), None, "a directory is no file");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_damaged_image_is_read_without_panic(at in 0usize..100 * 1024, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut image = configdrive(b"content");
            image[at..at + bytes.len()].copy_from_slice(&bytes);
            let cut = image.len() - bytes.len() * 512;
            let _ = file(&Bytes::from(image.clone()), &["openstack", "user_data"]);
            let _ = file(&Bytes::from(image).slice(..cut), &["openstack", "user_data"]);
        }
    }
}
