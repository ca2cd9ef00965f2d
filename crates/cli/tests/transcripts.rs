//! Golden transcripts of what people see: help texts and errors. `TRYCMD=overwrite cargo test -p bailiwick` writes them anew.

#[test]
fn what_people_see_is_as_written_down() {
    let home = tempfile::tempdir().unwrap();
    trycmd::TestCases::new()
        .env("HOME", home.path().display().to_string())
        .env("XDG_CONFIG_HOME", home.path().join("config").display().to_string())
        .env("NO_COLOR", "1")
        .case("tests/cmd/*.trycmd")
        .run();
}
