//! How the instances of a release take the place of the old ones: the steps that the strategies are made of.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engines::{Exit, Instance};
use futures_util::future::{join_all, try_join_all};
use management_api::types::{Failure, ProbeKind};
use tokio::time::{Instant, MissedTickBehavior};

use super::analysis::Verdict;
use super::kept::Kept;
use super::probe::succeeded;
use super::run::{Part, Rollout, Stop, drain, start};
use super::watching::{self, Watch, log_from_now};
use super::{failure, health, instances};
use crate::deployments::{APP, Course, State, Step, Thresholds};
use crate::platform::App;
use crate::traffic::{self, Weight};

/// How many ports an instance gets that another program takes before it listens.
const PORTS_TRIED: u32 = 3;

impl Rollout {
    /// Once, in the new image, before anything of it is started and anything of the old release is touched.
    pub(super) async fn run_release_command(&mut self) -> Result<(), Stop> {
        if self.row.release_command.is_empty() {
            return Ok(());
        }
        // Those of the release before serve still, where there are any.
        for part in self.needed_by_command() {
            self.prove(&part, part.replicas()).await?;
        }
        let begun = Instant::now();
        let instance = self
            .bounded(instances::start_command(&self.app, &self.row))
            .await?
            .map_err(failure::command_not_started)?;
        self.once.push(instance.clone());
        let words = self.row.release_command.clone();
        let limit = Duration::from_secs(self.row.timeout_seconds);
        // The deadline may lie later, by the time of the watches.
        let ended = tokio::time::timeout(limit, instance.wait());
        match self.bounded(ended).await {
            Ok(Ok(Exit::Code(0))) => {}
            Ok(Ok(exit)) => return Err(failure::command_failed(&words, exit).into()),
            Ok(Err(_)) | Err(Stop::Deadline) => {
                return Err(failure::command_late(&words, limit).into());
            }
            Err(stop) => return Err(stop),
        }
        // It has ended; what is left of it goes.
        let ended = self.once.take();
        self.app.stop_all(&ended).await;
        let app = self.parts.iter_mut().find(|part| part.name == APP);
        if let Some(app) = app {
            // What the command has written says nothing of the service.
            let folder = self.app.data.logs(&self.tenant.id);
            app.log = log_from_now(folder, self.row.number, APP);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let message = format!("the release command ended well after {seconds:.1} s");
        self.advance(State::Migrated, message).await
    }

    /// A set that is kept warm is of this very release and becomes the new one, or makes room.
    pub(super) async fn take_warm(&mut self) {
        if self.tenant.is_standing_in() {
            // The release that is lost may come back until another one has proved itself.
            return;
        }
        let Some(warm) = self.tenant.take_warm() else {
            return;
        };
        let same = warm.row.release_id == self.row.release_id;
        let fits = same && self.course != Course::Recreate;
        let mut unfit = Vec::new();
        for kept in warm.services() {
            let part = self.parts.iter().find(|part| part.name == kept.name);
            for instance in kept.let_go().await {
                // One that has died meanwhile, or is sick, is started anew instead.
                match part.filter(|_| fits) {
                    Some(part) if health::is_healthy(&instance, &part.service.health).await => {
                        part.new.push(instance);
                    }
                    _ => unfit.push(instance),
                }
            }
        }
        self.app.stop_all(&unfit).await;
    }

    /// One service after the other: those that share their traffic with the old ones a few instances at a time, the others
    /// all at once.
    pub(super) async fn roll_all(
        &mut self,
        surge: usize,
        unavailable: usize,
        pause: Option<Duration>,
    ) -> Result<(), Stop> {
        for part in self.parts.clone() {
            match part.shares_with().cloned() {
                Some(old) => {
                    let unavailable = unavailable.min(part.replicas());
                    self.roll(&part, &old, (surge, unavailable), pause).await?;
                }
                None => self.bring_up(&part, part.replicas()).await?,
            }
        }
        Ok(())
    }

    /// Some new instances, then as many old ones fewer, until all but the last ones are new: those go when the
    /// new release has proved itself.
    async fn roll(
        &mut self,
        part: &Part,
        old: &Arc<Kept>,
        (surge, unavailable): (usize, usize),
        pause: Option<Duration>,
    ) -> Result<(), Stop> {
        let replicas = part.replicas();
        let least = replicas.saturating_sub(unavailable);
        loop {
            // Only what is above the least that has to serve makes room.
            let serving = old.size() + part.new.len();
            let room = old.size().min(serving.saturating_sub(least));
            if part.new.len() + surge < replicas && room > 0 {
                self.take_away(old, room.min(unavailable)).await;
            }
            let free = (replicas + surge).saturating_sub(old.size());
            let next = free.max(part.new.len() + 1).min(replicas);
            self.bring_up(part, next).await?;
            if next == replicas && pause.is_none() {
                return Ok(());
            }
            let what = self.called(&part.name, "instances");
            let message = format!("{next} of {replicas} {what} are new");
            let only = std::slice::from_ref(part);
            self.share(message, only, Weight::Each, Weight::Each)
                .await?;
            if let Some(pause) = pause {
                self.watch(only, Some(pause)).await?;
            }
            if next == replicas {
                return Ok(());
            }
            let surplus = old.size().saturating_sub(replicas - next);
            self.take_away(old, surplus).await;
        }
    }

    /// More and more of the traffic, as long as nothing speaks against it. All services that are asked from outside get the
    /// same part of theirs.
    pub(super) async fn try_out(&mut self, steps: &[Step]) -> Result<(), Stop> {
        let parts = self.parts.clone();
        let (shared, _): (Vec<Part>, Vec<Part>) = parts
            .into_iter()
            .partition(|part| part.shares_with().is_some());
        if shared.is_empty() {
            // Nobody to compare it with, and nobody else to serve.
            return Ok(());
        }
        for step in steps {
            let percent = step.weight.min(100);
            self.bring_up_all(|part| {
                if part.shares_with().is_none() {
                    return part.replicas();
                }
                let instances = (part.replicas() * percent as usize).div_ceil(100);
                instances.max(1)
            })
            .await?;
            let message = format!("{percent} % of the traffic");
            let (new, old) = (Weight::Percent(percent), Weight::Percent(100 - percent));
            self.share(message, &shared, new, old).await?;
            self.watch(&shared, step.pause).await?;
        }
        Ok(())
    }

    /// Writes that the traffic moves, and divides it between the new and the old instances of services.
    async fn share(
        &mut self,
        message: String,
        parts: &[Part],
        new: Weight,
        old: Weight,
    ) -> Result<(), Stop> {
        self.note_healthy().await?;
        self.advance(State::Shifting, message).await?;
        let number = self.row.number;
        let division = parts.iter().map(|part| {
            let mut shares = vec![traffic::Part {
                number,
                weight: new,
                targets: part.new.targets(),
            }];
            shares.extend(part.old.iter().map(|kept| traffic::Part {
                number: kept.row.number,
                weight: old,
                targets: kept.targets(),
            }));
            (part.name.clone(), shares)
        });
        // Nobody leaves here: instances only come.
        drop(self.tenant.split_traffic(division.collect()));
        for part in parts {
            let targets = part.new.targets();
            drop(self.tenant.set_targets(&part.name, number, targets));
        }
        Ok(())
    }

    /// Lets some old instances finish their requests and stops them, beside what else is done: neither a long download
    /// nor a WebSocket may use up the time of a deployment. Whoever is to have their volumes waits for that.
    async fn take_away(&mut self, old: &Arc<Kept>, count: usize) {
        if count == 0 {
            return;
        }
        let (instances, retired) = old.shrink(count).await;
        let (app, tenant) = (App::clone(&self.app), Arc::clone(&self.tenant));
        let leaving = self.app.tasks.spawn(async move {
            drain(&app, &tenant, retired).await;
            app.stop_all(&instances).await;
        });
        self.leaving.push((Arc::clone(old), leaving));
    }

    /// Waits until none of those is left that made room before.
    pub(super) async fn have_left(&mut self, old: &Arc<Kept>) {
        let of_old = |(kept, _): &mut (Arc<Kept>, _)| Arc::ptr_eq(kept, old);
        for (_, leaving) in self.leaving.extract_if(.., of_old) {
            // a panic has been printed, and the engine knows who has what
            drop(leaving.await);
        }
    }

    /// Starts new instances of every service, each behind those that it depends on, until there are as many as `count` says.
    pub(super) async fn bring_up_all(
        &mut self,
        count: impl Fn(&Part) -> usize,
    ) -> Result<(), Stop> {
        for part in self.parts.clone() {
            self.bring_up(&part, count(&part)).await?;
        }
        Ok(())
    }

    /// The new services that `app` depends on, each behind those that it depends on itself.
    fn needed_by_command(&self) -> Vec<Part> {
        let capsule = &self.row.capsule;
        let mut needed = BTreeSet::from([APP.to_owned()]);
        for name in capsule.order().iter().rev() {
            if needed.contains(name) {
                let service = capsule.service(name);
                needed.extend(service.into_iter().flat_map(|service| service.depends_on));
            }
        }
        let is_needed = |part: &&Part| part.name != APP && needed.contains(&part.name);
        let new = self.parts.iter().filter(|part| part.old.is_none());
        new.filter(is_needed).cloned().collect()
    }

    /// Starts new instances of a service until there are `count`, waits until all are healthy, and writes that there are some.
    async fn bring_up(&mut self, part: &Part, count: usize) -> Result<(), Stop> {
        if part.takes_over {
            self.hand_over().await?;
        }
        let started = self.start(part, count).await;
        started.map_err(|stop| self.told_stop(stop, part))?;
        if matches!(self.state, State::Requested | State::Migrated) {
            let message = match &part.new.all()[..] {
                [one] => format!("instance {} runs", one.id()),
                many => format!("{} instances run", many.len()),
            };
            self.advance(State::Provisioned, message).await?;
        }
        self.prove(part, count).await
    }

    /// Starts new instances of a service until there are `count`, and waits until all are healthy. One whose port another
    /// program was quicker to take is replaced, a few times.
    async fn prove(&mut self, part: &Part, count: usize) -> Result<(), Stop> {
        let mut taken: Option<Failure> = None;
        let mut tried = 0;
        loop {
            tried += 1;
            let started = self.start(part, count).await;
            started.map_err(|stop| match (stop, taken.take()) {
                // That there is no other one says less.
                (Stop::Failed(new), Some(taken)) if new.code == failure::NO_PORT => {
                    self.told(taken, part).into()
                }
                (stop, _) => self.told_stop(stop, part),
            })?;
            match self.all_healthy(part).await? {
                Ok(took) => {
                    self.note_proved(part, took);
                    return Ok(());
                }
                Err((instance, failure))
                    if failure.code == failure::PORT_TAKEN && tried < PORTS_TRIED =>
                {
                    tracing::warn!(
                        tenant = self.tenant.id,
                        deployment = self.row.number,
                        why = failure.message,
                        "an instance is started again on another port"
                    );
                    // In time for its last lines, and before another one gets its place.
                    self.app.stop_all(std::slice::from_ref(&instance)).await;
                    taken = Some(failure::with_log(failure, Some(&instance)).await);
                    part.new.remove(&instance);
                }
                Err((_, failure)) => return Err(self.told(failure, part).into()),
            }
        }
    }

    /// Waits until the new instances of a service are healthy: how long that took, or the first that is not.
    async fn all_healthy(
        &self,
        part: &Part,
    ) -> Result<Result<Duration, (Instance, Failure)>, Stop> {
        let health = &part.service.health;
        let new = part.new.all();
        // To have run for a while is proof once and for all.
        let is_proved = |one: &&Instance| {
            let known = health.probe.kind == ProbeKind::Process && self.well.contains(one.id());
            known && one.exited().is_none()
        };
        let unproved = new.iter().filter(|one| !is_proved(one));
        let healthy = unproved.map(async |one| {
            let healthy = health::until_healthy(one, &part.service).await;
            healthy.map_err(|failure| (one.clone(), failure))
        });
        let took = self.bounded(try_join_all(healthy)).await?;
        Ok(took.map(|took| took.into_iter().max().unwrap_or_default()))
    }

    /// The new instances of a service are healthy.
    fn note_proved(&mut self, part: &Part, took: Duration) {
        let new = part.new.all();
        self.well.extend(new.iter().map(|one| one.id().to_owned()));
        let (what, seconds) = (succeeded(&part.service.health.probe), took.as_secs_f64());
        self.proved = Some(format!("{what} after {seconds:.1} s"));
        self.open_inside(&part.name);
    }

    /// Lets those reach a new service that depend on it; what has an old one moves with all others.
    pub(super) fn open_inside(&mut self, name: &str) {
        let Some(part) = self.parts.iter().find(|part| part.name == name) else {
            return;
        };
        let (number, targets) = (self.row.number, part.new.targets());
        if self.row.capsule.is_single() {
            return;
        }
        if !self.tenant.has_traffic(name) {
            self.tenant.open_inside(name, number, targets);
            self.opened.insert(name.to_owned());
        } else if self.opened.contains(name) {
            drop(self.tenant.set_targets(name, number, targets));
        }
    }

    async fn start(&mut self, part: &Part, count: usize) -> Result<(), Stop> {
        let missing = count.saturating_sub(part.new.len());
        let starting: Vec<_> = (0..missing)
            .map(|_| tokio::spawn(start(App::clone(&self.app), self.row.clone(), part.clone())))
            .collect();
        let mut started = Box::pin(join_all(starting));
        let started = match self.bounded(&mut started).await {
            Ok(started) => started,
            Err(stop) => {
                // What has begun to start comes to its end first: else it could run beside what comes back.
                started.await;
                return Err(stop);
            }
        };
        for outcome in started {
            // A panic has been printed; there is no instance then.
            outcome
                .unwrap_or_else(|_| Err(failure::plain("internal", "a start was broken off")))?;
        }
        Ok(())
    }

    /// Writes that what was started is healthy, once.
    pub(super) async fn note_healthy(&mut self) -> Result<(), Stop> {
        if matches!(self.state, State::Requested | State::Migrated) {
            let message = "all services run on as they are".to_owned();
            self.advance(State::Provisioned, message).await?;
        }
        if self.state != State::Provisioned {
            return Ok(());
        }
        let proved = self.proved.take();
        let message = match &self.parts[..] {
            [] => "all services answer".to_owned(),
            [_] => proved.unwrap_or_default(),
            many => {
                let names: Vec<&str> = many.iter().map(|part| part.name.as_str()).collect();
                format!("{} are healthy", names.join(", "))
            }
        };
        self.advance(State::Healthy, message).await
    }

    /// A failure of a service, with its name where there are several.
    pub(super) fn told(&self, failure: Failure, part: &Part) -> Failure {
        if self.row.capsule.is_single() {
            return failure;
        }
        Failure {
            message: format!("{}: {}", part.name, failure.message),
            ..failure
        }
    }

    fn told_stop(&self, stop: Stop, part: &Part) -> Stop {
        match stop {
            Stop::Failed(failure) => Stop::Failed(self.told(failure, part)),
            stop => stop,
        }
    }

    /// What is of a service, with its name where there are several.
    fn called(&self, name: &str, what: &str) -> String {
        if self.row.capsule.is_single() {
            what.to_owned()
        } else {
            format!("{what} of {name}")
        }
    }

    /// Watches new services for a time, or until somebody promotes them. What is bad stops the rollout; where nobody
    /// can say, it is paused.
    pub(super) async fn watch(
        &mut self,
        parts: &[Part],
        pause: Option<Duration>,
    ) -> Result<(), Stop> {
        let thresholds = Thresholds::of(&self.row.rollout);
        let watch = |part: &Part| Watch::begin(&self.tenant, thresholds.clone(), part, pause);
        let mut watches: Vec<Watch> = parts.iter().map(watch).collect();
        let signals = self.signals.clone();
        let mut promoted = pin!(signals.promoted());
        let all = self.parts.iter();
        let all = all.flat_map(|part| {
            let service = &part.service;
            let new = part.new.all().into_iter();
            new.map(move |instance| (instance, service.clone()))
        });
        let mut broken = pin!(watching::broken(all.collect()));
        let mut rhythm = tokio::time::interval(Watch::rhythm(pause));
        rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let over = pause.map(|pause| Instant::now() + pause);
        let is_over = || over.is_some_and(|over| Instant::now() >= over);
        if over.is_none() {
            self.pause("it waits for somebody to promote it").await?;
        }
        loop {
            let looked = async {
                tokio::select! {
                    failure = &mut broken => Err(failure),
                    () = &mut promoted => Ok(None),
                    _ = rhythm.tick() => {
                        let is_last = is_over();
                        Ok(Some((look(&mut watches, is_last).await, is_last)))
                    }
                }
            };
            match self.bounded(looked).await?? {
                None => return self.go_on("promoted").await,
                Some((Verdict::Fail(why), _)) => {
                    // Its end is the reason why requests failed.
                    let ended = self.parts.iter().find_map(Part::failed);
                    let told = || failure::plain("analysis_failed", why);
                    return Err(ended.map_or_else(told, failure::ended_later).into());
                }
                Some((Verdict::Pass, true)) => {
                    return self.go_on("nothing speaks against it").await;
                }
                Some((Verdict::Inconclusive(why), true)) => {
                    self.pause(&format!("{why}; promote it or abort it"))
                        .await?;
                }
                Some(_) => {}
            }
        }
    }

    async fn pause(&mut self, why: &str) -> Result<(), Stop> {
        if self.state == State::Paused {
            return Ok(());
        }
        self.advance(State::Paused, why.to_owned()).await
    }

    async fn go_on(&mut self, why: &str) -> Result<(), Stop> {
        self.advance(State::Shifting, why.to_owned()).await
    }

    /// For `recreate`: the old instances end before the new ones begin, those that depend on others first.
    ///
    /// As long as they finish their requests nothing is lost: who says stop by then has them back as they are.
    pub(super) async fn stop_old(&mut self) -> Result<(), Stop> {
        let Some(old) = self.old.clone() else {
            return Ok(());
        };
        self.bounded(async {}).await?;
        self.old_let_go = true;
        self.tenant.set_live(None);
        let mut names = old.row.capsule.order();
        names.retain(|name| !self.carried.iter().any(|kept| kept.name == *name));
        let going: Vec<_> = names
            .iter()
            .rev()
            .filter_map(|name| old.service(name))
            .collect();
        let mut instances = Vec::new();
        for kept in going {
            instances.push((kept, kept.let_go().await));
        }
        let retired = self.tenant.suspend_traffic(&names.into_iter().collect());
        if let Err(stop) = self.bounded(self.drain(retired)).await {
            for (kept, instances) in instances {
                kept.take_back(instances).await;
            }
            // Nobody has had it in between.
            drop(old.take_traffic());
            self.tenant.set_live(Some(old));
            self.old_let_go = false;
            return Err(stop);
        }
        for (_, instances) in instances {
            self.app.stop_all(&instances).await;
        }
        Ok(())
    }
}

/// Looks at each service by itself: one with little traffic is not hidden by another one with much.
async fn look(watches: &mut [Watch], is_last: bool) -> Verdict {
    let mut verdict = Verdict::Pass;
    for watch in watches {
        match watch.look(is_last).await {
            Verdict::Fail(why) => return Verdict::Fail(why),
            Verdict::Inconclusive(why) => verdict = Verdict::Inconclusive(why),
            Verdict::Pass => {}
        }
    }
    verdict
}
