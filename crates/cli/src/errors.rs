//! Failures of a command, and how people and programs are told of them.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use domain::{Diagnose, Problem};

use crate::exit::Exit;
use crate::output::clean;

/// Codes of this crate: code, meaning, hint.
pub(crate) const CODES: &[(&str, &str, &str)] = &[
    (
        "bmc.trust-required",
        "Nothing says how the BMC proves who it is, so no credentials were sent.",
        "Compare the pin shown with the BMC's own, then give it with --pin; or give --ca or --insecure.",
    ),
    ("cell.answer", "What answers is not a cell of this version.", "Check --server; compare the versions."),
    (
        "cell.plain-http",
        "A token goes over the network unencrypted.",
        "Put TLS in front of the cell and name it with https://.",
    ),
    ("cell.timeout", "The cell did not answer in time.", "Try again; see the cell's log."),
    (
        "cell.unreachable",
        "No cell answers at the address.",
        "Start one with `bailiwick serve` or `bailiwick quickstart`, or name it with --server or --context.",
    ),
    (
        "config.agent-url",
        "`agent-url` says where agents call, and the cell does not listen for them.",
        "Set `agent-listen` too, or leave `agent-url` out.",
    ),
    ("config.malformed", "A value of the configuration file cannot be read.", "Mend the line named."),
    (
        "config.unknown-key",
        "The configuration has a key that does not exist.",
        "See docs/reference/config.md.",
    ),
    ("config.unreadable", "The configuration file cannot be read.", "Check the path and its permissions."),
    ("context.malformed", "The file of contexts cannot be read.", "Mend or remove the file named."),
    (
        "context.no-token",
        "A context names no token file, or an empty one.",
        "`bailiwick context set NAME --token-file FILE` names one.",
    ),
    ("context.unknown", "There is no such context.", "`bailiwick context list` shows those there are."),
    ("context.write", "The file of contexts cannot be written.", "Check the directory's permissions."),
    (
        "input.address",
        "Not a target that can be probed.",
        "Write HOST, HOST:PORT, [IPV6]:PORT or a network such as 10.0.0.0/24.",
    ),
    ("input.ambiguous", "Several things are meant by the name.", "Name one by something that is its own."),
    ("input.empty", "There is nothing in what was given.", "Name at least one thing."),
    ("input.leases", "The DHCP lease file is of no known form.", "Forms read: dnsmasq, ISC dhcpd, Kea CSV."),
    (
        "input.not-for-ipmi",
        "An option has no meaning for a BMC that is reached by IPMI.",
        "Leave --pin, --ca and --insecure out.",
    ),
    ("input.not-found", "There is no such thing.", "`bailiwick get` lists what there is."),
    (
        "input.password",
        "The password file cannot be used.",
        "Give a file that holds the password and nothing else.",
    ),
    (
        "input.range-too-large",
        "The range holds more addresses than are probed at once.",
        "Give smaller ranges, one after the other.",
    ),
    ("input.unreadable", "A file cannot be read.", "Check the path and its permissions."),
    (
        "machine.no-own-password",
        "The cell has made no password for the BMC of this machine: the declared one holds.",
        "`spec.bmc.rotate: true` lets it make one; check the machine's name and the data directory",
    ),
    (
        "machine.stuck",
        "Machines did not get where they were sent: each is named with what it waits for.",
        "`bailiwick why MACHINE` says what would unblock it; the same command, given again, takes up following.",
    ),
    ("output.write", "The output cannot be written.", "Check the disk and where the output goes."),
    ("plan.declined", "The plan was shown and declined; nothing was changed.", "Nothing to do."),
    (
        "plan.unconfirmed",
        "Nobody is there to confirm the plan; nothing was changed.",
        "Add --yes, or apply the reviewed plan with --plan DIGEST.",
    ),
    (
        "quickstart.enrolment",
        "A machine of the quickstart could not be enrolled.",
        "See the problem named with it.",
    ),
    (
        "quickstart.running",
        "Another quickstart works in this data directory.",
        "Use its address, end it with Ctrl-C, or give another directory with --data-dir.",
    ),
    (
        "reference.stale",
        "The reference pages differ from the program.",
        "Run `bailiwick reference --dir docs/reference`.",
    ),
    ("runtime", "The program could not start its runtime.", "Check the limits on threads and open files."),
];

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something is wrong, in one way or several.
    Problems { problems: Vec<Problem>, exit: Exit },
    /// Who reads our output went away: that is no failure of ours.
    BrokenPipe,
    /// Ctrl-C, or asked to end.
    Interrupted,
}

/// Problems shown to people at once.
const SHOWN: usize = 20;

/// Shorthand of every command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Several problems at once; the first decides about the exit code.
    pub(crate) fn all(problems: Vec<Problem>) -> Self {
        let exit = problems.first().map_or(Exit::Failed, Exit::of);
        Self::Problems { problems, exit }
    }

    /// A problem of [`CODES`], with its hint.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        problem(code, message).into()
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Problems { exit, .. } => *exit,
            Self::BrokenPipe => Exit::Ok,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// A failed write to standard output.
    pub(crate) fn of_output(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::new("output.write", format!("the output cannot be written: {error}"))
    }

    /// Tells it on standard error: as text, or as one JSON object where the user asked for JSON.
    pub(crate) fn report(&self, json: bool) {
        let Self::Problems { problems, .. } = self else { return };
        let text = if json {
            let document = serde_json::json!({ "problems": problems, "exitCode": self.exit().code() });
            format!("{document:#}\n")
        } else {
            let mut text: String =
                problems.iter().take(SHOWN).map(|problem| render("error", AnsiColor::Red, problem)).collect();
            if problems.len() > SHOWN {
                text += &format!("and {} more like these; `-o json` gives all\n", problems.len() - SHOWN);
            }
            text
        };
        // Where even that cannot be written, the exit code has to do.
        let _ = anstream::stderr().lock().write_all(text.as_bytes());
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problems { exit: Exit::of(&problem), problems: vec![problem] }
    }
}

/// A problem of [`CODES`], with its hint.
pub(crate) fn problem(code: &'static str, message: impl Into<String>) -> Problem {
    let problem = Problem::new(code, message);
    match CODES.iter().find(|(known, ..)| *known == code) {
        Some((_, _, hint)) => problem.hint(*hint),
        None => problem,
    }
}

/// Any error of the crates below.
pub(crate) fn failed(error: &impl Diagnose) -> Failure {
    error.problem().into()
}

/// Tells of something odd that ends nothing.
pub(crate) fn warn(problem: &Problem) {
    let text = render("warning", AnsiColor::Yellow, problem);
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// A line for people on standard error; never part of the output.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

fn render(word: &str, colour: AnsiColor, problem: &Problem) -> String {
    let head = Style::new().bold().fg_color(Some(colour.into()));
    let dim = Style::new().dimmed();
    let mut text = format!("{head}{word}[{}]{head:#}: {}\n", problem.code, clean(&problem.message));
    for (label, value) in [
        ("found:", &problem.found),
        ("expected:", &problem.expected),
        ("at:", &problem.at),
        ("hint:", &problem.hint),
    ] {
        if let Some(value) = value {
            // A hint may be of several lines; it is ours.
            let value = if label == "hint:" { value.clone() } else { clean(value) };
            text += &format!("  {dim}{label:<9}{dim:#} {value}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_sorted_and_told_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_problem_is_told_with_its_difference_its_place_and_what_to_do() {
        let problem = Problem::new("a.b", "it is wrong").difference("x", "y").at("f:1").hint("mend it");
        let text = anstream::adapter::strip_str(&render("error", AnsiColor::Red, &problem)).to_string();
        assert_eq!(
            text,
            "error[a.b]: it is wrong\n  found:    x\n  expected: y\n  at:       f:1\n  hint:     mend it\n"
        );
    }
}
