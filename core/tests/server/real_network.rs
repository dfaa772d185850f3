//! Networks of Docker's that somebody has made in his own way.

use crate::docker::Docker;
use crate::engine::Engine;
use crate::services;

/// Networks are the machine's, whichever test has made them.
const TRIES: u8 = 20;

#[test]
fn services_find_each_other_in_a_network_made_with_nothing_but_a_subnet() {
    const NAME: &str = "systemprompt-subnet-alone";
    let docker = Docker::start();
    // What an earlier run has left.
    docker.docker(&["network", "rm", NAME]);
    let made = (0..TRIES).find(|third| {
        let subnet = format!("10.213.{third}.0/24");
        let made = docker.docker(&["network", "create", "--subnet", &subnet, NAME]);
        made.status.success()
    });
    assert!(made.is_some(), "{:?}", docker.docker(&["network", "ls"]));
    let engine = Engine::docker_in(docker, NAME);
    engine
        .clone()
        .run(services::they_start_behind_what_they_depend_on_and_find_each_other);
    if let Engine::Docker { docker, .. } = engine {
        docker.ask(&["network", "rm", NAME]);
    }
}
