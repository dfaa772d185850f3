//! What is seen of a new release while it has some of the traffic.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use engines::Instance;
use futures_util::future::{join_all, select_all};
use management_api::types::{Failure, HealthCheck, ProbeKind};
use proxy::Target;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::analysis::{Sample, Verdict, judge};
use super::health::{answers, until_unhealthy};
use super::kept::Kept;
use super::probe::no_longer;
use super::restart::is_done;
use super::run::Part;
use super::{failure, instances};
use crate::deployments::{Service, Thresholds};
use crate::logs::{Filter, Follower, MAX_LINES};
use crate::tenant::Tenant;

/// So many looks a pause, unless that makes them too rare or too many; and so many until there is enough to judge
/// by where there is no pause.
const LOOKS: u32 = 20;
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// A request that is made up waits no longer for its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the new instances have written, from one watch to the next.
pub(super) type Log = Arc<Mutex<Follower>>;

/// Of what is written from now on.
pub(super) fn log_from_now(folder: PathBuf, deployment: u64, service: &str) -> Log {
    let filter = Filter {
        deployment: Some(deployment),
        service: Some(service.to_owned()),
        instance: None,
        since: Some(Utc::now()),
        text: None,
        tail: MAX_LINES,
    };
    Arc::new(Mutex::new(Follower::new(folder, filter)))
}

/// A service of a new release beside that of the one before.
pub(super) struct Watch {
    tenant: Arc<Tenant>,
    thresholds: Thresholds,
    check: HealthCheck,
    new: Vec<Instance>,
    old: Option<Arc<Kept>>,
    log: Log,
    /// Whether the proxy measures its requests.
    is_asked: bool,
    /// What the proxy had seen of each instance when this began.
    before: BTreeMap<String, Sample>,
    /// Requests that were made up, to the new and to the old release.
    made_up: (Sample, Sample),
    /// How many are made up at each look.
    at_a_time: usize,
}

impl Watch {
    /// Begins with what the proxy has seen by now; for `pause`, or until somebody says how to go on.
    pub(super) fn begin(
        tenant: &Arc<Tenant>,
        thresholds: Thresholds,
        part: &Part,
        pause: Option<Duration>,
    ) -> Self {
        let looks = pause.map_or(LOOKS.into(), |pause| {
            pause.as_millis() / Self::rhythm(Some(pause)).as_millis()
        });
        // Half of the looks are enough: slow answers make them fewer.
        let enough = u64::try_from(looks / 2).unwrap_or(u64::MAX).max(1);
        let at_a_time = thresholds.min_requests.div_ceil(enough);
        Self {
            at_a_time: usize::try_from(at_a_time).unwrap_or(usize::MAX),
            before: measured(tenant),
            tenant: Arc::clone(tenant),
            thresholds,
            check: part.service.health.clone(),
            new: part.new.all(),
            old: part.old.clone(),
            log: Arc::clone(&part.log),
            is_asked: part.service.is_routed(),
            made_up: Default::default(),
        }
    }

    /// Between two looks.
    pub(super) fn rhythm(pause: Option<Duration>) -> Duration {
        pause.map_or(LONGEST, |pause| (pause / LOOKS).clamp(SHORTEST, LONGEST))
    }

    /// Looks once. What a busy machine has kept from being asked before is made up for where there is no other look.
    pub(super) async fn look(&mut self, is_last: bool) -> Verdict {
        if let Some(line) = self.told_by_log().await {
            return Verdict::Fail(format!("its log says: {line}"));
        }
        if !self.is_asked {
            return Verdict::Pass;
        }
        let (mut new, mut old) = self.seen();
        // Nobody knows what else to ask of one that does not speak HTTP.
        let may_ask = self.thresholds.synthetic && self.check.probe.kind == ProbeKind::Http;
        for _ in 0..if is_last { LOOKS } else { 1 } {
            if may_ask && new.requests < self.thresholds.min_requests {
                self.make_up_requests().await;
                (new, old) = self.seen();
            }
        }
        judge(&self.thresholds, &new, &old)
    }

    /// All requests since the beginning, to the new and to the old release.
    fn seen(&self) -> (Sample, Sample) {
        let now = measured(&self.tenant);
        let nothing = Sample::default();
        let since = |id: &str| {
            let before = self.before.get(id).unwrap_or(&nothing);
            now.get(id).map(|seen| seen.since(before))
        };
        let (mut new, mut old) = self.made_up.clone();
        for sample in self.new.iter().filter_map(|instance| since(instance.id())) {
            new.add(&sample);
        }
        for sample in self.old_targets().iter().filter_map(|old| since(&old.id)) {
            old.add(&sample);
        }
        (new, old)
    }

    /// Where the old release serves now: its instances are restarted like any others.
    fn old_targets(&self) -> Vec<Target> {
        self.old
            .as_ref()
            .map(|old| old.targets())
            .unwrap_or_default()
    }

    /// The same requests to both releases, past the proxy.
    async fn make_up_requests(&mut self) {
        let count = self.at_a_time;
        let new: Vec<Target> = self.new.iter().map(instances::target).collect();
        let old = self.old_targets();
        let asked = |targets: &[Target]| {
            let turns: Vec<_> = targets.iter().cycle().take(count).cloned().collect();
            join_all(turns.into_iter().map(|target| ask(target, &self.check)))
        };
        let (new, old) = tokio::join!(asked(&new), asked(&old));
        for (good, took) in new {
            self.made_up.0.record(good, took);
        }
        for (good, took) in old {
            self.made_up.1.record(good, took);
        }
    }

    /// The first new line of the log that speaks against the release. Its instances write one log.
    async fn told_by_log(&self) -> Option<String> {
        let patterns = &self.thresholds.log_patterns;
        if patterns.is_empty() {
            return None;
        }
        let lines = self.log.lock().await.look().await.ok()?;
        let told = |line: &String| patterns.iter().any(|pattern| line.contains(pattern));
        lines.into_iter().map(|line| line.line).find(told)
    }
}

/// Returns when one of the instances has ended or is no longer healthy.
pub(super) async fn broken(instances: Vec<(Instance, Service)>) -> Failure {
    let each = instances.iter().map(|(instance, service)| {
        let (check, restart) = (&service.health, service.restart);
        Box::pin(async move {
            tokio::select! {
                exit = instance.wait() => {
                    if is_done(restart, exit) {
                        return std::future::pending().await;
                    }
                    failure::ended_later(exit)
                }
                () = until_unhealthy(instance, check) => failure::plain(
                    "unhealthy",
                    format!("instance {} {}", instance.id(), no_longer(&check.probe)),
                ),
            }
        })
    });
    let each: Vec<_> = each.collect();
    if each.is_empty() {
        return std::future::pending().await;
    }
    select_all(each).await.0
}

async fn ask(target: Target, check: &HealthCheck) -> (bool, Duration) {
    let begun = Instant::now();
    let good = answers(target.address, &check.probe, PATIENCE).await;
    (good, begun.elapsed())
}

fn measured(tenant: &Tenant) -> BTreeMap<String, Sample> {
    let measures = tenant.proxy().map(|proxy| proxy.measures());
    let measures = measures.into_iter().flatten();
    measures
        .map(|(target, measures)| (target.id, Sample::of(&measures)))
        .collect()
}
