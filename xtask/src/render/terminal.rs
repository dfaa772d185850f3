//! Progress on a terminal: one moving line for the step that runs, one lasting line for each that
//! ended.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deploy_pipeline::events::{Event, Reporter};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Layers, bytes};

/// The moving line and what it is made from.
pub(crate) struct Terminal {
    bar: ProgressBar,
    colour: bool,
    layers: Mutex<Layers>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {prefix:<9} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style);
        Self {
            bar,
            colour: std::env::var_os("NO_COLOR").is_none(),
            layers: Mutex::default(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn started(&self, name: &'static str) {
        self.bar.set_prefix(name);
        self.bar.set_message("");
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// Nothing moves between two steps: the lasting lines are all there is.
    fn line(&self, text: &str) {
        self.bar.suspend(|| super::err(&format!("{text}\n")));
    }

    fn ended(&self, mark: &str, name: &str, seconds: Option<f64>, summary: &str) {
        self.bar.disable_steady_tick();
        self.bar.set_message("");
        let time = seconds.map_or_else(|| " ".repeat(9), |seconds| format!("{seconds:>7.2} s"));
        let time = self.paint("2", &time);
        self.line(&format!("{mark} {name:<9} {time}  {summary}"));
        self.bar.finish_and_clear();
        self.bar.reset();
    }
}

impl Reporter for Terminal {
    fn event(&self, event: Event) {
        // Held throughout, so that the lines of two threads do not mix.
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started(step) => {
                *layers = Layers::default();
                self.started(step.name());
            }
            Event::Done {
                step,
                summary,
                seconds,
            } => self.ended(&self.paint("32", "✓"), step.name(), Some(seconds), &summary),
            Event::Failed(step, seconds) => {
                self.ended(&self.paint("31", "✗"), step.name(), Some(seconds), "");
            }
            Event::Skipped(step, why) => {
                let why = self.paint("2", &format!("skipped: {why}"));
                self.ended(&self.paint("2", "·"), step.name(), None, &why);
            }
            Event::Built { done, total, name } => {
                self.bar
                    .set_message(format!("{} {name}", gauge(done, total)));
            }
            Event::Progress(text) => self.bar.set_message(text),
            Event::Output(text) | Event::LogLine(text) | Event::Note(text) => self.line(&text),
            Event::Layer { .. } => {
                if let Some((sent, size)) = layers.take(&event) {
                    self.bar
                        .set_message(format!("{} of {}", bytes(sent), bytes(size)));
                }
            }
            Event::State { state, message } => {
                self.bar.set_message(format!("{state}: {message}"));
            }
            Event::Warning(text) => self.line(&format!("{} {text}", self.paint("33", "warning:"))),
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
