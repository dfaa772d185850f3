//! Services of releases as they are stored, and the ports that they are reached at.

use std::collections::{BTreeMap, BTreeSet};

use management_api::types::{HealthCheck, Protocol, Resources, Restart, Route};
use serde::{Deserialize, Serialize};

use super::sql::params;
use super::{Store, StoreError};
use crate::deployments::{Group, Service};

/// [`Group`] in the column `releases.services`.
#[derive(Serialize, Deserialize)]
struct GroupRecord {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    depends_on: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<Route>>,
    #[serde(default)]
    services: BTreeMap<String, ServiceRecord>,
}

#[derive(Serialize, Deserialize)]
struct ServiceRecord {
    digest: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, String>,
    health: HealthCheck,
    replicas: u32,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    restart: Restart,
    #[serde(default)]
    depends_on: BTreeSet<String>,
    #[serde(default)]
    protocol: Option<Protocol>,
    #[serde(default)]
    routes: Vec<Route>,
}

/// The column of a release's group.
pub(super) fn to_column(group: &Group) -> Result<Option<String>, StoreError> {
    if *group == Group::default() {
        return Ok(None);
    }
    let group = group.clone();
    let services = group.services.into_iter();
    let record = GroupRecord {
        command: group.command,
        depends_on: group.depends_on,
        volumes: group.volumes,
        routes: group.routes,
        services: services.map(|(name, s)| (name, s.into())).collect(),
    };
    Ok(Some(serde_json::to_string(&record)?))
}

/// Reads [`to_column`] back.
pub(super) fn from_column(column: Option<String>) -> Result<Group, StoreError> {
    let Some(text) = column else {
        return Ok(Group::default());
    };
    let record: GroupRecord = serde_json::from_str(&text)?;
    let services = record.services.into_iter();
    Ok(Group {
        command: record.command,
        depends_on: record.depends_on,
        volumes: record.volumes,
        routes: record.routes,
        services: services.map(|(name, s)| (name, s.into())).collect(),
    })
}

impl From<Service> for ServiceRecord {
    fn from(service: Service) -> Self {
        Self {
            digest: service.digest,
            command: service.command,
            env: service.env,
            secrets: service.secrets,
            volumes: service.volumes,
            health: service.health,
            replicas: service.replicas,
            resources: service.resources,
            restart: service.restart,
            depends_on: service.depends_on,
            protocol: service.protocol,
            routes: service.routes,
        }
    }
}

impl From<ServiceRecord> for Service {
    fn from(record: ServiceRecord) -> Self {
        Self {
            digest: record.digest,
            command: record.command,
            env: record.env,
            secrets: record.secrets,
            volumes: record.volumes,
            health: record.health,
            replicas: record.replicas,
            resources: record.resources,
            restart: record.restart,
            depends_on: record.depends_on,
            protocol: record.protocol,
            routes: record.routes,
        }
    }
}

impl Store {
    /// Where services of a tenant are reached, by name.
    pub(crate) async fn service_ports(
        &self,
        tenant: &str,
    ) -> Result<BTreeMap<String, u16>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |transaction| {
            let sql = "SELECT service, port FROM service_ports WHERE tenant = ?1";
            let rows: Vec<(String, u16)> =
                transaction.all(sql, params![tenant], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.into_iter().collect())
        })
        .await
    }

    /// Gives services of a tenant ports, and takes those of others away: all of it or nothing.
    pub(crate) async fn set_service_ports(
        &self,
        tenant: &str,
        ports: BTreeMap<String, u16>,
    ) -> Result<(), StoreError> {
        let tenant = tenant.to_owned();
        self.write(move |transaction| {
            transaction.execute(
                "DELETE FROM service_ports WHERE tenant = ?1",
                params![tenant],
            )?;
            for (service, port) in ports {
                transaction.execute(
                    "INSERT INTO service_ports (tenant, service, port) VALUES (?1, ?2, ?3)",
                    params![tenant, service, port],
                )?;
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::deployment_fixtures::{begin, tenant};
    use super::super::fixtures::store;
    use super::*;
    use crate::deployments::{Capsule, capsule_fixture, service_fixture};

    #[tokio::test]
    async fn a_release_comes_back_with_all_of_its_services() {
        let (store, _folder) = store();
        tenant(&store).await;
        let worker = Service {
            command: vec!["work".to_owned()],
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            secrets: BTreeMap::from([("B".to_owned(), "c".to_owned())]),
            volumes: BTreeMap::from([("d".to_owned(), "/e".to_owned())]),
            depends_on: BTreeSet::from(["app".to_owned()]),
            protocol: None,
            routes: vec![Route::default()],
            replicas: 3,
            ..service_fixture('b')
        };
        let group = Group {
            command: vec!["serve".to_owned()],
            depends_on: BTreeSet::from(["x".to_owned()]),
            volumes: BTreeMap::from([("data".to_owned(), "/data".to_owned())]),
            routes: Some(Vec::new()),
            services: BTreeMap::from([("worker".to_owned(), worker)]),
        };
        let capsule = Capsule {
            group,
            ..capsule_fixture('a')
        };
        let row = begin(&store, capsule.clone()).await;
        assert_eq!(row.capsule, capsule);
        let digests = store.digests_in_use(10).await.unwrap();
        assert_eq!(digests.len(), 2, "{digests:?}");
        let releases = store.releases_in_use().await.unwrap();
        assert!(
            releases[0]
                .images()
                .eq(capsule.digests().iter().map(String::as_str))
        );
    }

    #[tokio::test]
    async fn a_release_of_one_service_is_stored_as_before() {
        let (store, _folder) = store();
        tenant(&store).await;
        let row = begin(&store, capsule_fixture('a')).await;
        assert_eq!(row.capsule, capsule_fixture('a'));
        assert_eq!(to_column(&row.capsule.group).unwrap(), None);
    }

    #[tokio::test]
    async fn a_port_is_one_services() {
        let (store, _folder) = store();
        let ports = |name: &str, port| BTreeMap::from([(name.to_owned(), port)]);
        store.set_service_ports("a", ports("x", 1)).await.unwrap();
        assert!(store.set_service_ports("b", ports("x", 1)).await.is_err());
        store.set_service_ports("a", ports("y", 2)).await.unwrap();
        assert_eq!(store.service_ports("a").await.unwrap(), ports("y", 2));
        store.set_service_ports("b", ports("x", 1)).await.unwrap();
    }
}
