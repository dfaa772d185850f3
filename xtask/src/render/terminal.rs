//! Progress on a terminal: one moving line for the step that runs, with one for each layer that is
//! sent below it, and one lasting line for each step that ended.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deploy_pipeline::events::{Event, LayerState, Reporter};
use deploy_plan::failure::Step;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The lines of a run.
pub(crate) struct Terminal {
    colour: bool,
    /// Held while an event is shown, so that the lines of two threads do not mix.
    moving: Mutex<Moving>,
}

/// More layers than this at a time would push each other off a small screen.
const LAYERS_SHOWN: usize = 8;

/// The lines of the step that runs; hidden between two steps.
struct Moving {
    all: MultiProgress,
    bar: ProgressBar,
    /// A line each, below that of the step.
    layers: BTreeMap<String, ProgressBar>,
}

impl Moving {
    fn hidden() -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            bar: ProgressBar::hidden(),
            layers: BTreeMap::new(),
        }
    }

    fn of(name: &'static str) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let bar = all.add(ProgressBar::no_length());
        let style = ProgressStyle::with_template("{spinner} {prefix:<9} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style);
        bar.set_prefix(name);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            all,
            bar,
            layers: BTreeMap::new(),
        }
    }

    /// A lasting line above the moving ones.
    fn line(&self, text: &str) {
        self.all.suspend(|| super::err(&format!("{text}\n")));
    }

    /// A layer on its way: bytes, rate and state.
    fn layer(&mut self, digest: &str, state: LayerState, sent: u64, size: u64) {
        if !self.layers.contains_key(digest) {
            if self.layers.len() == LAYERS_SHOWN {
                return;
            }
            let bar = self.all.add(layer_bar(digest, size));
            self.layers.insert(digest.to_owned(), bar);
        }
        let Some(bar) = self.layers.get(digest) else {
            return;
        };
        bar.set_position(sent);
        if state == LayerState::Sending {
            bar.set_message("sending");
        } else {
            bar.abandon_with_message(state.word());
        }
    }

    fn clear(&self) {
        for layer in self.layers.values() {
            layer.finish_and_clear();
        }
        self.bar.finish_and_clear();
    }
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self {
            colour: std::env::var_os("NO_COLOR").is_none(),
            moving: Mutex::new(Moving::hidden()),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// The moving line makes way for the lasting one.
    fn ended(&self, moving: &mut Moving, mark: &str, step: Step, time: Option<f64>, words: &str) {
        moving.clear();
        *moving = Moving::hidden();
        let time = time.map_or_else(|| " ".repeat(9), |seconds| format!("{seconds:>7.2} s"));
        let time = self.paint("2", &time);
        moving.line(&format!("{mark} {:<9} {time}  {words}", step.name()));
    }
}

impl Reporter for Terminal {
    fn event(&self, event: Event) {
        let mut guard = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let moving = &mut *guard;
        match event {
            Event::Started(step) => *moving = Moving::of(step.name()),
            Event::Done {
                step,
                summary,
                seconds,
            } => self.ended(
                moving,
                &self.paint("32", "✓"),
                step,
                Some(seconds),
                &summary,
            ),
            Event::Failed(step, seconds) => {
                self.ended(moving, &self.paint("31", "✗"), step, Some(seconds), "");
            }
            Event::Skipped(step, why) => {
                let why = self.paint("2", &format!("skipped: {why}"));
                self.ended(moving, &self.paint("2", "·"), step, None, &why);
            }
            Event::Built { done, total, name } => {
                moving
                    .bar
                    .set_message(format!("{} {name}", gauge(done, total)));
            }
            Event::Progress(text) => moving.bar.set_message(text),
            Event::Output(text) | Event::LogLine(text) => moving.line(&text),
            Event::Note(text) => moving.line(&super::same_target::text(&text)),
            Event::Layer {
                digest,
                state,
                sent,
                size,
            } => moving.layer(&digest, state, sent, size),
            Event::State { state, message } => {
                moving.bar.set_message(format!("{state}: {message}"));
            }
            Event::Warning(text) => {
                moving.line(&format!("{} {text}", self.paint("33", "warning:")));
            }
        }
    }
}

fn layer_bar(digest: &str, size: u64) -> ProgressBar {
    const TEMPLATE: &str = "  {prefix} {bar:20.dim} {decimal_bytes:>9} of {decimal_total_bytes:>9} {decimal_bytes_per_sec:>12} {msg}";
    let style = ProgressStyle::with_template(TEMPLATE).map_or_else(
        |_| ProgressStyle::default_bar(),
        |style| style.progress_chars("█▓░"),
    );
    // Hidden until it has its place among the others: drawn on its own it would leave a trace.
    ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden())
        .with_style(style)
        .with_prefix(digest.to_owned())
}

/// A bar of twenty places with the count behind it.
fn gauge(done: usize, total: usize) -> String {
    const PLACES: usize = 20;
    let filled = (done * PLACES).checked_div(total).unwrap_or(0).min(PLACES);
    format!(
        "{}{} {done}/{total}",
        "█".repeat(filled),
        "░".repeat(PLACES - filled)
    )
}

#[cfg(test)]
mod tests {
    use super::gauge;

    #[test]
    fn the_gauge_fills_and_never_overflows() {
        assert!(gauge(0, 0).starts_with('░'));
        assert!(gauge(5, 10).starts_with("██████████░"));
        assert_eq!(gauge(12, 10).matches('█').count(), 20);
    }
}
