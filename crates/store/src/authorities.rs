//! Keys that the cell signs with. Made once; where two replicas make one at once, the first is the one.

use crate::error::StoreError;
use crate::open::Store;
use crate::rows::Read as _;
use crate::seal::Purpose;
use zeroize::Zeroizing;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Signs the certificates of agents, and the cell's own on their listener.
    Agents,
    /// Signs permits.
    Permits,
}

/// A key and, where it has one, its certificate.
#[derive(Clone)]
pub struct AuthorityKey {
    /// The certificate in PEM.
    pub certificate: Option<String>,
    /// The private key in PEM (PKCS #8).
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityKey").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Permits => "permits",
        }
    }
}

impl Store {
    /// The key for a purpose, where there is one.
    pub async fn authority(&self, authority: Authority) -> Result<Option<AuthorityKey>, StoreError> {
        let row = sqlx::query("SELECT certificate, sealed FROM authorities WHERE purpose = $1")
            .bind(authority.as_str())
            .fetch_optional(&self.inner.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let key = self.inner.sealer.open(&row.text("sealed")?, Purpose::Authority, authority.as_str())?;
        Ok(Some(AuthorityKey { certificate: row.maybe_text("certificate")?, key }))
    }

    /// Keeps a new key, unless there is one already. Gives the one that is kept.
    pub async fn keep_authority(
        &self,
        authority: Authority,
        key: AuthorityKey,
    ) -> Result<AuthorityKey, StoreError> {
        let sealed = self.inner.sealer.seal(&key.key, Purpose::Authority, authority.as_str())?;
        let mut write = self.write().await?;
        sqlx::query(
            "INSERT INTO authorities (purpose, certificate, sealed) VALUES ($1, $2, $3) ON CONFLICT (purpose) DO NOTHING",
        )
        .bind(authority.as_str())
        .bind(key.certificate.as_deref())
        .bind(sealed)
        .execute(write.connection())
        .await?;
        write.commit().await?;
        Ok(self.authority(authority).await?.unwrap_or(key))
    }
}
