//! What a site remembers between runs: its port, its password, its keys.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Password;
use crate::error::Error;
use crate::files;

/// The directory of a site's state.
#[derive(Debug)]
pub(super) struct State {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    port: u16,
}

const PASSWORD_LENGTH: usize = 24;

impl State {
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        files::create_private_directory(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    pub(super) fn keys(&self) -> PathBuf {
        self.directory.join("keys")
    }

    fn port_file(&self) -> PathBuf {
        self.directory.join("listener.json")
    }

    /// The port of the run before; none where there was none or the file is not what this program writes.
    pub(super) fn port(&self) -> Option<u16> {
        let text = std::fs::read(self.port_file()).ok()?;
        serde_json::from_slice::<Remembered>(&text).ok().map(|remembered| remembered.port)
    }

    pub(super) fn remember_port(&self, port: u16) -> Result<(), Error> {
        if self.port() == Some(port) {
            return Ok(());
        }
        files::write_private(&self.port_file(), serde_json::json!(Remembered { port }).to_string().as_bytes())
    }

    /// The password and the file that holds it.
    pub(super) fn password(&self, source: &Password) -> Result<(String, PathBuf), Error> {
        let kept = self.directory.join("password");
        match source {
            Password::File(path) => Ok((read_password(path)?, path.clone())),
            Password::Given(password) => {
                files::write_private(&kept, password.as_bytes())?;
                Ok((password.clone(), kept))
            }
            Password::Generated if kept.exists() => Ok((read_password(&kept)?, kept)),
            Password::Generated => {
                let password = generate()?;
                files::write_private(&kept, password.as_bytes())?;
                Ok((password, kept))
            }
        }
    }
}

fn read_password(path: &Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Error::Site(format!("{} holds no password", path.display())));
    }
    Ok(password.to_owned())
}

fn generate() -> Result<String, Error> {
    // 64 symbols, so that six bits of a random byte choose one without bias.
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = [0; PASSWORD_LENGTH];
    getrandom::fill(&mut random).map_err(|error| {
        Error::Site(format!("the system gives no random numbers for a password: {error}"))
    })?;
    Ok(random.iter().map(|byte| char::from(SYMBOLS[usize::from(byte & 63)])).collect())
}
