//! Counters of one proxy. They only ever grow, except for the gauges `in_flight` and `tunnels`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

/// Upper bounds of the latency buckets, in seconds. Those of the Prometheus clients, extended
/// downwards for answers from the same machine and upwards to the default answer time-out.
const BOUNDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// A reading of the counters.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// Requests received, answered or not.
    pub requests: u64,
    /// Answers sent, by class, the proxy's own errors included.
    pub responses: Classes,
    /// Answers that the proxy made itself because the instance gave none.
    pub failures: u64,
    /// Requests sent a second time after a connection failed.
    pub retries: u64,
    /// Requests and tunnels that have an instance right now.
    pub in_flight: u64,
    /// Tunnels open right now; part of `in_flight`.
    pub tunnels: u64,
    /// Client connections accepted.
    pub connections: u64,
    /// Body and tunnel bytes from clients to instances.
    pub bytes_in: u64,
    /// Body and tunnel bytes from instances to clients.
    pub bytes_out: u64,
    /// Times from the head of a request to the head of its answer.
    pub latency: Histogram,
}

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

/// The living counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    classes: [AtomicU64; 5],
    failures: AtomicU64,
    retries: AtomicU64,
    in_flight: AtomicU64,
    tunnels: AtomicU64,
    connections: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
    latency_nanos: AtomicU64,
}

impl Counters {
    pub(crate) fn connected(&self) {
        add(&self.connections, 1);
    }

    pub(crate) fn requested(&self) {
        add(&self.requests, 1);
    }

    pub(crate) fn retried(&self) {
        add(&self.retries, 1);
    }

    pub(crate) fn failed(&self) {
        add(&self.failures, 1);
    }

    pub(crate) fn answered(&self, status: StatusCode, latency: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        add(&self.classes[class], 1);
        let bucket = BOUNDS.partition_point(|bound| *bound < latency.as_secs_f64());
        add(&self.buckets[bucket], 1);
        add(
            &self.latency_nanos,
            u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX),
        );
    }

    pub(crate) fn flight_began(&self) {
        add(&self.in_flight, 1);
    }

    pub(crate) fn flight_ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn tunnel_began(&self) {
        add(&self.tunnels, 1);
    }

    pub(crate) fn tunnel_ended(&self) {
        self.tunnels.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        add(&self.bytes_in, bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.bytes_out, bytes as u64);
    }

    pub(crate) fn read(&self) -> Stats {
        let [
            informational,
            success,
            redirection,
            client_error,
            server_error,
        ] = self.classes.each_ref().map(get);
        Stats {
            requests: get(&self.requests),
            responses: Classes {
                informational,
                success,
                redirection,
                client_error,
                server_error,
            },
            failures: get(&self.failures),
            retries: get(&self.retries),
            in_flight: get(&self.in_flight),
            tunnels: get(&self.tunnels),
            connections: get(&self.connections),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            latency: self.histogram(),
        }
    }

    fn histogram(&self) -> Histogram {
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
        let counters = Counters::default();
        counters.answered(StatusCode::OK, Duration::from_millis(1));
        counters.answered(StatusCode::NOT_FOUND, Duration::from_millis(30));
        counters.answered(StatusCode::BAD_GATEWAY, Duration::from_secs(90));
        let stats = counters.read();
        let at = |le: f64| {
            let found = stats.latency.buckets.iter().find(|bucket| bucket.le >= le);
            found.map(|bucket| bucket.count)
        };
        assert_eq!(at(0.001), Some(1));
        assert_eq!(at(0.025), Some(1));
        assert_eq!(at(0.05), Some(2));
        assert_eq!(at(60.0), Some(2));
        assert_eq!(stats.latency.count, 3);
        assert_eq!(stats.latency.sum, Duration::from_millis(90_031));
        let classes = Classes {
            success: 1,
            client_error: 1,
            server_error: 1,
            ..Classes::default()
        };
        assert_eq!(stats.responses, classes);
    }
}
