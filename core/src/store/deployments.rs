//! Deployments and the releases they deploy.

use std::collections::{BTreeMap, BTreeSet};

use management_api::types::{Failure, RolloutSettings, Source};
use serde::de::DeserializeOwned;

use super::audit::{self, Actor, Entry};
use super::idempotency::{self, IdempotencyKey};
use super::sql::{Row, Transaction, Value, params};
use super::{Store, StoreError, events, from_millis, now, services, signed, tenants, unsigned};
use crate::deployments::{Capsule, Kind, State, Strategy};

/// One deployment with the release it deploys.
#[derive(Debug, Clone)]
pub(crate) struct DeploymentRow {
    pub(crate) tenant: String,
    pub(crate) number: u64,
    /// Fences off executors of older deployments.
    pub(crate) generation: u64,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    /// The image as it was asked for.
    pub(crate) image: String,
    pub(crate) tag: Option<String>,
    pub(crate) release_id: i64,
    pub(crate) capsule: Capsule,
    pub(crate) strategy: Strategy,
    /// Every setting of the strategy.
    pub(crate) rollout: RolloutSettings,
    /// Run once before anything is started.
    pub(crate) release_command: Vec<String>,
    /// How many instances of each of its services have ended and are not started again.
    pub(crate) ended: BTreeMap<String, u32>,
    pub(crate) timeout_seconds: u64,
    /// The deployment that served before.
    pub(crate) previous: Option<u64>,
    /// For a rollback: the deployment whose release is restored.
    pub(crate) restores: Option<u64>,
    pub(crate) actor: String,
    pub(crate) source: Option<Source>,
    pub(crate) failure: Option<Failure>,
    pub(crate) created_at: chrono::DateTime<chrono::Utc>,
    pub(crate) finished_at: Option<chrono::DateTime<chrono::Utc>>,
    /// Whether it serves now.
    pub(crate) live: bool,
}

/// What it takes to begin a deployment.
#[derive(Debug)]
pub(crate) struct NewDeployment {
    pub(crate) tenant: String,
    pub(crate) kind: Kind,
    pub(crate) image: String,
    pub(crate) tag: Option<String>,
    pub(crate) capsule: Capsule,
    pub(crate) strategy: Strategy,
    pub(crate) rollout: RolloutSettings,
    /// Run once before anything is started.
    pub(crate) release_command: Vec<String>,
    pub(crate) timeout_seconds: u64,
    pub(crate) restores: Option<u64>,
    pub(crate) actor: Actor,
    pub(crate) source: Option<Source>,
    /// What of the request is left unheeded, each an event of its own.
    pub(crate) warnings: Vec<String>,
    /// The key whose answer is to be written together with the deployment.
    pub(crate) key: Option<IdempotencyKey>,
}

/// An answer that can be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredAnswer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    /// The JSON body.
    pub(crate) body: String,
}

/// One step of one deployment.
#[derive(Debug, Clone)]
pub(crate) struct Advance {
    pub(crate) tenant: String,
    pub(crate) number: u64,
    pub(crate) generation: u64,
    pub(crate) from: State,
    pub(crate) to: State,
    /// For people; becomes the event's text.
    pub(crate) message: String,
    /// Recorded unless an earlier step has recorded one.
    pub(crate) failure: Option<Failure>,
}

impl DeploymentRow {
    /// How many instances of one of its services have ended and are not started again.
    pub(crate) fn ended_of(&self, service: &str) -> u32 {
        self.ended.get(service).copied().unwrap_or_default()
    }
}

const SELECT: &str = "
    SELECT d.tenant, d.number, d.generation, d.kind, d.state, d.image, d.tag, d.release_id,
           r.digest, r.env, r.health, d.strategy, d.timeout_seconds, d.previous, d.restores,
           d.actor, d.source, d.failure, d.created_at, d.finished_at,
           t.live IS NOT NULL AND t.live = d.number, r.replicas, d.rollout,
           d.release_command, r.secrets, r.resources, r.restart, d.ended, r.services
    FROM deployments d
    JOIN releases r ON r.id = d.release_id
    JOIN tenants t ON t.id = d.tenant AND t.deleted_at IS NULL";

impl Store {
    /// Writes down that so many instances of a deployment's service have ended and are not started again. Fewer than are
    /// known already change nothing.
    pub(crate) async fn note_ended(
        &self,
        tenant: &str,
        number: u64,
        service: &str,
        count: u32,
    ) -> Result<(), StoreError> {
        let (tenant, service) = (tenant.to_owned(), service.to_owned());
        self.write(move |transaction| {
            let known: String = transaction.one(
                "SELECT ended FROM deployments WHERE tenant = ?1 AND number = ?2",
                params![tenant, signed(number)],
                |row| Ok(row.get(0)?),
            )?;
            let mut ended: BTreeMap<String, u32> = serde_json::from_str(&known)?;
            let known = ended.entry(service).or_default();
            *known = (*known).max(count);
            transaction.execute(
                "UPDATE deployments SET ended = ?3 WHERE tenant = ?1 AND number = ?2",
                params![tenant, signed(number), json(&ended)?],
            )?;
            Ok(())
        })
        .await
    }

    /// Writes a deployment in state `requested`, its first event and, where a key is given, the
    /// answer that `answer` makes of its number: all of it or nothing.
    pub(crate) async fn begin_deployment<F>(
        &self,
        new: NewDeployment,
        answer: F,
    ) -> Result<DeploymentRow, StoreError>
    where
        F: FnOnce(u64) -> StoredAnswer + Send + 'static,
    {
        self.write(move |transaction| {
            let number = insert(transaction, &new)?;
            let message = format!("requested by {}", new.actor.name);
            for message in std::iter::once(&message).chain(&new.warnings) {
                events::append(transaction, &new.tenant, number, State::Requested, message)?;
            }
            audit::append(transaction, &new.actor, &Entry::begun(&new, number))?;
            if let Some(key) = &new.key {
                idempotency::finish(transaction, key, &answer(number))?;
            }
            find(transaction, &new.tenant, number)?.ok_or(StoreError::NoTenant { id: new.tenant })
        })
        .await
    }

    /// Writes one step and its event. Refused when the deployment is not in the state the caller
    /// believes, when the step is not allowed, or when a newer deployment was accepted.
    pub(crate) async fn advance(&self, step: Advance) -> Result<(), StoreError> {
        self.write(move |transaction| {
            check_step(transaction, &step)?;
            let at = now().timestamp_millis();
            let failure = step.failure.as_ref().map(json).transpose()?;
            transaction.execute(
                "UPDATE deployments SET state = ?3, updated_at = ?4, finished_at = ?5,
                   failure = COALESCE(failure, ?6)
                 WHERE tenant = ?1 AND number = ?2",
                params![
                    step.tenant,
                    signed(step.number),
                    step.to.as_str(),
                    at,
                    step.to.frees_the_tenant().then_some(at),
                    failure,
                ],
            )?;
            if step.to == State::Verified {
                transaction.execute(
                    "UPDATE tenants SET live = ?2, stand_in = NULL WHERE id = ?1",
                    params![step.tenant, signed(step.number)],
                )?;
            }
            events::append(
                transaction,
                &step.tenant,
                step.number,
                step.to,
                &step.message,
            )?;
            let Some(row) = find(transaction, &step.tenant, step.number)? else {
                return Err(StoreError::NoTenant { id: step.tenant });
            };
            audit::append(transaction, &Actor::server(), &Entry::step(&step, &row))
        })
        .await
    }

    /// One deployment.
    pub(crate) async fn deployment(
        &self,
        tenant: &str,
        number: u64,
    ) -> Result<Option<DeploymentRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |transaction| find(transaction, &tenant, number))
            .await
    }

    /// A tenant's deployments, newest first.
    pub(crate) async fn deployments(
        &self,
        tenant: &str,
        limit: u32,
    ) -> Result<Vec<DeploymentRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |transaction| {
            select(
                transaction,
                "WHERE d.tenant = ?1 ORDER BY d.number DESC LIMIT ?2",
                params![tenant, limit],
            )
        })
        .await
    }

    /// The deployment of a tenant that has not come to its end.
    pub(crate) async fn running(&self, tenant: &str) -> Result<Option<DeploymentRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |transaction| {
            let rows = select(
                transaction,
                "WHERE d.tenant = ?1 AND d.finished_at IS NULL",
                params![tenant],
            )?;
            Ok(rows.into_iter().next())
        })
        .await
    }

    /// The deployments of all tenants that have not come to their end.
    pub(crate) async fn unfinished(&self) -> Result<Vec<DeploymentRow>, StoreError> {
        self.read(|transaction| {
            select(
                transaction,
                "WHERE d.finished_at IS NULL ORDER BY d.tenant",
                &[],
            )
        })
        .await
    }

    /// The newest good deployment of another release before `number`.
    pub(crate) async fn good_before(
        &self,
        tenant: &str,
        number: u64,
        other_than_release: i64,
    ) -> Result<Option<DeploymentRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |transaction| good_before(transaction, &tenant, number, other_than_release))
            .await
    }

    /// The newest good deployment that was asked for by a tag.
    pub(crate) async fn good_by_tag(
        &self,
        tenant: &str,
        tag: &str,
    ) -> Result<Option<DeploymentRow>, StoreError> {
        let (tenant, tag) = (tenant.to_owned(), tag.to_owned());
        self.read(move |transaction| {
            let rows = select(
                transaction,
                "WHERE d.tenant = ?1 AND d.tag = ?2 AND d.state = 'succeeded'
                 ORDER BY d.number DESC LIMIT 1",
                params![tenant, tag],
            )?;
            Ok(rows.into_iter().next())
        })
        .await
    }

    /// Digests that a rollback within the newest `kept` deployments of any tenant may need.
    pub(crate) async fn digests_in_use(&self, kept: u32) -> Result<Vec<String>, StoreError> {
        self.read(move |transaction| {
            let sql = "SELECT DISTINCT r.digest, r.services FROM deployments d
                 JOIN releases r ON r.id = d.release_id
                 JOIN tenants t ON t.id = d.tenant AND t.deleted_at IS NULL
                 WHERE d.finished_at IS NULL OR d.number = t.live OR d.number = t.stand_in
                    OR d.number > t.last_number - ?1";
            let mut digests = BTreeSet::new();
            transaction.each(sql, params![kept], |row| {
                digests.insert(row.get(0)?);
                let group = services::from_column(row.get(1)?)?;
                digests.extend(group.services.into_values().map(|service| service.digest));
                Ok::<_, StoreError>(())
            })?;
            Ok(digests.into_iter().collect())
        })
        .await
    }
}

/// The newest good deployment of another release before `number`.
pub(super) fn good_before(
    transaction: &Transaction<'_>,
    tenant: &str,
    number: u64,
    other_than_release: i64,
) -> Result<Option<DeploymentRow>, StoreError> {
    let rows = select(
        transaction,
        "WHERE d.tenant = ?1 AND d.number < ?2 AND d.release_id <> ?3
           AND d.state = 'succeeded'
         ORDER BY d.number DESC LIMIT 1",
        params![tenant, signed(number), other_than_release],
    )?;
    Ok(rows.into_iter().next())
}

/// The deployments that serve, by tenant.
pub(super) fn live(transaction: &Transaction<'_>) -> Result<Vec<DeploymentRow>, StoreError> {
    select(
        transaction,
        "WHERE d.number = t.live ORDER BY d.tenant",
        &[],
    )
}

/// Number of the tenant's unfinished deployment.
pub(super) fn in_progress(
    transaction: &Transaction<'_>,
    tenant: &str,
) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT number FROM deployments WHERE tenant = ?1 AND finished_at IS NULL";
    let read = |row: &Row| Ok(unsigned(row.get(0)?));
    transaction.optional(sql, params![tenant], read)
}

fn insert(transaction: &Transaction<'_>, new: &NewDeployment) -> Result<u64, StoreError> {
    let Some(tenant) = tenants::find(transaction, &new.tenant)? else {
        return Err(StoreError::NoTenant {
            id: new.tenant.clone(),
        });
    };
    if let Some(number) = in_progress(transaction, &new.tenant)? {
        return Err(StoreError::InProgress { number });
    }
    let release_id = release(transaction, &new.tenant, &new.capsule)?;
    let (number, generation): (i64, i64) = transaction.one(
        "UPDATE tenants SET last_number = last_number + 1, generation = generation + 1
         WHERE id = ?1 RETURNING last_number, generation",
        params![new.tenant],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let at = now().timestamp_millis();
    transaction.execute(
        "INSERT INTO deployments (tenant, number, generation, kind, state, image, tag, release_id,
           strategy, timeout_seconds, previous, restores, actor, source, created_at, updated_at,
           rollout, release_command)
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?15,?16,?17)",
        params![
            new.tenant,
            number,
            generation,
            new.kind.as_str(),
            State::Requested.as_str(),
            new.image,
            new.tag,
            release_id,
            new.strategy.as_str(),
            signed(new.timeout_seconds),
            tenant.live.map(signed),
            new.restores.map(signed),
            new.actor.name,
            new.source.as_ref().map(json).transpose()?,
            at,
            json(&new.rollout)?,
            json(&new.release_command)?,
        ],
    )?;
    Ok(unsigned(number))
}

/// The row of a capsule; equal capsules of a tenant share one.
fn release(
    transaction: &Transaction<'_>,
    tenant: &str,
    capsule: &Capsule,
) -> Result<i64, StoreError> {
    let fingerprint = capsule.fingerprint();
    transaction.execute(
        "INSERT INTO releases (tenant, fingerprint, digest, env, health, created_at, replicas,
           secrets, resources, restart, services)
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11) ON CONFLICT DO NOTHING",
        params![
            tenant,
            fingerprint,
            capsule.digest,
            json(&capsule.env)?,
            json(&capsule.health)?,
            now().timestamp_millis(),
            capsule.replicas,
            json(&capsule.secrets)?,
            json(&capsule.resources)?,
            json(&capsule.restart)?,
            services::to_column(&capsule.group)?,
        ],
    )?;
    transaction.one(
        "SELECT id FROM releases WHERE tenant = ?1 AND fingerprint = ?2",
        params![tenant, fingerprint],
        |row| Ok(row.get(0)?),
    )
}

fn check_step(transaction: &Transaction<'_>, step: &Advance) -> Result<(), StoreError> {
    let (state, generation): (String, i64) = transaction.one(
        "SELECT d.state, t.generation FROM deployments d JOIN tenants t ON t.id = d.tenant
         WHERE d.tenant = ?1 AND d.number = ?2",
        params![step.tenant, signed(step.number)],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let stale = |found: String| StoreError::Stale {
        number: step.number,
        expected: format!("{} (next: {})", step.from, step.to),
        found,
    };
    if state != step.from.as_str() || !step.from.may_become(step.to) {
        return Err(stale(state));
    }
    if unsigned(generation) != step.generation {
        return Err(stale(format!("{state} of an older generation")));
    }
    Ok(())
}

fn find(
    transaction: &Transaction<'_>,
    tenant: &str,
    number: u64,
) -> Result<Option<DeploymentRow>, StoreError> {
    let rows = select(
        transaction,
        "WHERE d.tenant = ?1 AND d.number = ?2",
        params![tenant, signed(number)],
    )?;
    Ok(rows.into_iter().next())
}

fn select(
    transaction: &Transaction<'_>,
    condition: &str,
    parameters: &[Value],
) -> Result<Vec<DeploymentRow>, StoreError> {
    transaction.all(&format!("{SELECT} {condition}"), parameters, read)
}

fn read(row: &Row) -> Result<DeploymentRow, StoreError> {
    let number = |index: usize| -> Result<Option<u64>, StoreError> {
        Ok(row.get::<Option<i64>>(index)?.map(unsigned))
    };
    Ok(DeploymentRow {
        tenant: row.get(0)?,
        number: unsigned(row.get(1)?),
        generation: unsigned(row.get(2)?),
        kind: word(row, 3, "deployment kind", Kind::parse)?,
        state: word(row, 4, "deployment state", State::parse)?,
        image: row.get(5)?,
        tag: row.get(6)?,
        release_id: row.get(7)?,
        capsule: Capsule {
            digest: row.get(8)?,
            env: serde_json::from_str(&row.get::<String>(9)?)?,
            health: serde_json::from_str(&row.get::<String>(10)?)?,
            replicas: row.get(21)?,
            resources: serde_json::from_str(&row.get::<String>(25)?)?,
            restart: serde_json::from_str(&row.get::<String>(26)?)?,
            secrets: serde_json::from_str(&row.get::<String>(24)?)?,
            group: services::from_column(row.get(28)?)?,
        },
        strategy: word(row, 11, "strategy", Strategy::parse)?,
        rollout: serde_json::from_str(&row.get::<String>(22)?)?,
        release_command: serde_json::from_str(&row.get::<String>(23)?)?,
        ended: serde_json::from_str(&row.get::<String>(27)?)?,
        timeout_seconds: unsigned(row.get(12)?),
        previous: number(13)?,
        restores: number(14)?,
        actor: row.get(15)?,
        source: record(row, 16)?,
        failure: record(row, 17)?,
        created_at: from_millis(row.get(18)?),
        finished_at: row.get::<Option<i64>>(19)?.map(from_millis),
        live: row.get(20)?,
    })
}

fn word<T>(
    row: &Row,
    index: usize,
    what: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let value: String = row.get(index)?;
    parse(&value).ok_or(StoreError::UnknownWord { what, value })
}

fn record<T: DeserializeOwned>(row: &Row, index: usize) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row.get(index)?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(serde_json::to_string(value)?)
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;
    use crate::store::TenantRow;

    /// Adds the tenant `a`.
    pub(crate) async fn tenant(store: &Store) {
        let row = TenantRow {
            id: "a".into(),
            name: "a".into(),
            port: 2000,
            live: None,
            stand_in: None,
        };
        store.create_tenant(row, &Actor::server()).await.unwrap();
    }

    /// A deployment request of tenant `a`.
    pub(crate) fn request(capsule: Capsule) -> NewDeployment {
        NewDeployment {
            tenant: "a".into(),
            kind: Kind::Deploy,
            image: "r/a:t".into(),
            tag: Some("t".into()),
            capsule,
            strategy: Strategy::Rolling,
            rollout: RolloutSettings::default(),
            release_command: Vec::new(),
            timeout_seconds: 60,
            restores: None,
            actor: Actor::named("ci"),
            source: None,
            warnings: Vec::new(),
            key: None,
        }
    }

    /// Begins a deployment without an idempotency key.
    pub(crate) async fn begin(store: &Store, capsule: Capsule) -> DeploymentRow {
        store
            .begin_deployment(request(capsule), |_| unreachable!("there is no key"))
            .await
            .unwrap()
    }

    /// Takes a deployment through `states`.
    pub(crate) async fn walk(store: &Store, row: &DeploymentRow, states: &[State]) {
        let mut from = row.state;
        for to in states {
            store.advance(step(row, from, *to)).await.unwrap();
            from = *to;
        }
    }

    /// One step of a deployment.
    pub(crate) fn step(row: &DeploymentRow, from: State, to: State) -> Advance {
        Advance {
            tenant: row.tenant.clone(),
            number: row.number,
            generation: row.generation,
            from,
            to,
            message: to.to_string(),
            failure: None,
        }
    }

    /// The states of a deployment that goes well.
    pub(crate) const GOOD: &[State] = &[
        State::Provisioned,
        State::Healthy,
        State::Shifting,
        State::Verified,
        State::Draining,
        State::Succeeded,
    ];
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::with_each_database;
    use super::fixtures::{GOOD, begin, request, step, tenant, walk};
    use super::*;
    use crate::deployments::capsule_fixture as capsule;

    with_each_database!(
        only_one_deployment_of_a_tenant_is_in_progress,
        a_release_becomes_live_with_the_state_verified,
        a_step_from_another_state_or_generation_is_refused,
        the_first_failure_is_the_one_that_is_kept,
        the_good_one_before_skips_failures_and_the_same_release,
        a_tenant_is_not_deleted_under_a_running_deployment,
    );

    async fn only_one_deployment_of_a_tenant_is_in_progress(store: &Store) {
        tenant(store).await;
        let first = begin(store, capsule('a')).await;
        let second = store
            .begin_deployment(request(capsule('b')), |_| unreachable!())
            .await;
        assert!(matches!(second, Err(StoreError::InProgress { number: 1 })));
        walk(store, &first, &[State::RollingBack, State::Failed]).await;
        assert_eq!(begin(store, capsule('b')).await.number, 2);
    }

    async fn a_release_becomes_live_with_the_state_verified(store: &Store) {
        tenant(store).await;
        let row = begin(store, capsule('a')).await;
        let mut from = State::Requested;
        for to in GOOD {
            store.advance(step(&row, from, *to)).await.unwrap();
            from = *to;
            let live = store.tenant("a").await.unwrap().unwrap().live;
            assert_eq!(live.is_some(), to.is_committed(), "{to}");
        }
        let read = store.deployment("a", 1).await.unwrap().unwrap();
        assert!(read.live && read.finished_at.is_some());
        assert_eq!(read.capsule, capsule('a'));
    }

    async fn a_step_from_another_state_or_generation_is_refused(store: &Store) {
        tenant(store).await;
        let row = begin(store, capsule('a')).await;
        for (from, to) in [
            (State::Healthy, State::Shifting),
            (State::Requested, State::Verified),
        ] {
            let refused = store.advance(step(&row, from, to)).await;
            assert!(matches!(refused, Err(StoreError::Stale { .. })));
        }
        let mut older = step(&row, State::Requested, State::Provisioned);
        older.generation -= 1;
        assert!(matches!(
            store.advance(older).await,
            Err(StoreError::Stale { .. })
        ));
    }

    async fn the_first_failure_is_the_one_that_is_kept(store: &Store) {
        tenant(store).await;
        let row = begin(store, capsule('a')).await;
        let failure = |code: &str| {
            Some(Failure {
                code: code.into(),
                ..Failure::default()
            })
        };
        let mut first = step(&row, State::Requested, State::RollingBack);
        first.failure = failure("exited");
        store.advance(first).await.unwrap();
        let mut second = step(&row, State::RollingBack, State::Failed);
        second.failure = failure("interrupted");
        store.advance(second).await.unwrap();
        let read = store.deployment("a", 1).await.unwrap().unwrap();
        assert_eq!(read.failure.unwrap().code, "exited");
    }

    async fn the_good_one_before_skips_failures_and_the_same_release(store: &Store) {
        tenant(store).await;
        for (digit, states) in [
            ('a', GOOD),
            ('b', GOOD),
            ('c', &[State::RollingBack, State::RolledBack][..]),
            ('b', GOOD),
        ] {
            let row = begin(store, capsule(digit)).await;
            walk(store, &row, states).await;
        }
        let live = store.deployment("a", 4).await.unwrap().unwrap();
        let good = store.good_before("a", 4, live.release_id).await.unwrap();
        assert_eq!(good.unwrap().number, 1);
        let tagged = store.good_by_tag("a", "t").await.unwrap();
        assert_eq!(tagged.unwrap().number, 4);
        assert_eq!(store.digests_in_use(1).await.unwrap().len(), 1);
        assert_eq!(store.digests_in_use(10).await.unwrap().len(), 3);
    }

    async fn a_tenant_is_not_deleted_under_a_running_deployment(store: &Store) {
        tenant(store).await;
        let row = begin(store, capsule('a')).await;
        assert!(matches!(
            store.delete_tenant("a", &Actor::server()).await,
            Err(StoreError::InProgress { number: 1 })
        ));
        walk(store, &row, &[State::RollingBack, State::Failed]).await;
        store.delete_tenant("a", &Actor::server()).await.unwrap();
    }
}
