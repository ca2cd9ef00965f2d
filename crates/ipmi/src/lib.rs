//! IPMI 2.0 over LAN: presence, identity, power, boot device, sensors, system event log.
//!
//! [`ping()`], [`probe()`] and [`sweep`] find BMCs without credentials, [`auth_capabilities`] asks one what sessions it takes;
//! [`Client::connect`] logs in. Underneath, the codec is pure: `rmcp` (the envelope), `packet` (RMCP+), `rakp` (how a session
//! is made), `suite` (its keys), `message` (commands and answers), then one module for each kind of answer. `socket` asks until
//! an answer comes, `session` numbers and signs, `client` knows what to do when either fails.
//!
//! References are to the IPMI specification, second generation, v2.0, revision 1.1; quirks are numbered as in the tests.
//!
//! ```no_run
//! use bailiwick_ipmi::{Client, Credentials, Options, PowerAction, Target};
//!
//! # async fn example(address: std::net::SocketAddr) -> Result<(), bailiwick_ipmi::Error> {
//! let target = Target::new(address, Credentials::new("operator", "from the vault"));
//! let client = Client::connect(target, Options::default()).await?;
//! println!("{:?} is {}", client.identity().await?.serial(), client.power().await?);
//! client.set_power(PowerAction::Off).await?;
//! client.close().await;
//! # Ok(())
//! # }
//! ```

pub mod chassis;
pub mod client;
pub mod device;
pub mod error;
pub mod fru;
pub mod inventory;
pub mod machine;
pub mod message;
pub mod packet;
pub mod ping;
pub mod probe;
pub mod rakp;
pub mod records;
pub mod rmcp;
pub mod sdr;
pub mod sel;
pub mod sensor;
pub mod suite;
pub mod target;
pub mod unit;
pub mod wire;

mod command;
mod lan;
mod session;
mod socket;
mod text;

pub use chassis::{BootDevice, BootFlags, ChassisStatus, Power, PowerAction};
pub use client::{Client, Usage};
pub use device::{AuthCapabilities, DeviceId, GuidLayout, SystemGuid};
pub use error::{CODES, Error, LoginEnd};
pub use fru::Fru;
pub use machine::{Evidence, Identity, PowerChange};
pub use ping::{Presence, SweepOptions, auth_capabilities, ping, sweep};
pub use probe::{Probe, probe};
pub use rakp::Privilege;
pub use records::Listing;
pub use sel::{EventTime, SelEntry, SelInfo, SelPage, SelRecord};
pub use sensor::{Reading, Sensor, Severity, Thresholds};
pub use suite::CipherSuite;
pub use target::{Credentials, Options, Target};
