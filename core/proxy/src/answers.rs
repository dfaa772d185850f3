//! Answers by class and by time: counted of a whole proxy and of each of its instances, in the
//! same buckets, so that the one can be held against the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

/// Upper bounds of the latency buckets, in seconds. Those of the Prometheus clients, extended
/// downwards for answers from the same machine and upwards to the default answer time-out; and where
/// somebody may be called slow, others between, none of which is far from the next: what all answers
/// of a bucket took can be told by a fifth.
pub const BOUNDS: [f64; 55] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.14, 0.16, 0.18,
    0.2, 0.225, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0,
    2.25, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0,
    25.0, 30.0, 40.0, 50.0, 60.0,
];

/// Answers by the first digit of their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// 1xx: switched protocols.
    pub informational: u64,
    /// 2xx.
    pub success: u64,
    /// 3xx.
    pub redirection: u64,
    /// 4xx.
    pub client_error: u64,
    /// 5xx.
    pub server_error: u64,
}

/// A cumulative histogram, in the shape Prometheus takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Buckets in rising order; the unbounded one is `count`.
    pub buckets: Vec<Bucket>,
    /// Sum of all measured times.
    pub sum: Duration,
    /// Number of measured times.
    pub count: u64,
}

/// One bucket of a [`Histogram`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Upper bound in seconds, inclusive.
    pub le: f64,
    /// Number of times at or below the bound.
    pub count: u64,
}

/// The living counters behind [`Classes`] and a [`Histogram`].
#[derive(Debug)]
pub(crate) struct Answers {
    classes: [AtomicU64; 5],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    latency_nanos: AtomicU64,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            classes: Default::default(),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            latency_nanos: AtomicU64::new(0),
        }
    }
}

impl Answers {
    pub(crate) fn count(&self, status: StatusCode, latency: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        add(&self.classes[class], 1);
        let bucket = BOUNDS.partition_point(|bound| *bound < latency.as_secs_f64());
        add(&self.buckets[bucket], 1);
        add(
            &self.latency_nanos,
            u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX),
        );
    }

    pub(crate) fn classes(&self) -> Classes {
        let [
            informational,
            success,
            redirection,
            client_error,
            server_error,
        ] = self.classes.each_ref().map(get);
        Classes {
            informational,
            success,
            redirection,
            client_error,
            server_error,
        }
    }

    pub(crate) fn latency(&self) -> Histogram {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += get(bucket);
            if let Some(&le) = BOUNDS.get(index) {
                buckets.push(Bucket { le, count });
            }
        }
        Histogram {
            buckets,
            sum: Duration::from_nanos(get(&self.latency_nanos)),
            count,
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_every_bucket_at_or_above_it() {
        let answers = Answers::default();
        answers.count(StatusCode::OK, Duration::from_millis(1));
        answers.count(StatusCode::NOT_FOUND, Duration::from_millis(30));
        answers.count(StatusCode::BAD_GATEWAY, Duration::from_secs(90));
        let latency = answers.latency();
        let at = |le: f64| {
            let found = latency.buckets.iter().find(|bucket| bucket.le >= le);
            found.map(|bucket| bucket.count)
        };
        assert_eq!(at(0.001), Some(1));
        assert_eq!(at(0.025), Some(1));
        assert_eq!(at(0.05), Some(2));
        assert_eq!(at(60.0), Some(2));
        assert_eq!(latency.count, 3);
        assert_eq!(latency.sum, Duration::from_millis(90_031));
        let classes = Classes {
            success: 1,
            client_error: 1,
            server_error: 1,
            ..Classes::default()
        };
        assert_eq!(answers.classes(), classes);
    }
}
