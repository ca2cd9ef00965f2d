//! Bearer tokens: 256 random bits each, of which only the SHA-256 is kept.

use crate::error::StoreError;
use crate::open::Store;
use crate::rows::{Read as _, corrupt};
use domain::Digest;
use domain::principal::{Principal, Role};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use sqlx::any::AnyRow;
use std::time::Duration;
use zeroize::Zeroizing;

/// By this people and secret scanners know a token of Bailiwick.
const PREFIX: &str = "bw_";

/// A token as listings show it: everything but itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRecord {
    /// Its name, which becomes the actor of what is done with it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `None` never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl TokenRecord {
    /// Whether it lets anybody in at this time.
    pub fn is_live(&self, at: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| at < end)
    }
}

impl Store {
    /// Makes a token, which is shown this once. The name of a revoked or expired one may be used again.
    pub async fn create_token(
        &self,
        name: &str,
        role: Role,
        life: Option<Duration>,
        actor: &str,
    ) -> Result<Zeroizing<String>, StoreError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut()).map_err(StoreError::Random)?;
        let token = Zeroizing::new(format!("{PREFIX}{}", *Zeroizing::new(hex::encode(bytes.as_ref()))));
        let mut write = self.write().await?;
        let same = sqlx::query("SELECT * FROM tokens WHERE name = $1")
            .bind(name)
            .fetch_optional(write.connection())
            .await?;
        if let Some(row) = same {
            if record(&row)?.is_live(write.now) {
                return Err(StoreError::TokenExists(name.to_owned()));
            }
            sqlx::query("DELETE FROM tokens WHERE name = $1").bind(name).execute(write.connection()).await?;
        }
        let now = write.now;
        let expires_at = life.map(|life| now.saturating_add(life).unwrap_or(Timestamp::MAX));
        sqlx::query(
            "INSERT INTO tokens (name, role, digest, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(name)
        .bind(role.as_str())
        .bind(Digest::of(token.as_bytes()).to_string())
        .bind(now.as_millisecond())
        .bind(expires_at.map(Timestamp::as_millisecond))
        .execute(write.connection())
        .await?;
        let data = json!({ "role": role, "expiresAt": expires_at });
        write.event("token.created", &format!("Token/{name}"), actor, &data).await?;
        write.commit().await?;
        Ok(token)
    }

    /// Who a token stands for; `None` for one that is unknown, expired or revoked. It is looked up by its digest, so the
    /// time that takes tells nothing about a token that is nearly right.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Principal>, StoreError> {
        let row = sqlx::query(self.sql("SELECT t.*, NOW AS present FROM tokens t WHERE t.digest = $1"))
            .bind(Digest::of(token.as_bytes()).to_string())
            .fetch_optional(&self.inner.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let record = record(&row)?;
        let live = record.is_live(row.time("present")?);
        Ok(live.then_some(Principal { name: record.name, role: record.role }))
    }

    /// All tokens, by name.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM tokens ORDER BY name").fetch_all(&self.inner.readers).await?;
        rows.iter().map(record).collect()
    }

    /// Ends a token. Revoking it again changes nothing.
    pub async fn revoke_token(&self, name: &str, actor: &str) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let row = sqlx::query("SELECT * FROM tokens WHERE name = $1")
            .bind(name)
            .fetch_optional(write.connection())
            .await?
            .ok_or_else(|| StoreError::TokenUnknown(name.to_owned()))?;
        if record(&row)?.revoked_at.is_some() {
            return Ok(());
        }
        let now = write.now;
        sqlx::query("UPDATE tokens SET revoked_at = $1 WHERE name = $2")
            .bind(now.as_millisecond())
            .bind(name)
            .execute(write.connection())
            .await?;
        write.event("token.revoked", &format!("Token/{name}"), actor, &json!({})).await?;
        write.commit().await
    }
}

fn record(row: &AnyRow) -> Result<TokenRecord, StoreError> {
    let role = row.text("role")?;
    Ok(TokenRecord {
        name: row.text("name")?,
        role: Role::parse(&role).ok_or_else(|| corrupt("role", &role))?,
        created_at: row.time("created_at")?,
        expires_at: row.maybe_time("expires_at")?,
        revoked_at: row.maybe_time("revoked_at")?,
    })
}
