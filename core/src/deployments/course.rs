//! How one rollout goes: its strategy with every setting filled in. Pure.
//!
//! What a request leaves out is filled in when it is accepted and written down with the deployment, so
//! that the same settings hold to the end, whatever the defaults become.

use std::time::Duration;

use management_api::types::{AnalysisSettings, CanaryStep, RolloutSettings};

use super::{Refusal, Strategy};

/// The most instances of one release.
const MAX_REPLICAS: u32 = 100;
/// The longest time that a release may be watched in one go.
const MAX_PAUSE_MS: u64 = 24 * 60 * 60 * 1000;
const MAX_STEPS: usize = 20;
const MAX_PATTERNS: usize = 20;
const MAX_PATTERN_BYTES: usize = 200;
/// A tenth first, then half: two looks before everybody has it, in a minute.
const STEPS: [CanaryStep; 2] = [
    CanaryStep {
        weight: 10,
        pause_ms: Some(30_000),
    },
    CanaryStep {
        weight: 50,
        pause_ms: Some(30_000),
    },
];
/// Enough for a slow return, and not so long that twice the memory is the rule.
const KEEP_WARM_MS: u64 = 5 * 60 * 1000;
/// Errors above 5 % are what people are woken for, and so are answers of more than a second.
const MAX_ERROR_PERCENT: f64 = 5.0;
const MAX_P95_MS: u64 = 1000;
const MAX_P95_RATIO: f64 = 3.0;
const MIN_REQUESTS: u64 = 20;

/// A rollout's way from the old release to the new one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Course {
    /// See [`Strategy::Recreate`].
    Recreate,
    /// See [`Strategy::Rolling`].
    Rolling {
        /// Instances above the replicas while new ones start.
        surge: usize,
        /// Instances below the replicas.
        unavailable: usize,
        /// In which a batch is watched; none goes on at once.
        pause: Option<Duration>,
    },
    /// See [`Strategy::BlueGreen`].
    BlueGreen {
        /// In which the new set is watched after the switch.
        bake: Option<Duration>,
        /// For which the old set stays started after the end.
        keep_warm: Duration,
    },
    /// See [`Strategy::Canary`].
    Canary {
        /// Before all of the traffic.
        steps: Vec<Step>,
    },
}

/// A step of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Per cent of the traffic.
    pub(crate) weight: u32,
    /// In which it is watched; none waits for somebody to promote it.
    pub(crate) pause: Option<Duration>,
}

/// When a release that is watched is bad.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Thresholds {
    /// Requests below which nothing can be said.
    pub(crate) min_requests: u64,
    /// Share of errors, 0 to 1.
    pub(crate) max_errors: f64,
    /// Of the 95th percentile of the answers' times.
    pub(crate) max_p95: Duration,
    /// Of that of the old release.
    pub(crate) max_p95_ratio: f64,
    /// Texts in the log.
    pub(crate) log_patterns: Vec<String>,
    /// Whether requests are made up where there are too few.
    pub(crate) synthetic: bool,
}

/// Every setting of `strategy`, those that were asked for and the defaults of the others.
pub(crate) fn settle(
    strategy: Strategy,
    replicas: u32,
    asked: &RolloutSettings,
) -> Result<RolloutSettings, Refusal> {
    refuse_foreign(strategy, asked)?;
    let mut settled = RolloutSettings {
        analysis: Some(settle_analysis(asked.analysis.as_ref())?),
        ..RolloutSettings::default()
    };
    match strategy {
        Strategy::Recreate => {}
        Strategy::Rolling => {
            let surge = asked.max_surge.unwrap_or(1);
            let unavailable = asked.max_unavailable.unwrap_or(0);
            within(
                "rollout.max_surge",
                u64::from(surge),
                0,
                u64::from(MAX_REPLICAS),
            )?;
            within(
                "rollout.max_unavailable",
                u64::from(unavailable),
                0,
                u64::from(replicas),
            )?;
            if surge == 0 && unavailable == 0 {
                return Err(Refusal::invalid(
                    "rollout.max_surge and rollout.max_unavailable must not both be 0: nothing could move",
                ));
            }
            settled.max_surge = Some(surge);
            settled.max_unavailable = Some(unavailable);
            settled.batch_pause_ms =
                Some(pause("rollout.batch_pause_ms", asked.batch_pause_ms, 0)?);
        }
        Strategy::BlueGreen => {
            settled.bake_ms = Some(pause("rollout.bake_ms", asked.bake_ms, 0)?);
            settled.keep_warm_ms = Some(pause(
                "rollout.keep_warm_ms",
                asked.keep_warm_ms,
                KEEP_WARM_MS,
            )?);
        }
        Strategy::Canary => {
            let steps = asked.steps.clone().unwrap_or_else(|| STEPS.to_vec());
            check_steps(&steps)?;
            settled.steps = Some(steps);
        }
    }
    Ok(settled)
}

/// The replicas that a request asks for.
pub(crate) fn replicas_of(asked: Option<u32>) -> Result<u32, Refusal> {
    let replicas = asked.unwrap_or(1);
    within("replicas", u64::from(replicas), 1, u64::from(MAX_REPLICAS))?;
    Ok(replicas)
}

impl Course {
    /// The course that settled settings describe.
    pub(crate) fn of(strategy: Strategy, settled: &RolloutSettings) -> Self {
        let watched = |ms: Option<u64>| ms.filter(|ms| *ms > 0).map(Duration::from_millis);
        match strategy {
            Strategy::Recreate => Self::Recreate,
            Strategy::Rolling => Self::Rolling {
                surge: settled.max_surge.unwrap_or(1) as usize,
                unavailable: settled.max_unavailable.unwrap_or(0) as usize,
                pause: watched(settled.batch_pause_ms),
            },
            Strategy::BlueGreen => Self::BlueGreen {
                bake: watched(settled.bake_ms),
                keep_warm: Duration::from_millis(settled.keep_warm_ms.unwrap_or(0)),
            },
            Strategy::Canary => {
                let steps = settled.steps.iter().flatten();
                let steps = steps.map(|step| Step {
                    weight: step.weight,
                    pause: step.pause_ms.map(Duration::from_millis),
                });
                Self::Canary {
                    steps: steps.collect(),
                }
            }
        }
    }

    /// The time that passes with watching: it comes on top of the deadline, which is for the work.
    pub(crate) fn planned_pauses(&self, replicas: usize) -> Duration {
        match self {
            Self::Recreate => Duration::ZERO,
            Self::Rolling {
                surge,
                unavailable,
                pause,
            } => {
                let batch = (surge + unavailable).max(1);
                let batches = u32::try_from(replicas.div_ceil(batch)).unwrap_or(u32::MAX);
                pause.unwrap_or_default().saturating_mul(batches)
            }
            Self::BlueGreen { bake, .. } => bake.unwrap_or_default(),
            Self::Canary { steps } => steps.iter().filter_map(|step| step.pause).sum(),
        }
    }
}

impl Thresholds {
    /// The thresholds that settled settings describe.
    pub(crate) fn of(settled: &RolloutSettings) -> Self {
        let analysis = settled.analysis.clone().unwrap_or_default();
        Self {
            min_requests: analysis.min_requests.unwrap_or(MIN_REQUESTS),
            max_errors: analysis.max_error_percent.unwrap_or(MAX_ERROR_PERCENT) / 100.0,
            max_p95: Duration::from_millis(analysis.max_p95_ms.unwrap_or(MAX_P95_MS)),
            max_p95_ratio: analysis.max_p95_ratio.unwrap_or(MAX_P95_RATIO),
            log_patterns: analysis.log_patterns.unwrap_or_default(),
            synthetic: analysis.synthetic.unwrap_or(true),
        }
    }
}

/// A setting of another strategy would be ignored, and whoever gave it would not know.
fn refuse_foreign(strategy: Strategy, asked: &RolloutSettings) -> Result<(), Refusal> {
    for (name, given, of) in [
        ("max_surge", asked.max_surge.is_some(), Strategy::Rolling),
        (
            "max_unavailable",
            asked.max_unavailable.is_some(),
            Strategy::Rolling,
        ),
        (
            "batch_pause_ms",
            asked.batch_pause_ms.is_some(),
            Strategy::Rolling,
        ),
        ("bake_ms", asked.bake_ms.is_some(), Strategy::BlueGreen),
        (
            "keep_warm_ms",
            asked.keep_warm_ms.is_some(),
            Strategy::BlueGreen,
        ),
        ("steps", asked.steps.is_some(), Strategy::Canary),
    ] {
        if given && strategy != of {
            return Err(Refusal::invalid(format!(
                "rollout.{name} is for the strategy {}, not for {}",
                of.as_str(),
                strategy.as_str()
            )));
        }
    }
    Ok(())
}

fn check_steps(steps: &[CanaryStep]) -> Result<(), Refusal> {
    if steps.is_empty() || steps.len() > MAX_STEPS {
        return Err(Refusal::invalid(format!(
            "rollout.steps must have 1 to {MAX_STEPS} steps"
        )));
    }
    let mut before = 0;
    for step in steps {
        within(
            "the weight of a step in rollout.steps",
            u64::from(step.weight),
            1,
            99,
        )?;
        if step.weight <= before {
            return Err(Refusal::invalid(format!(
                "rollout.steps must grow: {} comes after {before}",
                step.weight
            )));
        }
        before = step.weight;
        pause("the pause of a step in rollout.steps", step.pause_ms, 0)?;
    }
    Ok(())
}

fn settle_analysis(asked: Option<&AnalysisSettings>) -> Result<AnalysisSettings, Refusal> {
    let asked = asked.cloned().unwrap_or_default();
    let min_requests = asked.min_requests.unwrap_or(MIN_REQUESTS);
    within("rollout.analysis.min_requests", min_requests, 1, 1_000_000)?;
    let errors = asked.max_error_percent.unwrap_or(MAX_ERROR_PERCENT);
    between("rollout.analysis.max_error_percent", errors, 0.0, 100.0)?;
    let p95 = asked.max_p95_ms.unwrap_or(MAX_P95_MS);
    within("rollout.analysis.max_p95_ms", p95, 1, 10 * 60 * 1000)?;
    let ratio = asked.max_p95_ratio.unwrap_or(MAX_P95_RATIO);
    between("rollout.analysis.max_p95_ratio", ratio, 1.0, 1000.0)?;
    let patterns = asked.log_patterns.unwrap_or_default();
    let sound = |text: &String| (1..=MAX_PATTERN_BYTES).contains(&text.len());
    if patterns.len() > MAX_PATTERNS || !patterns.iter().all(sound) {
        return Err(Refusal::invalid(format!(
            "rollout.analysis.log_patterns takes at most {MAX_PATTERNS} texts of 1 to {MAX_PATTERN_BYTES} bytes"
        )));
    }
    Ok(AnalysisSettings {
        min_requests: Some(min_requests),
        max_error_percent: Some(errors),
        max_p95_ms: Some(p95),
        max_p95_ratio: Some(ratio),
        log_patterns: Some(patterns),
        synthetic: Some(asked.synthetic.unwrap_or(true)),
    })
}

fn pause(name: &str, asked: Option<u64>, default: u64) -> Result<u64, Refusal> {
    let pause = asked.unwrap_or(default);
    within(name, pause, 0, MAX_PAUSE_MS)?;
    Ok(pause)
}

fn within(name: &str, value: u64, least: u64, most: u64) -> Result<(), Refusal> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "{name} must be between {least} and {most}"
    )))
}

fn between(name: &str, value: f64, least: f64, most: f64) -> Result<(), Refusal> {
    // No number is within anything.
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "{name} must be between {least} and {most}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(strategy: Strategy, asked: &RolloutSettings) -> String {
        settle(strategy, 3, asked).unwrap_err().to_string()
    }

    fn steps(weights: &[u32]) -> RolloutSettings {
        let steps = weights.iter().map(|weight| CanaryStep {
            weight: *weight,
            pause_ms: Some(1000),
        });
        RolloutSettings {
            steps: Some(steps.collect()),
            ..RolloutSettings::default()
        }
    }

    #[test]
    fn what_is_settled_stays_so() {
        for strategy in Strategy::ALL {
            let settled = settle(strategy, 3, &RolloutSettings::default()).unwrap();
            assert_eq!(settle(strategy, 3, &settled).unwrap(), settled);
            let json = serde_json::to_string(&settled).unwrap();
            let back: RolloutSettings = serde_json::from_str(&json).unwrap();
            assert_eq!(Course::of(strategy, &back), Course::of(strategy, &settled));
        }
    }

    #[test]
    fn defaults_move_one_at_a_time_and_watch_a_canary_twice() {
        let silent = RolloutSettings::default();
        let rolling = settle(Strategy::Rolling, 3, &silent).unwrap();
        assert_eq!(
            Course::of(Strategy::Rolling, &rolling),
            Course::Rolling {
                surge: 1,
                unavailable: 0,
                pause: None
            }
        );
        let canary = settle(Strategy::Canary, 3, &silent).unwrap();
        let course = Course::of(Strategy::Canary, &canary);
        assert_eq!(course.planned_pauses(3), Duration::from_mins(1));
        let thresholds = Thresholds::of(&canary);
        assert!((thresholds.max_errors - 0.05).abs() < f64::EPSILON);
        assert!(thresholds.synthetic);
    }

    #[test]
    fn pauses_come_once_a_batch() {
        let course = Course::Rolling {
            surge: 1,
            unavailable: 1,
            pause: Some(Duration::from_secs(5)),
        };
        assert_eq!(course.planned_pauses(5), Duration::from_secs(15));
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let refused = refusal(Strategy::Rolling, &steps(&[10]));
        assert_eq!(
            refused,
            "rollout.steps is for the strategy canary, not for rolling"
        );
    }

    #[test]
    fn steps_grow_and_stay_below_everything() {
        for weights in [&[][..], &[0], &[100], &[10, 10], &[50, 10]] {
            refusal(Strategy::Canary, &steps(weights));
        }
        assert!(settle(Strategy::Canary, 1, &steps(&[1, 5, 99])).is_ok());
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let stuck = RolloutSettings {
            max_surge: Some(0),
            ..RolloutSettings::default()
        };
        assert!(refusal(Strategy::Rolling, &stuck).contains("nothing could move"));
        let analysis = |analysis| RolloutSettings {
            analysis: Some(analysis),
            ..RolloutSettings::default()
        };
        let errors = AnalysisSettings {
            max_error_percent: Some(f64::NAN),
            ..AnalysisSettings::default()
        };
        assert!(refusal(Strategy::Canary, &analysis(errors)).contains("max_error_percent"));
        let pattern = AnalysisSettings {
            log_patterns: Some(vec![String::new()]),
            ..AnalysisSettings::default()
        };
        assert!(refusal(Strategy::Canary, &analysis(pattern)).contains("log_patterns"));
        assert_eq!(replicas_of(None), Ok(1));
        assert!(replicas_of(Some(0)).is_err() && replicas_of(Some(101)).is_err());
    }
}
