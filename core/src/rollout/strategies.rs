//! How the instances of a release take the place of the old ones: the steps that the strategies are made of.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engines::Exit;
use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, MissedTickBehavior};

use super::analysis::Verdict;
use super::live::Live;
use super::probe::succeeded;
use super::restart::is_done;
use super::run::{Rollout, Stop, drain, start};
use super::watching::{self, Watch, log_from_now};
use super::{failure, health, instances};
use crate::deployments::{Course, State, Step, Thresholds};
use crate::platform::App;
use crate::tenant::Weight;

impl Rollout {
    /// Once, in the new image, before anything of it is started and anything of the old release is touched.
    pub(super) async fn run_release_command(&mut self) -> Result<(), Stop> {
        if self.row.release_command.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let instance = self
            .bounded(instances::start_command(&self.app, &self.row))
            .await?
            .map_err(failure::command_not_started)?;
        self.new.push(instance.clone());
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
        let ended = self.new.take();
        self.app.stop_all(&ended).await;
        self.log = log_from_now(self.app.data.logs(&self.tenant.id), self.row.number);
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
        for instance in warm.let_go().await {
            // One that has died meanwhile, or is sick, is started anew instead.
            if fits && health::is_healthy(&instance, &self.row.capsule.health).await {
                self.new.push(instance);
            } else {
                unfit.push(instance);
            }
        }
        self.app.stop_all(&unfit).await;
    }

    /// Some new instances, then as many old ones fewer, until all but the last ones are new: those go when the
    /// new release has proved itself.
    pub(super) async fn roll(
        &mut self,
        surge: usize,
        unavailable: usize,
        pause: Option<Duration>,
    ) -> Result<(), Stop> {
        let Some(old) = self.old.clone().filter(|_| self.old_serves()) else {
            return Ok(());
        };
        let replicas = self.replicas();
        let least = replicas.saturating_sub(unavailable);
        loop {
            // Only what is above the least that has to serve makes room.
            let serving = old.size() + self.new.len();
            let room = old.size().min(serving.saturating_sub(least));
            if self.new.len() + surge < replicas && room > 0 {
                self.take_away(&old, room.min(unavailable)).await;
            }
            let free = (replicas + surge).saturating_sub(old.size());
            let next = free.max(self.new.len() + 1).min(replicas);
            self.bring_up(next).await?;
            if next == replicas && pause.is_none() {
                return Ok(());
            }
            let message = format!("{next} of {replicas} instances are new");
            self.share(message, Weight::Each, Weight::Each).await?;
            if let Some(pause) = pause {
                self.watch(Some(pause)).await?;
            }
            if next == replicas {
                return Ok(());
            }
            let surplus = old.size().saturating_sub(replicas - next);
            self.take_away(&old, surplus).await;
        }
    }

    /// More and more of the traffic, as long as nothing speaks against it.
    pub(super) async fn try_out(&mut self, steps: &[Step]) -> Result<(), Stop> {
        if !self.old_serves() {
            // Nobody to compare it with, and nobody else to serve.
            return Ok(());
        }
        for step in steps {
            let percent = step.weight.min(100);
            let instances = (self.replicas() * percent as usize).div_ceil(100);
            self.bring_up(instances.max(1)).await?;
            let message = format!("{percent} % of the traffic");
            let (new, old) = (Weight::Percent(percent), Weight::Percent(100 - percent));
            self.share(message, new, old).await?;
            self.watch(step.pause).await?;
        }
        Ok(())
    }

    /// Writes that the traffic moves, and divides it between the new and the old instances.
    async fn share(&mut self, message: String, new: Weight, old: Weight) -> Result<(), Stop> {
        self.advance(State::Shifting, message).await?;
        let mut parts = vec![(self.row.number, new, self.new.targets())];
        parts.extend(self.old.iter().map(|o| (o.number, old, o.targets())));
        // Nobody leaves here: instances only come.
        drop(self.tenant.split_traffic(parts));
        drop(self.tenant.set_targets(self.row.number, self.new.targets()));
        Ok(())
    }

    /// Lets some old instances finish their requests and stops them, beside what else is done: neither a long download
    /// nor a WebSocket may use up the time of a deployment.
    async fn take_away(&self, old: &Live, count: usize) {
        if count == 0 {
            return;
        }
        let (instances, retired) = old.shrink(count).await;
        let (app, tenant) = (App::clone(&self.app), Arc::clone(&self.tenant));
        self.app.tasks.spawn(async move {
            drain(&app, &tenant, retired).await;
            app.stop_all(&instances).await;
        });
    }

    /// Starts new instances until there are `count`, and waits until all are healthy.
    pub(super) async fn bring_up(&mut self, count: usize) -> Result<(), Stop> {
        let missing = count.saturating_sub(self.new.len());
        let starting: Vec<_> = (0..missing)
            .map(|_| {
                tokio::spawn(start(
                    App::clone(&self.app),
                    self.row.clone(),
                    self.new.clone(),
                ))
            })
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
        if matches!(self.state, State::Requested | State::Migrated) {
            let message = match &self.new.all()[..] {
                [one] => format!("instance {} runs", one.id()),
                many => format!("{} instances run", many.len()),
            };
            self.advance(State::Provisioned, message).await?;
        }
        let release = self.row.capsule.clone();
        let new = self.new.all();
        let healthy = new.iter().map(|i| health::until_healthy(i, &release));
        let took = self.bounded(try_join_all(healthy)).await??;
        if self.state == State::Provisioned {
            let seconds = took.into_iter().max().unwrap_or_default().as_secs_f64();
            let message = format!("{} after {seconds:.1} s", succeeded(&release.health.probe));
            self.advance(State::Healthy, message).await?;
        }
        Ok(())
    }

    /// Watches the new release for a time, or until somebody promotes it. What is bad stops the rollout; where nobody
    /// can say, it is paused.
    pub(super) async fn watch(&mut self, pause: Option<Duration>) -> Result<(), Stop> {
        let health = self.row.capsule.health.clone();
        let mut watch = Watch::begin(
            &self.tenant,
            Thresholds::of(&self.row.rollout),
            &health,
            self.new.all(),
            self.old.clone(),
            Arc::clone(&self.log),
            pause,
        );
        let signals = self.signals.clone();
        let mut promoted = pin!(signals.promoted());
        let mut broken = pin!(watching::broken(self.new.all(), self.row.capsule.clone()));
        let mut rhythm = tokio::time::interval(Watch::rhythm(pause));
        rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let over = pause.map(|pause| Instant::now() + pause);
        if over.is_none() {
            self.pause("it waits for somebody to promote it").await?;
        }
        loop {
            let looked = async {
                tokio::select! {
                    failure = &mut broken => Err(failure),
                    () = &mut promoted => Ok(None),
                    _ = rhythm.tick() => Ok(Some(watch.look().await)),
                }
            };
            let is_over = || over.is_some_and(|over| Instant::now() >= over);
            match self.bounded(looked).await?? {
                None => return self.go_on("promoted").await,
                Some(Verdict::Fail(why)) => {
                    // Its end is the reason why requests failed.
                    let restart = self.row.capsule.restart;
                    let ended = self.new.all().into_iter().filter_map(|one| one.exited());
                    let ended = ended.into_iter().find(|exit| !is_done(restart, *exit));
                    let told = || failure::plain("analysis_failed", why);
                    return Err(ended.map_or_else(told, failure::ended).into());
                }
                Some(Verdict::Pass) if is_over() => {
                    return self.go_on("nothing speaks against it").await;
                }
                Some(Verdict::Inconclusive(why)) if is_over() => {
                    self.pause(&format!("{why}; promote it or abort it"))
                        .await?;
                }
                Some(Verdict::Pass | Verdict::Inconclusive(_)) => {}
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

    /// For `recreate`: the old instances end before the new ones begin.
    pub(super) async fn stop_old(&mut self) {
        let Some(old) = &self.old else { return };
        self.old_let_go = true;
        let instances = old.let_go().await;
        self.tenant.set_live(None);
        let retired = self.tenant.stop_traffic();
        self.drain(retired).await;
        self.app.stop_all(&instances).await;
    }
}
