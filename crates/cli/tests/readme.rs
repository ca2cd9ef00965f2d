//! The README's transcript shows what the command prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use support::Desk;

/// The lines of its `console` blocks, by command.
fn transcript(readme: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let mut runs: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match line.strip_prefix("$ bailiwick ") {
                Some(words) => runs.push((words.split_whitespace().map(str::to_owned).collect(), Vec::new())),
                None => runs.last_mut().unwrap().1.push(line.trim_end().to_owned()),
            },
        }
    }
    runs
}

/// Whether the lines are as written, where `...` stands for any lines and `[..]` for any text.
fn fits(written: &[String], printed: &[String]) -> bool {
    match (written.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "..." => {
            (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..]))
        }
        (Some((first, rest)), Some((line, lines))) => fits_line(first, line) && fits(rest, lines),
        _ => false,
    }
}

fn fits_line(written: &str, printed: &str) -> bool {
    match written.split_once("[..]") {
        None => written == printed,
        Some((start, end)) => {
            // Columns are as wide as what they hold, so spaces around the gap do not count.
            let end = end.trim_start();
            printed.starts_with(start.trim_end())
                && printed.ends_with(end)
                && printed.len() >= start.trim_end().len() + end.len()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_shows_what_the_command_prints() {
    let readme = std::fs::read_to_string(testbed::repository_root().join("README.md")).unwrap();
    let runs = transcript(&readme);
    assert!(runs.len() >= 2);
    let desk = Desk::new();
    desk.write("bmc.password", "secret\n");
    for (words, written) in runs {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = desk.command(&words).output().await.unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let printed: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        assert!(
            fits(&written, &printed),
            "bailiwick {}\nprints:\n{text}\nthe README says:\n{}",
            words.join(" "),
            written.join("\n")
        );
    }
}
