//! Commands printed for people to copy.

/// A word as a POSIX shell takes it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A command line as a POSIX shell takes it.
pub(crate) fn command_line(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quote("https://[::1]:8443"), "'https://[::1]:8443'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("sha256:00ff"), "sha256:00ff");
        assert_eq!(quote(""), "''");
    }
}
