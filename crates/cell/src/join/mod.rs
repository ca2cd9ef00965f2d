//! How a machine becomes a node of one base cluster and of no other (DESIGN §5.5). Pure.
//!
//! One bootstrap token a machine and use. The cell approves the request for a client certificate only if it came with that
//! token, asks for `system:node:<machine>` and nothing else, and the machine is being provisioned; then the token goes. What
//! the node says of itself is compared with the machine before labels are set and the taint is lifted.

pub(crate) mod node;
pub(crate) mod request;
mod user_data;

pub(crate) use user_data::{Guest, enrols_agent, render};

use domain::Instance;
use store::{Store, Zeroizing};

/// Group of our tokens. Not kubeadm's: clusters made by kubeadm approve certificates of that group by themselves.
pub(crate) const GROUP: &str = "system:bootstrappers:bailiwick";

/// The taint under which nodes register. Nothing is scheduled on a node before it is verified.
pub(crate) const UNVERIFIED: &str = "bailiwick.dev/unverified";

/// A bootstrap token: `[a-z0-9]{6}.[a-z0-9]{16}`.
pub(crate) struct Token {
    /// Its public part; in the name of its Secret and of its user.
    pub id: String,
    /// The other part.
    pub secret: Zeroizing<String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Token {
    /// The token of a use of a machine. Derived under the cell's key, so that a step that is taken again after a crash makes
    /// the same one, and nothing secret is stored.
    pub(crate) fn of(store: &Store, instance: &Instance) -> Self {
        let derived = store.derive("bootstrap token", &instance.id.to_string());
        let text = Zeroizing::new(letters(&derived[..]));
        let (id, secret) = text.split_at(6);
        Self { id: id.to_owned(), secret: Zeroizing::new(secret.to_owned()) }
    }

    /// Both parts, as a client sends it.
    pub(crate) fn bearer(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}.{}", self.id, self.secret.as_str()))
    }

    /// The user that a request with this token has.
    pub(crate) fn user(&self) -> String {
        format!("system:bootstrap:{}", self.id)
    }
}

/// 22 characters of `[a-z0-9]` from 32 bytes. Each takes a byte, less those that would make some letters likelier; when the
/// bytes run out, which one key in some millions does, the rest is hashed on.
fn letters(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(22);
    let mut pool = Zeroizing::new(bytes.to_vec());
    loop {
        for byte in pool.iter().filter(|byte| **byte < 252) {
            text.push(char::from(ALPHABET[usize::from(*byte % 36)]));
            if text.len() == 22 {
                return text;
            }
        }
        pool = Zeroizing::new(Sha256::digest(&*pool).to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_form_that_kubernetes_takes() {
        for seed in 0..=255_u8 {
            let text = letters(&[seed; 32]);
            assert_eq!(text.len(), 22);
            assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        }
    }
}
