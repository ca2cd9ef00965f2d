//! Bodies with places that each BMC fills from its own seed, so that a thousand BMCs share one tree.
//!
//! A place is written `{{digits LABEL N}}`, `{{alnum LABEL N}}`, `{{uuid LABEL}}`, `{{mac LABEL}}`, `{{chain LABEL}}` or `{{name}}`.
//! JSON itself never contains `{{` outside strings, so that a place cannot be mistaken for structure.

use bytes::Bytes;

use crate::device;
use crate::seed::Seed;

/// A parsed body.
#[derive(Debug)]
pub(crate) enum Body {
    /// The same for every BMC; served without copying.
    Plain(Bytes),
    /// Text and places in turn, and what they were read from (the pieces of text are slices of it).
    Template(Bytes, Vec<Piece>),
}

#[derive(Debug)]
pub(crate) enum Piece {
    Text(Bytes),
    Digits(Box<str>, usize),
    Alphanumeric(Box<str>, usize),
    Uuid(Box<str>),
    Mac(Box<str>),
    Chain(Box<str>),
    Name,
}

impl Body {
    /// Reads a body; what looks like a place but is none stays text.
    pub(crate) fn parse(body: Bytes) -> Self {
        let (mut pieces, mut rest, mut from) = (Vec::new(), body.clone(), 0);
        while let Some(open) = find(&rest[from..], *b"{{").map(|at| from + at) {
            let place = find(&rest[open..], *b"}}")
                .and_then(|length| Some((length, place(&rest[open + 2..open + length])?)));
            if let Some((length, place)) = place {
                pieces.push(Piece::Text(rest.slice(..open)));
                pieces.push(place);
                rest = rest.slice(open + length + 2..);
                from = 0;
            } else {
                from = open + 2;
            }
        }
        if pieces.is_empty() {
            return Self::Plain(body);
        }
        pieces.push(Piece::Text(rest));
        Self::Template(body, pieces)
    }

    /// The body with its places unfilled.
    pub(crate) fn source(&self) -> Bytes {
        match self {
            Self::Plain(source) | Self::Template(source, _) => source.clone(),
        }
    }

    /// The body as the BMC of this seed and name shows it.
    pub(crate) fn render(&self, seed: &Seed, name: &str) -> Bytes {
        let pieces = match self {
            Self::Plain(bytes) => return bytes.clone(),
            Self::Template(_, pieces) => pieces,
        };
        let mut out = Vec::with_capacity(pieces.iter().map(Piece::size).sum());
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Digits(label, n) => out.extend_from_slice(seed.digits(label, *n).as_bytes()),
                Piece::Alphanumeric(label, n) => {
                    out.extend_from_slice(seed.alphanumeric(label, *n).as_bytes());
                }
                Piece::Uuid(label) => {
                    let mut buffer = uuid::Uuid::encode_buffer();
                    out.extend_from_slice(seed.uuid(label).hyphenated().encode_lower(&mut buffer).as_bytes());
                }
                Piece::Mac(label) => out.extend_from_slice(seed.mac(label).as_bytes()),
                // Line ends as JSON's strings have them.
                Piece::Chain(label) => {
                    out.extend_from_slice(device::chain(seed, label).replace('\n', "\\n").as_bytes());
                }
                Piece::Name => out.extend_from_slice(name.as_bytes()),
            }
        }
        Bytes::from(out)
    }
}

impl Piece {
    /// About how many bytes this becomes.
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Digits(_, n) | Self::Alphanumeric(_, n) => *n,
            Self::Uuid(_) | Self::Mac(_) => 36,
            Self::Chain(_) => 1300,
            Self::Name => 63,
        }
    }
}

fn place(text: &[u8]) -> Option<Piece> {
    let text = std::str::from_utf8(text).ok()?;
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["digits", label, n] => Some(Piece::Digits((*label).into(), n.parse().ok()?)),
        ["alnum", label, n] => Some(Piece::Alphanumeric((*label).into(), n.parse().ok()?)),
        ["uuid", label] => Some(Piece::Uuid((*label).into())),
        ["mac", label] => Some(Piece::Mac((*label).into())),
        ["chain", label] => Some(Piece::Chain((*label).into())),
        ["name"] => Some(Piece::Name),
        _ => None,
    }
}

fn find(haystack: &[u8], needle: [u8; 2]) -> Option<usize> {
    haystack.windows(2).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &'static str) -> String {
        let body = Body::parse(Bytes::from_static(text.as_bytes()));
        String::from_utf8(body.render(&Seed::new(&["a"]), "bmc-1").to_vec()).unwrap()
    }

    #[test]
    fn places_are_filled_and_what_only_looks_like_one_stays() {
        let seed = Seed::new(&["a"]);
        assert_eq!(rendered("<{{name}}>"), "<bmc-1>");
        assert_eq!(rendered("{{digits x 5}}"), seed.digits("x", 5));
        assert_eq!(
            rendered("{{alnum x 5}}-{{mac m}}"),
            format!("{}-{}", seed.alphanumeric("x", 5), seed.mac("m"))
        );
        assert_eq!(rendered("{{mustache}} {{uuid u}}"), format!("{{{{mustache}}}} {}", seed.uuid("u")));
        assert_eq!(rendered("{{name"), "{{name");
        assert_eq!(rendered("{\"a\":{\"b\":1}}"), "{\"a\":{\"b\":1}}");
    }

    #[test]
    fn a_body_without_places_is_not_copied() {
        let source = Bytes::from_static(b"{}");
        let shown = Body::parse(source.clone()).render(&Seed::new(&[]), "");
        assert_eq!(shown.as_ptr(), source.as_ptr());
    }
}
