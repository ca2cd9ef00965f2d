//! Progress on standard error: only where a person watches, and never part of the output.

use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress goes, if anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bars: MultiProgress,
    shown: bool,
}

impl Progress {
    /// Shown where standard error is a terminal, unless hidden.
    pub(crate) fn new(hidden: bool) -> Self {
        let shown = !hidden && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), shown }
    }

    /// Whether anybody watches.
    pub(crate) fn is_shown(&self) -> bool {
        self.shown
    }

    /// A bar of so many steps.
    pub(crate) fn bar(&self, label: impl Into<String>, steps: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:>14} {bar:24.cyan/blue} {pos:>5}/{len} {msg}");
        let bar = self.bars.add(ProgressBar::new(steps));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(label.into());
        bar
    }

    /// Takes all bars away.
    pub(crate) fn clear(&self) {
        // A terminal that is gone needs no clearing.
        let _ = self.bars.clear();
    }
}
