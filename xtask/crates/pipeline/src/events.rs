//! What a pipeline tells while it runs.

use deploy_plan::failure::Step;

/// Something that happened. Texts are free of secrets by the time a reporter sees them.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A step began.
    Started(Step),
    /// A step ended well; the text says what it did.
    Done {
        /// The step.
        step: Step,
        /// What it did, in words.
        summary: String,
        /// How long it took.
        seconds: f64,
    },
    /// A step was not needed; the text says why.
    Skipped(Step, String),
    /// A step failed.
    Failed(Step, f64),
    /// Cargo finished a crate.
    Built {
        /// Crates finished.
        done: usize,
        /// Crates in all, as far as known.
        total: usize,
        /// The crate.
        name: String,
    },
    /// A message of cargo, the compiler, npm or Docker, as it would have printed it.
    Output(String),
    /// A passing line of progress of such a program.
    Progress(String),
    /// A layer of the image on its way.
    Layer {
        /// Its digest, shortened.
        digest: String,
        /// Where it stands.
        state: LayerState,
        /// Bytes sent so far.
        sent: u64,
        /// Bytes in all.
        size: u64,
    },
    /// The deployment came to a state.
    State {
        /// As the platform calls it.
        state: String,
        /// In words.
        message: String,
    },
    /// A line of the application's log.
    LogLine(String),
    /// Something that deserves a look but stops nothing.
    Warning(String),
    /// A fact worth a line.
    Note(String),
}

/// Where a layer stands on its way to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// The registry has it.
    Exists,
    /// It was mounted from another repository.
    Mounted,
    /// It was written into the registry's own store when it was made.
    Placed,
    /// It is being sent.
    Sending,
    /// It has been sent.
    Sent,
}

impl LayerState {
    /// In a word, for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Exists => "there already",
            Self::Mounted => "mounted",
            Self::Placed => "in place",
            Self::Sending => "sending",
            Self::Sent => "sent",
        }
    }
}

/// Takes events. Called from several threads during a push.
pub trait Reporter: Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// A reporter that keeps quiet.
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event) {}
}
