//! Requests while releases change: none may fail.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::machine::{Machine, get};

const DEPLOYMENTS: usize = 20;

#[test]
fn no_request_fails_during_twenty_deployments() {
    let machine = Machine::new();
    let url = machine.deploy_well()["url"].as_str().unwrap().to_owned();
    let over = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    match get(&format!("{url}/api/v1/health")) {
                        Ok((200, _)) => {
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        other => failed.lock().unwrap().push(format!("{other:?}")),
                    }
                }
            });
        }
        let deployed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..DEPLOYMENTS {
                let (code, report) = machine.deploy(&["--force", "--skip-build"]);
                assert_eq!(code, 0, "{report:#}");
            }
        }));
        over.store(true, Ordering::Release);
        if let Err(panic) = deployed {
            std::panic::resume_unwind(panic);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} requests failed, first: {:?}",
        failed.len(),
        failed.first()
    );
    let served = served.into_inner();
    assert!(served > DEPLOYMENTS, "only {served} requests were made");
}
