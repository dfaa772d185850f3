//! Progress on a terminal: one moving line for the step that runs, one lasting line for each that
//! ended.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deploy_pipeline::events::{Event, Reporter};
use deploy_plan::failure::Step;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Layers, bytes};

/// The lines of a run.
pub(crate) struct Terminal {
    colour: bool,
    /// Held while an event is shown, so that the lines of two threads do not mix.
    moving: Mutex<Moving>,
}

/// The line of the step that runs; hidden between two steps.
struct Moving {
    bar: ProgressBar,
    layers: Layers,
}

impl Moving {
    fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            layers: Layers::default(),
        }
    }

    fn of(name: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {prefix:<9} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style);
        bar.set_prefix(name);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            bar,
            layers: Layers::default(),
        }
    }

    /// A lasting line above the moving one.
    fn line(&self, text: &str) {
        self.bar.suspend(|| super::err(&format!("{text}\n")));
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
        moving.bar.finish_and_clear();
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
            Event::Output(text) | Event::LogLine(text) | Event::Note(text) => moving.line(&text),
            Event::Layer { .. } => {
                if let Some((sent, size)) = moving.layers.take(&event) {
                    let message = format!("{} of {}", bytes(sent), bytes(size));
                    moving.bar.set_message(message);
                }
            }
            Event::State { state, message } => {
                moving.bar.set_message(format!("{state}: {message}"));
            }
            Event::Warning(text) => {
                moving.line(&format!("{} {text}", self.paint("33", "warning:")));
            }
        }
    }
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
