//! Values that a database has once: its cell's jurisdiction, the cell's own id.

use crate::error::StoreError;
use crate::open::Store;
use crate::rows::Read as _;

impl Store {
    /// The value under a key.
    pub async fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE key = $1")
            .bind(key)
            .fetch_optional(&self.inner.readers)
            .await?;
        row.map(|row| row.text("value")).transpose()
    }

    /// Sets a value that never changes again. Setting the same value again is fine; another is
    /// [`StoreError::MetaConflict`].
    pub async fn set_meta_once(&self, key: &str, value: &str) -> Result<(), StoreError> {
        if self.meta(key).await?.is_none() {
            self.set_meta_where_absent(key, value).await?;
        }
        match self.meta(key).await?.unwrap_or_default() {
            found if found == value => Ok(()),
            found => Err(StoreError::MetaConflict { key: key.to_owned(), found, wanted: value.to_owned() }),
        }
    }

    pub(crate) async fn set_meta_where_absent(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        sqlx::query("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING")
            .bind(key)
            .bind(value)
            .execute(write.connection())
            .await?;
        write.commit().await
    }
}
