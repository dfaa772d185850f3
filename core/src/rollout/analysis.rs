//! Whether a release that is being watched is good, from what was seen of it and of the old one. Pure.
//!
//! Both are seen at the same time through the same proxy, so that what is wrong with the machine or with a
//! database that both use does not count against the new release.

use std::time::Duration;

use proxy::{BOUNDS, Histogram, Measures};

use crate::deployments::Thresholds;

/// Below this a release is quick, however much quicker the other one is: histograms are coarse there.
const QUICK: Duration = Duration::from_millis(50);

/// So many times as bad is worse and no accident: what both releases suffer from comes to them unevenly.
const CLEARLY: f64 = 1.5;
/// From so many answers on the slow ones among them are no accident. Of fewer, one kind of slow request that came to one release
/// only would decide; then the median has to speak as well.
const SURE: u64 = 200;

/// What is to be done about the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing speaks against it.
    Pass,
    /// It is bad, for this reason.
    Fail(String),
    /// Nobody can say, for this reason.
    Inconclusive(String),
}

type Times = [u64; BOUNDS.len() + 1];

/// Requests to the instances of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    /// All of them.
    pub(super) requests: u64,
    /// Those that were answered 5xx or not at all.
    pub(super) errors: u64,
    /// Answers by time: one count for each bound and one above all of them.
    times: Times,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            requests: 0,
            errors: 0,
            times: [0; BOUNDS.len() + 1],
        }
    }
}

impl Sample {
    /// What the proxy has seen of one instance.
    pub(super) fn of(measures: &Measures) -> Self {
        let classes = &measures.responses;
        let answers = classes.informational
            + classes.success
            + classes.redirection
            + classes.client_error
            + classes.server_error;
        Self {
            requests: answers + measures.failures,
            errors: classes.server_error + measures.failures,
            times: times(&measures.latency),
        }
    }

    /// Adds one request that was made up.
    pub(super) fn record(&mut self, good: bool, took: Duration) {
        self.requests += 1;
        self.errors += u64::from(!good);
        let place = BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        self.times[place] += 1;
    }

    /// Adds another sample.
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (sum, count) in self.times.iter_mut().zip(other.times) {
            *sum += count;
        }
    }

    /// What has come since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut times = self.times;
        for (count, old) in times.iter_mut().zip(before.times) {
            *count = count.saturating_sub(old);
        }
        Self {
            requests: self.requests.saturating_sub(before.requests),
            errors: self.errors.saturating_sub(before.errors),
            times,
        }
    }

    /// Share of errors, 0 to 1.
    fn error_share(&self) -> f64 {
        if self.requests == 0 {
            return 0.0;
        }
        ratio(self.errors, self.requests)
    }

    fn answers(&self) -> u64 {
        self.times.iter().sum()
    }

    /// The time within which so many of 100 answers came, interpolated within a bucket.
    fn percentile(&self, percent: u64) -> Option<Duration> {
        let answers = self.answers();
        // The one that the rest is slower than, counted from 1.
        let wanted = answers - answers * (100 - percent) / 100;
        let mut before = 0;
        for (place, count) in self.times.iter().enumerate() {
            if *count > 0 && before + count >= wanted {
                let low = place.checked_sub(1).map_or(0.0, |at| BOUNDS[at]);
                let high = BOUNDS.get(place).copied().unwrap_or(low);
                let within = ratio(wanted - before, *count);
                return Some(Duration::from_secs_f64(low + (high - low) * within));
            }
            before += count;
        }
        None
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^52"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Cumulative counts taken apart.
fn times(histogram: &Histogram) -> Times {
    let mut times = [0; BOUNDS.len() + 1];
    let mut before = 0;
    for (time, bucket) in times.iter_mut().zip(&histogram.buckets) {
        *time = bucket.count.saturating_sub(before);
        before = bucket.count;
    }
    times[BOUNDS.len()] = histogram.count.saturating_sub(before);
    times
}

/// Judges the new release. `old` is empty where none served before: then only the absolute thresholds count.
pub(super) fn judge(thresholds: &Thresholds, new: &Sample, old: &Sample) -> Verdict {
    if new.requests < thresholds.min_requests {
        return Verdict::Inconclusive(format!(
            "{} requests are too few to judge by, {} are needed",
            new.requests, thresholds.min_requests
        ));
    }
    let errors = new.error_share();
    // A single request that failed excuses nothing.
    let old_errors = if old.requests >= thresholds.min_requests {
        old.error_share()
    } else {
        0.0
    };
    if errors > thresholds.max_errors && errors > old_errors * CLEARLY {
        return Verdict::Fail(format!(
            "{} of {} requests failed, {:.1} %; at most {:.1} % may{}",
            new.errors,
            new.requests,
            errors * 100.0,
            thresholds.max_errors * 100.0,
            compared(old, || format!("{:.1} %", old_errors * 100.0)),
        ));
    }
    slowness(thresholds, new, old).map_or(Verdict::Pass, Verdict::Fail)
}

/// In which way it is too slow.
fn slowness(thresholds: &Thresholds, new: &Sample, old: &Sample) -> Option<String> {
    let p95 = new.percentile(95).filter(|p95| *p95 > QUICK)?;
    let known = (old.requests >= thresholds.min_requests).then(|| old.percentile(95));
    let old_p95 = known.flatten();
    let milliseconds = |time: Duration| format!("{} ms", time.as_millis());
    let slower = old_p95.is_none_or(|old| p95 > old.mul_f64(CLEARLY));
    if p95 > thresholds.max_p95 && slower {
        return Some(format!(
            "95 % of its answers come within {}; they may take {}{}",
            milliseconds(p95),
            milliseconds(thresholds.max_p95),
            compared(old, || old_p95
                .map_or_else(|| "unknown".to_owned(), milliseconds)),
        ));
    }
    let ratio = thresholds.max_p95_ratio;
    let sure = new.answers().min(old.answers()) >= SURE;
    let median = |sample: &Sample| sample.percentile(50).unwrap_or_default();
    let shifted = || median(new) > QUICK.max(median(old).mul_f64(ratio));
    (p95 > old_p95?.mul_f64(ratio) && (sure || shifted())).then(|| {
        format!(
            "95 % of its answers come within {}, of the old release's within {}: more than {} times as long",
            milliseconds(p95),
            milliseconds(old_p95.unwrap_or_default()),
            ratio
        )
    })
}

fn compared(old: &Sample, what: impl FnOnce() -> String) -> String {
    if old.requests == 0 {
        return String::new();
    }
    format!(" (the old release: {})", what())
}

#[cfg(test)]
mod tests {
    use management_api::types::{AnalysisSettings, RolloutSettings};
    use proxy::{Bucket, Classes};

    use super::*;

    fn thresholds() -> Thresholds {
        let analysis = AnalysisSettings {
            min_requests: Some(20),
            ..AnalysisSettings::default()
        };
        Thresholds::of(&RolloutSettings {
            analysis: Some(analysis),
            ..RolloutSettings::default()
        })
    }

    /// So many requests, so many of them bad, each as long as `ms`.
    fn sample(requests: u64, errors: u64, ms: u64) -> Sample {
        let mut sample = Sample::default();
        for number in 0..requests {
            sample.record(number >= errors, Duration::from_millis(ms));
        }
        sample
    }

    fn verdict(new: &Sample, old: &Sample) -> Verdict {
        judge(&thresholds(), new, old)
    }

    fn reason(new: &Sample, old: &Sample) -> String {
        match verdict(new, old) {
            Verdict::Fail(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn too_few_requests_say_nothing_not_even_when_all_are_bad() {
        let verdict = verdict(&sample(19, 19, 1), &sample(500, 0, 1));
        assert!(matches!(verdict, Verdict::Inconclusive(why) if why.starts_with("19 requests")));
    }

    #[test]
    fn errors_count_only_where_the_old_release_has_fewer() {
        let nothing = Sample::default();
        assert_eq!(verdict(&sample(100, 5, 1), &nothing), Verdict::Pass);
        assert_eq!(
            reason(&sample(100, 6, 1), &nothing),
            "6 of 100 requests failed, 6.0 %; at most 5.0 % may"
        );
        let why = reason(&sample(100, 6, 1), &sample(1000, 10, 1));
        assert!(why.ends_with("(the old release: 1.0 %)"), "{why}");
        assert_eq!(
            verdict(&sample(100, 50, 1), &sample(100, 60, 1)),
            Verdict::Pass
        );
    }

    #[test]
    fn what_both_suffer_from_is_nobodys_fault_and_one_request_is_no_excuse() {
        let both = |new, old| verdict(&sample(100, new, 1), &sample(100, old, 1));
        assert_eq!(both(11, 10), Verdict::Pass);
        assert!(matches!(both(16, 10), Verdict::Fail(_)));
        reason(&sample(100, 60, 1), &sample(1, 1, 1));
        assert_eq!(
            verdict(&sample(45, 0, 1200), &sample(100, 0, 1200)),
            Verdict::Pass
        );
    }

    #[test]
    fn slowness_is_absolute_and_relative() {
        let nothing = Sample::default();
        assert_eq!(verdict(&sample(50, 0, 900), &nothing), Verdict::Pass);
        assert!(reason(&sample(50, 0, 2000), &nothing).contains("they may take 1000 ms"));
        // Both are slow: it is not the new release.
        assert_eq!(
            verdict(&sample(50, 0, 2000), &sample(50, 0, 2000)),
            Verdict::Pass
        );
        let why = reason(&sample(50, 0, 400), &sample(50, 0, 20));
        assert!(why.contains("more than 3 times as long"), "{why}");
        // Quick is quick, and a few answers of the old one are no measure.
        assert_eq!(
            verdict(&sample(50, 0, 20), &sample(50, 0, 1)),
            Verdict::Pass
        );
        assert_eq!(
            verdict(&sample(50, 0, 400), &sample(5, 0, 20)),
            Verdict::Pass
        );
    }

    #[test]
    fn a_percentile_lies_in_its_bucket() {
        let p95 = |sample: &Sample| sample.percentile(95).map(|time| time.as_micros());
        let mut mixed = sample(95, 0, 4);
        assert_eq!(p95(&mixed), Some(4894));
        mixed.add(&sample(5, 0, 700));
        assert_eq!(p95(&mixed), Some(5000));
        mixed.add(&sample(10, 0, 700));
        assert!(p95(&mixed) > Some(500_000));
        assert_eq!(p95(&Sample::default()), None);
        assert_eq!(p95(&sample(1, 0, 90_000)), Some(60_000_000));
    }

    #[test]
    fn whoever_is_within_a_limit_of_their_own_is_not_called_slow() {
        let limit = |ms| Thresholds {
            max_p95: Duration::from_millis(ms),
            ..thresholds()
        };
        let nothing = Sample::default();
        for took in (60..20_000).step_by(37) {
            let new = sample(50, 0, took);
            assert_eq!(
                judge(&limit(took + took / 4), &new, &nothing),
                Verdict::Pass
            );
            let failed = judge(&limit(took - took / 4), &new, &nothing);
            assert!(matches!(failed, Verdict::Fail(_)), "{took} ms");
        }
        // Nor is one that takes twice as long as the old one, by its time.
        for took in (60..20_000).step_by(37) {
            let (new, old) = (sample(50, 0, 2 * took), sample(50, 0, took));
            let lenient = Thresholds {
                max_p95: Duration::from_mins(1),
                ..thresholds()
            };
            assert_eq!(judge(&lenient, &new, &old), Verdict::Pass, "{took} ms");
        }
    }

    #[test]
    fn a_few_slow_requests_of_one_kind_are_no_slow_release() {
        let (mut new, mut old) = (sample(40, 0, 2), sample(97, 0, 2));
        new.add(&sample(5, 0, 160));
        old.add(&sample(3, 0, 160));
        assert_eq!(verdict(&new, &old), Verdict::Pass);
        // Nor is one that is still warming up, as long as it is quick.
        let mut cold = sample(40, 0, 9);
        cold.add(&sample(5, 0, 160));
        assert_eq!(verdict(&cold, &old), Verdict::Pass);
        let (mut new, old) = (sample(400, 0, 2), sample(1000, 0, 2));
        new.add(&sample(50, 0, 160));
        assert!(reason(&new, &old).contains("times as long"));
    }

    #[test]
    fn the_proxys_measures_are_read_and_subtracted() {
        let mut buckets: Vec<Bucket> = BOUNDS.map(|le| Bucket { le, count: 7 }).into();
        buckets[0].count = 3;
        let measures = Measures {
            responses: Classes {
                success: 6,
                server_error: 2,
                ..Classes::default()
            },
            failures: 1,
            latency: Histogram {
                buckets,
                sum: Duration::ZERO,
                count: 8,
            },
        };
        let seen = Sample::of(&measures);
        assert_eq!((seen.requests, seen.errors), (9, 3));
        assert_eq!(
            (seen.times[0], seen.times[1], seen.times[BOUNDS.len()]),
            (3, 4, 1)
        );
        assert_eq!(seen.since(&seen), Sample::default());
        // An instance that has gone takes its counts along.
        assert_eq!(Sample::default().since(&seen), Sample::default());
    }
}
