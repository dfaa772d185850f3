//! That nobody waits for the files of a volume that is removed but who asked for that.

use engines::{BoxFuture, Engine, Instance, InstanceSpec, Resources, VolumeId};
use oci::Digest;
use tokio::sync::Semaphore;

use super::*;
use crate::engine::AnyEngine;
use crate::rollout::simulation::scene::platform_on;
use crate::store::fixtures::store;

const TENANT: &str = "shop";
const VOLUME: &str = "data";

/// It has one volume, whose files go when somebody lets them.
struct Slow {
    begun: Arc<Semaphore>,
    end: Arc<Semaphore>,
}

impl Engine for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn lacks(&self, _: &Resources) -> Option<String> {
        None
    }

    fn start(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Instance, EngineError>> {
        Box::pin(async { Err(EngineError::NoInstances { id: spec.id }) })
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<Instance>, EngineError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async { Ok(()) })
    }

    fn end_all(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async { Ok(()) })
    }

    fn volumes(&self, _: String) -> BoxFuture<'_, Result<Vec<engines::VolumeInfo>, EngineError>> {
        let one = engines::VolumeInfo {
            name: VOLUME.to_owned(),
            created_at: None,
            bytes: None,
            in_use_by: None,
        };
        Box::pin(async { Ok(vec![one]) })
    }

    fn remove_volume(&self, _: VolumeId) -> BoxFuture<'_, Result<Option<Clearing>, EngineError>> {
        let (begun, end) = (Arc::clone(&self.begun), Arc::clone(&self.end));
        let clearing = Clearing::of(async move {
            begun.add_permits(1);
            let ended = end.acquire().await;
            ended.map(drop).map_err(|_| EngineError::ShuttingDown)
        });
        Box::pin(async { Ok(Some(clearing)) })
    }

    fn retain(&self, _: Vec<Digest>) -> BoxFuture<'_, Result<u64, EngineError>> {
        Box::pin(async { Ok(0) })
    }
}

#[tokio::test]
async fn deployments_begin_while_the_files_of_a_volume_go() {
    let (store, folder) = store();
    let (begun, end) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let engine = Slow {
        begun: Arc::clone(&begun),
        end: Arc::clone(&end),
    };
    let engine = AnyEngine::Instances(Arc::new(engine));
    let app = platform_on(folder.path(), &store, engine);
    let (platform, operator) = (App::clone(&app), Actor::named("operator"));
    let removal = tokio::spawn(async move { removed(&platform, TENANT, VOLUME, &operator).await });
    let files_go = begun.acquire().await;
    files_go.unwrap().forget();
    // what a deployment takes before it begins
    assert!(app.keeping.try_read().is_ok(), "deployments wait");
    assert!(!removal.is_finished(), "it is told before all has gone");
    end.add_permits(1);
    assert!(removal.await.unwrap().is_ok());
}
