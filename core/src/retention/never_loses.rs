//! Whatever is pushed, deployed, rolled back and collected in whatever order: nothing is lost that a kept release
//! needs, and nothing stays that nobody does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci::{Descriptor, Digest, ImageIndex, ImageManifest, Repository, media_type};
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::{Collector, GRACE, Rules};
use crate::deployments::{Capsule, State, capsule_fixture};
use crate::store::deployment_fixtures::{GOOD, request, walk};
use crate::store::fixtures::store;
use crate::store::{Actor, DeploymentRow, NewDeployment, SecretChange, Store, TenantRow, now};

const TENANTS: [&str; 2] = ["a", "b"];
const CASES: u32 = 24;

#[derive(Debug, Clone)]
enum Step {
    /// The blobs of an image, and what is missing when it is finished.
    BeginPush {
        tenant: usize,
        image: u8,
    },
    FinishPush,
    Deploy {
        tenant: usize,
        image: u8,
        ends: Ends,
    },
    /// Whatever is being deployed comes to its end.
    Settle {
        tenant: usize,
    },
    RollBack {
        tenant: usize,
    },
    SetSecret {
        tenant: usize,
    },
    /// Days pass.
    Age,
    Collect {
        releases_kept: usize,
        keeps_young: bool,
        is_bounded: bool,
        at_once: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ends {
    Well,
    Badly,
    Later,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tenant = 0..TENANTS.len();
    let ends = prop_oneof![4 => Just(Ends::Well), 1 => Just(Ends::Badly), 1 => Just(Ends::Later)];
    let at_once = prop_oneof![Just(usize::MAX), 1..5_usize];
    let step = prop_oneof![
        2 => (tenant.clone(), 0..6_u8).prop_map(|(tenant, image)| Step::BeginPush { tenant, image }),
        1 => Just(Step::FinishPush),
        6 => (tenant.clone(), 0..6_u8, ends)
            .prop_map(|(tenant, image, ends)| Step::Deploy { tenant, image, ends }),
        1 => tenant.clone().prop_map(|tenant| Step::Settle { tenant }),
        2 => tenant.clone().prop_map(|tenant| Step::RollBack { tenant }),
        2 => tenant.prop_map(|tenant| Step::SetSecret { tenant }),
        3 => Just(Step::Age),
        4 => (1..4_usize, any::<bool>(), any::<bool>(), at_once).prop_map(
            |(releases_kept, keeps_young, is_bounded, at_once)| Step::Collect {
                releases_kept,
                keeps_young,
                is_bounded,
                at_once,
            }
        ),
    ];
    prop::collection::vec(step, 5..25)
}

/// What has to be there, told without the code under test.
#[derive(Default)]
struct Model {
    /// Newest last.
    deployments: Vec<Deployed>,
    secret: u64,
    /// Releases that nobody needed when something was collected: a later rollback or another rule does not bring
    /// them back.
    gone: BTreeSet<Release>,
}

/// An image and the versions of its secrets.
type Release = (Digest, BTreeMap<String, u64>);

#[derive(Clone)]
struct Deployed {
    release: Release,
    row: DeploymentRow,
    /// The number that a rollback stands at.
    stands: u64,
    served: bool,
    running: bool,
}

impl Model {
    fn live(&self) -> Option<&Deployed> {
        self.deployments.iter().rev().find(|one| one.served)
    }

    fn next_back(&self) -> Option<&Deployed> {
        let live = self.live()?;
        let older = self.deployments.iter().rev();
        let mut older = older.filter(|one| one.served && one.row.number < live.stands);
        older.find(|one| one.release != live.release)
    }

    fn wanted(&self, releases_kept: usize) -> Vec<Deployed> {
        let mut newest: Vec<&Deployed> = Vec::new();
        for one in self.deployments.iter().rev().filter(|one| one.served) {
            if newest.iter().all(|known| known.release != one.release) {
                newest.push(one);
            }
        }
        newest.truncate(releases_kept);
        let running = self.deployments.iter().filter(|one| one.running);
        let wanted = newest.into_iter().chain(self.live());
        let wanted = wanted.chain(self.next_back()).chain(running);
        wanted.cloned().collect()
    }

    /// Of what is wanted, what has been so all the time.
    fn needed(&self, releases_kept: usize) -> Vec<Deployed> {
        let mut wanted = self.wanted(releases_kept);
        wanted.retain(|one| !self.gone.contains(&one.release));
        wanted
    }

    /// What is not needed now need not be there later.
    fn forget(&mut self, releases_kept: usize) {
        let needed = self.needed(releases_kept);
        for one in &self.deployments {
            if needed.iter().all(|needed| needed.release != one.release) {
                self.gone.insert(one.release.clone());
            }
        }
    }
}

struct World {
    store: Store,
    images: Arc<oci::Store>,
    models: [Model; 2],
    /// A push whose manifest has not come yet.
    pushing: Option<(usize, u8)>,
    days: i64,
    _folder: tempfile::TempDir,
}

fn layers(image: u8) -> Vec<Vec<u8>> {
    vec![b"base".to_vec(), vec![b'm', image % 2], vec![b'l', image]]
}

fn is_list(image: u8) -> bool {
    image % 2 == 1
}

fn repository(tenant: usize) -> Repository {
    TENANTS[tenant].parse().unwrap()
}

impl World {
    async fn new() -> Self {
        let (store, folder) = store();
        for (tenant, port) in TENANTS.into_iter().zip(2000..) {
            let row = TenantRow {
                id: tenant.into(),
                name: tenant.into(),
                port,
                live: None,
                stand_in: None,
            };
            store.create_tenant(row, &Actor::server()).await.unwrap();
        }
        let images = oci::Store::open(folder.path().join("registry")).unwrap();
        Self {
            store,
            images: Arc::new(images),
            models: Default::default(),
            pushing: None,
            days: 0,
            _folder: folder,
        }
    }

    fn put(&self, tenant: usize, bytes: &[u8]) -> Descriptor {
        let digest = self.images.put_bytes(bytes).unwrap();
        self.images.link(&repository(tenant), &digest).unwrap();
        Descriptor::new(media_type::OCI_LAYER, digest, bytes.len() as u64)
    }

    fn parts(&self, tenant: usize, image: u8) -> (Descriptor, Vec<Descriptor>) {
        let layers = layers(image);
        let layers = layers.iter().map(|layer| self.put(tenant, layer)).collect();
        (self.put(tenant, &[b'c', image]), layers)
    }

    /// An image, every other one in a list, and a paper about what is deployed.
    fn push(&self, tenant: usize, image: u8) -> Digest {
        let (config, layers) = self.parts(tenant, image);
        let manifest = ImageManifest::new(config.clone(), layers);
        let mut digest = self.manifest(tenant, &manifest);
        if is_list(image) {
            digest = self.list(tenant, digest, &manifest);
        }
        let tag = format!("v{image}").parse().unwrap();
        self.images
            .set_tag(&repository(tenant), &tag, &digest)
            .unwrap();
        let text = self.put(tenant, &[b'p', image]);
        let mut paper = ImageManifest::new(config, vec![text]);
        paper.subject = Some(Descriptor::new(media_type::OCI_MANIFEST, digest, 1));
        let about = self.manifest(tenant, &paper);
        self.images
            .link_referrer(&repository(tenant), &digest, &about)
            .unwrap();
        digest
    }

    fn list(&self, tenant: usize, image: Digest, manifest: &ImageManifest) -> Digest {
        let size = manifest.to_vec().len() as u64;
        let listed = Descriptor::new(media_type::OCI_MANIFEST, image, size);
        let list = ImageIndex::new(vec![listed]).to_vec();
        let digest = self.images.put_bytes(&list).unwrap();
        let (repository, media_type) = (repository(tenant), media_type::OCI_INDEX);
        let linked = self.images.link_manifest(&repository, &digest, media_type);
        linked.unwrap();
        digest
    }

    fn manifest(&self, tenant: usize, manifest: &ImageManifest) -> Digest {
        let digest = self.images.put_bytes(&manifest.to_vec()).unwrap();
        let media_type = media_type::OCI_MANIFEST;
        self.images
            .link_manifest(&repository(tenant), &digest, media_type)
            .unwrap();
        digest
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::BeginPush { tenant, image } => {
                self.parts(tenant, image);
                self.pushing = Some((tenant, image));
            }
            Step::FinishPush => {
                if let Some((tenant, image)) = self.pushing.take() {
                    self.push(tenant, image);
                }
            }
            Step::Deploy {
                tenant,
                image,
                ends,
            } => self.deploy(tenant, image, ends).await,
            Step::Settle { tenant } => self.settle(tenant).await,
            Step::RollBack { tenant } => self.roll_back(tenant).await,
            Step::SetSecret { tenant } => self.set_secret(tenant).await,
            Step::Age => self.age(),
            Step::Collect {
                releases_kept,
                keeps_young,
                is_bounded,
                at_once,
            } => {
                self.collect(Rules {
                    releases_kept,
                    age_kept: Duration::from_hours(if keeps_young { 24 * 365 } else { 0 }),
                    bytes_kept: is_bounded.then_some(0),
                    grace: GRACE,
                    at_once,
                })
                .await;
            }
        }
    }

    async fn deploy(&mut self, tenant: usize, image: u8, ends: Ends) {
        if self.models[tenant]
            .deployments
            .iter()
            .any(|one| one.running)
        {
            return;
        }
        let digest = self.push(tenant, image);
        let secret = self.models[tenant].secret;
        let secrets = (secret > 0).then(|| ("TOKEN".to_owned(), secret));
        let release = (digest, secrets.into_iter().collect());
        self.begin(tenant, release, None, ends).await;
    }

    async fn roll_back(&mut self, tenant: usize) {
        let model = &self.models[tenant];
        if model.deployments.iter().any(|one| one.running) {
            return;
        }
        let Some(back) = model.next_back().cloned() else {
            return;
        };
        if model.gone.contains(&back.release) {
            return;
        }
        self.whole(tenant, &back).await;
        self.begin(tenant, back.release, Some(back.stands), Ends::Well)
            .await;
    }

    async fn begin(&mut self, tenant: usize, release: Release, restores: Option<u64>, ends: Ends) {
        let capsule = Capsule {
            digest: release.0.to_string(),
            secrets: release.1.clone(),
            ..capsule_fixture('a')
        };
        let new = NewDeployment {
            tenant: TENANTS[tenant].into(),
            restores,
            ..request(capsule)
        };
        let row = self
            .store
            .begin_deployment(new, |_| unreachable!())
            .await
            .unwrap();
        self.models[tenant].gone.remove(&release);
        self.models[tenant].deployments.push(Deployed {
            release,
            stands: restores.unwrap_or(row.number),
            row: row.clone(),
            served: false,
            running: true,
        });
        match ends {
            Ends::Well => self.settle(tenant).await,
            Ends::Badly => {
                walk(&self.store, &row, &[State::RollingBack, State::RolledBack]).await;
                let last = self.models[tenant].deployments.last_mut().unwrap();
                last.running = false;
            }
            Ends::Later => {}
        }
    }

    async fn settle(&mut self, tenant: usize) {
        let last = self.models[tenant].deployments.last_mut();
        if let Some(last) = last.filter(|last| last.running) {
            walk(&self.store, &last.row, GOOD).await;
            last.running = false;
            last.served = true;
        }
    }

    async fn set_secret(&mut self, tenant: usize) {
        self.models[tenant].secret += 1;
        let change = SecretChange::Set {
            external: false,
            is_same: Box::new(|_, _| false),
            seal: Box::new(|version| Some(version.to_le_bytes().to_vec())),
        };
        let changes = vec![("TOKEN".to_owned(), change)];
        let actor = Actor::server();
        let changed = self.store.change_secrets(TENANTS[tenant], &actor, changes);
        changed.await.unwrap();
    }

    /// Everything but a push that goes on.
    fn age(&mut self) {
        self.days += 2;
        make_old(self.images.root());
        if let Some((tenant, image)) = self.pushing {
            self.parts(tenant, image);
        }
    }

    async fn collect(&mut self, rules: Rules) {
        let releases_kept = rules.releases_kept;
        let is_strict = rules.age_kept.is_zero() && rules.at_once == usize::MAX;
        let collector = Collector {
            store: self.store.clone(),
            images: Arc::clone(&self.images),
            rules,
        };
        let now = now() + chrono::TimeDelta::days(self.days);
        let planned = collector.look(now).await.unwrap().collection;
        let done = collector
            .collect(&Actor::server(), now, ())
            .await
            .unwrap()
            .collection;
        assert_eq!(planned.releases, done.releases);
        let figures = |c: &management_api::types::Collection| {
            (
                c.manifests,
                c.blobs,
                c.bytes,
                c.secret_versions,
                c.bytes_kept,
            )
        };
        assert_eq!(
            figures(&planned),
            figures(&done),
            "what was said is what was done"
        );
        self.nothing_in_parts();
        for tenant in 0..TENANTS.len() {
            let needed = self.models[tenant].needed(releases_kept);
            for one in &needed {
                self.whole(tenant, one).await;
            }
            if is_strict {
                self.nothing_else(tenant, &self.models[tenant].wanted(releases_kept));
            }
            self.models[tenant].forget(releases_kept);
        }
        if let Some((tenant, image)) = self.pushing {
            for layer in layers(image) {
                let there = self.images.renew(&repository(tenant), &Digest::of(&layer));
                assert!(there.unwrap(), "a push goes on");
            }
        }
    }

    /// What stays has all that it names, however much goes at a time.
    fn nothing_in_parts(&self) {
        let inventory = self.images.inventory().unwrap();
        for (repository, holdings) in &inventory.repositories {
            for digest in holdings.manifests.keys() {
                assert!(
                    inventory.is_whole(repository, digest),
                    "{digest} stays in parts"
                );
                assert!(
                    self.images.is_whole(repository, digest).unwrap(),
                    "{digest}"
                );
            }
        }
    }

    /// A release can be started: its image, what is about that, and its secrets.
    async fn whole(&self, tenant: usize, one: &Deployed) {
        let (digest, secrets) = &one.release;
        let parts = self.images.parts(&repository(tenant), digest).unwrap();
        let media_type = self.images.manifest_media_type(&repository(tenant), digest);
        let is_list = media_type.unwrap().as_deref() == Some(media_type::OCI_INDEX);
        let manifests = 2 + usize::from(is_list);
        assert_eq!((parts.manifests.len(), parts.blobs.len()), (manifests, 5));
        for part in &parts.manifests {
            self.images.verify(part).unwrap();
            let linked = self.images.manifest_media_type(&repository(tenant), part);
            assert!(linked.unwrap().is_some());
        }
        for part in &parts.blobs {
            self.images.verify(part).unwrap();
            assert!(self.images.linked(&repository(tenant), part));
        }
        let opened = self
            .store
            .sealed_secrets(TENANTS[tenant], secrets)
            .await
            .unwrap();
        let versions: BTreeMap<_, _> = opened
            .into_iter()
            .map(|(n, version, _)| (n, version))
            .collect();
        assert_eq!(versions, *secrets);
    }

    /// Of what is old.
    fn nothing_else(&self, tenant: usize, needed: &[Deployed]) {
        let repository = repository(tenant);
        let inventory = self.images.inventory().unwrap();
        let Some(holdings) = inventory.repositories.get(&repository) else {
            return;
        };
        let needed: BTreeSet<Digest> = needed
            .iter()
            .flat_map(|one| holdings.family(&one.release.0))
            .collect();
        let deployed: BTreeSet<Digest> = self.models[tenant]
            .deployments
            .iter()
            .map(|one| one.release.0)
            .collect();
        for (digest, manifest) in &holdings.manifests {
            let is_old = manifest.age > GRACE && (self.days > 0 || !deployed.contains(digest));
            assert!(needed.contains(digest) || !is_old, "{digest} stays");
        }
    }
}

fn make_old(folder: &Path) {
    let long_ago = SystemTime::now() - Duration::from_hours(48);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            make_old(&path);
        } else {
            File::open(&path).unwrap().set_modified(long_ago).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn no_sequence_loses_what_a_kept_release_needs(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.take(step).await;
            }
            let everything = Rules {
                releases_kept: 2,
                age_kept: Duration::ZERO,
                bytes_kept: None,
                grace: GRACE,
                at_once: usize::MAX,
            };
            world.age();
            world.collect(everything).await;
        });
    }
}
