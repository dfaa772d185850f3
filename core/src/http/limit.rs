//! How often somebody may try: refused tokens an address, requests a token. Token buckets in bounded memory.
//!
//! A right token is let in whatever others try: with 256 bits nobody guesses one. Tokens that are derived from one count
//! as that one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use secrecy::SecretString;

use super::ApiError;
use super::listener::Peer;
use crate::auth::{Bearer, shown};
use crate::platform::App;
use crate::settings::Limits;

/// Most buckets kept at once, at about a hundred bytes each.
const MAX_BUCKETS: usize = 20_000;
/// Loopback is shared by all clients of a proxy on this machine.
const LOOPBACK: f64 = 10.0;
/// Seconds' worth of requests that a token may make at once.
const REQUEST_BURST: f64 = 20.0;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// Refused tokens of an address.
    Address(IpAddr),
    /// Requests with a token, or with one that is derived from it, by its id.
    Token(String),
}

/// How many at once, and how many a second from then on.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: f64,
    a_second: f64,
}

#[derive(Debug)]
struct Bucket {
    level: f64,
    rate: Rate,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            level: rate.burst,
            rate,
            at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.rate.a_second).min(self.rate.burst);
        self.at = now;
    }

    /// How long until there is one to take.
    fn wait(&self) -> Option<Duration> {
        let lacking = 1.0 - self.level;
        (lacking > 0.0).then(|| Duration::from_secs_f64(lacking / self.rate.a_second))
    }
}

/// All buckets of a server.
pub(crate) struct Limiter {
    failed_logins: f64,
    requests_per_second: f64,
    buckets: Mutex<HashMap<Key, Bucket>>,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            failed_logins: f64::from(limits.failed_logins.max(1)),
            requests_per_second: f64::from(limits.requests_per_second.max(1)),
            buckets: Mutex::default(),
        }
    }

    fn rate(&self, key: &Key) -> Rate {
        let local = |ip: &IpAddr| if ip.is_loopback() { LOOPBACK } else { 1.0 };
        match key {
            Key::Address(ip) => Rate {
                burst: self.failed_logins * local(ip),
                a_second: local(ip),
            },
            Key::Token(_) => Rate {
                burst: self.requests_per_second * REQUEST_BURST,
                a_second: self.requests_per_second,
            },
        }
    }

    /// Counts a request with a token, and says how long to wait where it was one too many.
    pub(super) fn request(&self, root_token: &str) -> Option<Duration> {
        self.count(Key::Token(root_token.to_owned()), Instant::now())
    }

    /// Counts one, and says how long to wait where it was one too many.
    fn count(&self, key: Key, now: Instant) -> Option<Duration> {
        let rate = self.rate(&key);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            make_room(&mut buckets, now);
        }
        let bucket = buckets
            .entry(key)
            .or_insert_with(|| Bucket::full(rate, now));
        bucket.fill(now);
        let wait = bucket.wait();
        if wait.is_none() {
            bucket.level -= 1.0;
        }
        wait
    }
}

/// Forgets those that have filled again, and where that is not much, the half that was not asked for the longest.
fn make_room(buckets: &mut HashMap<Key, Bucket>, now: Instant) {
    buckets.retain(|_, bucket| {
        let touched = bucket.at;
        bucket.fill(now);
        bucket.at = touched;
        bucket.level < bucket.rate.burst
    });
    if buckets.len() > MAX_BUCKETS / 2 {
        let mut times: Vec<_> = buckets.values().map(|bucket| bucket.at).collect();
        let (_, &mut median, _) = times.select_nth_unstable(buckets.len() / 2);
        buckets.retain(|_, bucket| bucket.at > median);
    }
}

/// Refuses who tries too often with 429, and counts the others. Whose token was shown is known from here on.
pub(crate) async fn limit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let ip = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| {
        network(peer.0.ip())
    });
    let token = shown(request.headers());
    let registry = request.uri().path().starts_with("/v2");
    // A form may hold the token in the place of the header.
    let tries = token.is_some() || request.method() == Method::POST;
    let bearer = find(&app, token).await;
    let is_known = bearer.is_some();
    if let Some(bearer) = bearer {
        if let Some(wait) = app.limiter.request(bearer.root_token()) {
            return refusal(registry, wait);
        }
        request.extensions_mut().insert(Arc::new(bearer));
    }
    let response = next.run(request).await;
    // A token that holds may be refused for what it may not do, which is no guess.
    let is_wrong = tries && !is_known && response.status() == StatusCode::UNAUTHORIZED;
    let counted = || app.limiter.count(Key::Address(ip), Instant::now());
    match is_wrong.then(counted).flatten() {
        None => response,
        Some(wait) => {
            tracing::warn!(%ip, "too many refused tokens from this address");
            refusal(registry, wait)
        }
    }
}

/// Whose token it is, where it holds.
async fn find(app: &App, token: Option<SecretString>) -> Option<Bearer> {
    let (access, token) = (Arc::clone(&app.registry), token?);
    let look = tokio::task::spawn_blocking(move || access.identify(&token));
    // Where this fails, whoever looks again says so.
    look.await.ok()?.ok()?
}

/// Whoever has one address of a network of IPv6 has all of its 2^64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))
        }
        ip => ip,
    }
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(1)
}

/// Counts a request that shows its token in its body.
pub(super) fn admit(app: &App, root_token: &str) -> Result<(), ApiError> {
    match app.limiter.request(root_token) {
        None => Ok(()),
        Some(wait) => Err(ApiError::too_many_requests(seconds(wait))),
    }
}

fn refusal(registry: bool, wait: Duration) -> Response {
    let seconds = seconds(wait);
    if registry {
        return registry::too_many_requests(seconds);
    }
    ApiError::too_many_requests(seconds).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> Limiter {
        Limiter::new(&Limits {
            failed_logins: 10,
            requests_per_second: 5,
            ..Limits::default()
        })
    }

    fn address(text: &str) -> Key {
        Key::Address(network(text.parse().unwrap()))
    }

    #[test]
    fn a_bucket_is_used_up_and_fills_again() {
        let limiter = limiter();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let key = || address("192.0.2.1");
        for _ in 0..10 {
            assert_eq!(limiter.count(key(), start), None);
        }
        assert_eq!(limiter.count(key(), start).unwrap(), Duration::from_secs(1));
        assert_eq!(limiter.count(address("192.0.2.2"), start), None);
        assert_eq!(limiter.count(key(), at(1)), None);
        assert!(limiter.count(key(), at(1)).is_some());
        for _ in 0..10 {
            assert_eq!(limiter.count(key(), at(1000)), None);
        }
        assert!(limiter.count(key(), at(1000)).is_some());
    }

    #[test]
    fn this_machine_may_try_ten_times_as_often() {
        let (limiter, now) = (limiter(), Instant::now());
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.2"] {
            let passed = (0..200).filter(|_| limiter.count(address(ip), now).is_none());
            assert_eq!(passed.count(), 100, "{ip}");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn memory_is_bounded_however_many_addresses_try() {
        let (limiter, start) = (limiter(), Instant::now());
        for index in 0..3 * u32::try_from(MAX_BUCKETS).unwrap() {
            let at = start + Duration::from_micros(index.into());
            let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + index);
            assert_eq!(limiter.count(Key::Address(ip.into()), at), None);
            let buckets = limiter.buckets.lock().unwrap().len();
            assert!(buckets <= MAX_BUCKETS, "{buckets}");
        }
    }
}
