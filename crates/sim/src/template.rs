//! Bodies with places that each BMC fills from its own seed, so that a thousand BMCs share one tree.
//!
//! A place is written `{{digits LABEL N}}`, `{{alnum LABEL N}}`, `{{uuid LABEL}}`, `{{mac LABEL}}` or `{{name}}`. JSON itself
//! never contains `{{` outside strings, so that a place cannot be mistaken for structure.

use bytes::Bytes;

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
    Name,
}

impl Body {
    /// Reads a body; what looks like a place but is none stays text.
    pub(crate) fn parse(body: Bytes) -> Self {
        let Some(mut open) = find(&body, b"{{") else { return Self::Plain(body) };
        let (mut pieces, mut rest) = (Vec::new(), body.clone());
        loop {
            let Some(length) = find(&rest[open..], b"}}") else { break };
            let Some(piece) = place(&rest[open + 2..open + length]) else { break };
            pieces.push(Piece::Text(rest.slice(..open)));
            pieces.push(piece);
            rest = rest.slice(open + length + 2..);
            match find(&rest, b"{{") {
                Some(next) => open = next,
                None => break,
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
                    out.extend_from_slice(seed.alphanumeric(label, *n).as_bytes())
                }
                Piece::Uuid(label) => {
                    let mut buffer = uuid::Uuid::encode_buffer();
                    out.extend_from_slice(seed.uuid(label).hyphenated().encode_lower(&mut buffer).as_bytes());
                }
                Piece::Mac(label) => out.extend_from_slice(seed.mac(label).as_bytes()),
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
        ["name"] => Some(Piece::Name),
        _ => None,
    }
}

fn find(haystack: &[u8], needle: &[u8; 2]) -> Option<usize> {
    haystack.windows(2).position(|window| window == needle)
}
