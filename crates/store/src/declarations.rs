//! What is declared.

use crate::error::StoreError;
use crate::open::Store;
use crate::rows::Read as _;
use domain::{Declaration, Kind, Name};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

const ALL: &str = "SELECT document FROM declarations ORDER BY kind, name";

impl Store {
    /// Everything declared, by kind and name.
    pub async fn declarations(&self) -> Result<Vec<Declaration>, StoreError> {
        let rows = sqlx::query(ALL).fetch_all(&self.inner.readers).await?;
        rows.iter().map(declaration).collect()
    }

    /// Everything declared of one kind, by name.
    pub async fn declarations_of(&self, kind: Kind) -> Result<Vec<Declaration>, StoreError> {
        let rows = sqlx::query("SELECT document FROM declarations WHERE kind = $1 ORDER BY name")
            .bind(kind.as_str())
            .fetch_all(&self.inner.readers)
            .await?;
        rows.iter().map(declaration).collect()
    }

    /// One declared object.
    pub async fn declaration(&self, kind: Kind, name: &Name) -> Result<Option<Declaration>, StoreError> {
        let row = sqlx::query("SELECT document FROM declarations WHERE kind = $1 AND name = $2")
            .bind(kind.as_str())
            .bind(name.as_str())
            .fetch_optional(&self.inner.readers)
            .await?;
        row.as_ref().map(declaration).transpose()
    }
}

/// Everything declared, as a transaction sees it.
pub(crate) async fn all(connection: &mut AnyConnection) -> Result<Vec<Declaration>, StoreError> {
    let rows = sqlx::query(ALL).fetch_all(connection).await?;
    rows.iter().map(declaration).collect()
}

fn declaration(row: &AnyRow) -> Result<Declaration, StoreError> {
    row.json("document")
}
