//! Password files in the Apache style, as OpenStack's services read them: bcrypt alone.

use std::path::Path;

use crate::Error;
use crate::kubectl::{run, write_private};

/// Writes one user's line. The part's own Python has what makes the hash. The cost is the lowest, since
/// every single request is checked.
pub(crate) async fn write_passwords(
    python: &Path,
    file: &Path,
    username: &str,
    password: &str,
) -> Result<(), Error> {
    const HASH: &str = "import bcrypt, sys; \
        print(bcrypt.hashpw(sys.stdin.read().encode(), bcrypt.gensalt(4)).decode(), end='')";
    let home = file.parent().unwrap_or(file);
    let hash = run(None, python, &["-c", HASH], home, Some(password)).await?.success()?;
    write_private(file, &format!("{username}:{hash}\n"))
}

/// A password that nobody guesses.
pub(crate) fn new_password() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
