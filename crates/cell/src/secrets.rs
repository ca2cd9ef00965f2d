//! The secrets directory, laid out as Kubernetes mounts Secrets: a folder a secret, a file a key.

use domain::declaration::SecretRef;
use std::path::PathBuf;
use store::Zeroizing;

/// Where the secrets are that declarations name. Read anew each time: whoever mounts them may replace them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(Option<PathBuf>);

impl Secrets {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self(directory)
    }

    /// The text of a secret, without line ends at its end; or why there is none.
    pub(crate) async fn read(&self, reference: &SecretRef) -> Result<Zeroizing<String>, String> {
        let Some(root) = &self.0 else {
            return Err("the cell has no secrets directory; start it with --secrets-dir".to_owned());
        };
        // The name is a folder by its type; the key is anybody's text.
        if reference.key.contains('/') || reference.key.starts_with('.') {
            return Err(format!("{:?} is no key of a secret", reference.key));
        }
        let path = root.join(reference.name.as_str()).join(&reference.key);
        let text = tokio::fs::read_to_string(&path).await.map(Zeroizing::new);
        let text = text.map_err(|error| format!("cannot read secret {}: {error}", path.display()))?;
        Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}
