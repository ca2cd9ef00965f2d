//! Accounts at BMCs whose passwords the cell makes itself, in place of the declared one (`spec.bmc.rotate`, quirk 42).
//!
//! A password is written here, sealed, before the BMC is given it, and the one that it replaces stays beside it until the new
//! one is proven: at every moment, also after a power cut, one of the two is in force.

use crate::error::StoreError;
use crate::machines::{CELL, subject};
use crate::open::Store;
use crate::queue::Guard;
use crate::rows::{Read as _, corrupt};
use crate::seal::Purpose;
use domain::Name;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::any::AnyRow;
use zeroize::Zeroizing;

/// Who logs in with an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// The cell.
    Cell,
    /// The service that provisions the machine.
    Provisioner,
}

impl Holder {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cell => "cell",
            Self::Provisioner => "provisioner",
        }
    }
}

/// How far an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The new password is kept; the one before it is in force.
    Prepared,
    /// The BMC was, or is just being, given the new one: either may be in force.
    Given,
    /// The new password logged in; its holder may not know it yet.
    Proven,
    /// Its holder uses it.
    InUse,
    /// The BMC was, or is just being, given its declared password back: either may be in force.
    Returned,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Given => "given",
            Self::Proven => "proven",
            Self::InUse => "in-use",
            Self::Returned => "returned",
        }
    }
}

/// One account. Its `Debug` shows no password: [`Zeroizing`] would.
pub struct BmcAccount {
    /// Who uses it.
    pub holder: Holder,
    /// Its name at the BMC.
    pub username: String,
    /// The password of our own making.
    pub password: Zeroizing<String>,
    /// The one that it replaces, until it is proven. `None` also where the account is new at the BMC.
    pub previous: Option<Zeroizing<String>>,
    /// How far it is.
    pub phase: Phase,
}

impl std::fmt::Debug for BmcAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BmcAccount")
            .field("holder", &self.holder)
            .field("username", &self.username)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The accounts of a machine's BMC that the cell made, the cell's own first.
    pub async fn bmc_accounts(&self, machine: &Name) -> Result<Vec<BmcAccount>, StoreError> {
        let sql = "SELECT holder, username, sealed, previous, phase FROM bmc_accounts WHERE machine = $1 ORDER BY holder";
        let rows = sqlx::query(sql).bind(machine.as_str()).fetch_all(&self.inner.readers).await?;
        rows.iter().map(|row| self.bmc_account(machine, row)).collect()
    }

    fn bmc_account(&self, machine: &Name, row: &AnyRow) -> Result<BmcAccount, StoreError> {
        let holder = match row.text("holder")?.as_str() {
            "cell" => Holder::Cell,
            "provisioner" => Holder::Provisioner,
            other => return Err(corrupt("holder", other)),
        };
        let phase = match row.text("phase")?.as_str() {
            "prepared" => Phase::Prepared,
            "given" => Phase::Given,
            "proven" => Phase::Proven,
            "in-use" => Phase::InUse,
            "returned" => Phase::Returned,
            other => return Err(corrupt("phase", other)),
        };
        let place = place(machine, holder);
        let open = |sealed: &str| self.inner.sealer.open(sealed, Purpose::OwnPassword, &place);
        Ok(BmcAccount {
            holder,
            username: row.text("username")?,
            password: open(&row.text("sealed")?)?,
            previous: row.maybe_text("previous")?.map(|sealed| open(&sealed)).transpose()?,
            phase,
        })
    }

    /// Notes that somebody has read the passwords, before they are given out.
    pub async fn note_bmc_accounts_read(&self, machine: &Name, actor: &str) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.event("machine.credentials-read", &subject(machine), actor, &json!({})).await?;
        write.commit().await
    }

    /// Keeps passwords before a BMC is given them, all or none. `data` is what the event `machine.credentials-prepared` says.
    pub async fn prepare_bmc_accounts(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        accounts: &[BmcAccount],
        data: &Value,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.holds(machine, guard.into()).await?;
        let now = write.now;
        for account in accounts {
            let place = place(machine, account.holder);
            let seal = |password: &str| self.inner.sealer.seal(password, Purpose::OwnPassword, &place);
            let previous = account.previous.as_ref().map(|previous| seal(previous)).transpose()?;
            sqlx::query(
                "INSERT INTO bmc_accounts (machine, holder, username, sealed, previous, phase, at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (machine, holder) DO UPDATE SET \
                 username = excluded.username, sealed = excluded.sealed, previous = excluded.previous, \
                 phase = excluded.phase, at = excluded.at",
            )
            .bind(machine.as_str())
            .bind(account.holder.as_str())
            .bind(account.username.as_str())
            .bind(seal(&account.password)?)
            .bind(previous)
            .bind(account.phase.as_str())
            .bind(now.as_millisecond())
            .execute(write.connection())
            .await?;
        }
        write.event("machine.credentials-prepared", &subject(machine), CELL, data).await?;
        write.commit().await
    }

    /// The BMC is about to be given a password: from now on either may be in force.
    pub async fn note_bmc_account_given(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        holder: Holder,
        phase: Phase,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.holds(machine, guard.into()).await?;
        sqlx::query("UPDATE bmc_accounts SET phase = $1 WHERE machine = $2 AND holder = $3")
            .bind(phase.as_str())
            .bind(machine.as_str())
            .bind(holder.as_str())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// The new password of an account logged in; what it replaced is forgotten.
    pub async fn prove_bmc_account(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        holder: Holder,
        data: &Value,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.holds(machine, guard.into()).await?;
        let now = write.now;
        sqlx::query(
            "UPDATE bmc_accounts SET phase = $1, previous = NULL, at = $2 WHERE machine = $3 AND holder = $4",
        )
        .bind(Phase::Proven.as_str())
        .bind(now.as_millisecond())
        .bind(machine.as_str())
        .bind(holder.as_str())
        .execute(write.connection())
        .await?;
        write.event("machine.credentials-rotated", &subject(machine), CELL, data).await?;
        write.commit().await
    }

    /// All accounts that are proven are used by their holders from now on.
    pub async fn use_bmc_accounts(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        data: &Value,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.holds(machine, guard.into()).await?;
        let now = write.now;
        sqlx::query("UPDATE bmc_accounts SET phase = $1, previous = NULL, at = $2 WHERE machine = $3")
            .bind(Phase::InUse.as_str())
            .bind(now.as_millisecond())
            .bind(machine.as_str())
            .execute(write.connection())
            .await?;
        write.event("machine.credentials-in-use", &subject(machine), CELL, data).await?;
        write.commit().await
    }

    /// The BMC has its declared password again; what these holders had is worth nothing.
    pub async fn forget_bmc_accounts(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        holders: &[Holder],
        data: &Value,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.holds(machine, guard.into()).await?;
        for holder in holders {
            sqlx::query("DELETE FROM bmc_accounts WHERE machine = $1 AND holder = $2")
                .bind(machine.as_str())
                .bind(holder.as_str())
                .execute(write.connection())
                .await?;
        }
        write.event("machine.credentials-restored", &subject(machine), CELL, data).await?;
        write.commit().await
    }
}

/// What a sealed password belongs to.
fn place(machine: &Name, holder: Holder) -> String {
    format!("{machine}\n{}", holder.as_str())
}
