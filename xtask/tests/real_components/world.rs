//! A project, a registry behind a proxy, a Management API, and what every failure must be like.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::management::{RegistryAccess, TENANT, Variant};
use testkit::process::Running;
use testkit::workspace::{Layout, api_variables};
use testkit::{DockerRegistry, FaultProxy, Finished, ManagementApi, Watch, Workspace};

/// The program under test.
pub(crate) const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
/// The registry's user.
const USER: &str = "robot";

/// Everything that a deployment to the cloud meets.
pub(crate) struct World {
    pub(crate) workspace: Workspace,
    pub(crate) registry: DockerRegistry,
    pub(crate) proxy: FaultProxy,
    pub(crate) api: ManagementApi,
    pub(crate) variant: Variant,
    watch: Option<Watch>,
    outputs: std::cell::RefCell<Vec<String>>,
}

impl World {
    /// A sound project and a variant of the Management API.
    pub(crate) fn new(variant: Variant) -> Self {
        Self::laid_out(variant, &Layout::default())
    }

    /// A project as described.
    pub(crate) fn laid_out(variant: Variant, layout: &Layout) -> Self {
        let password = testkit::management::token_that_ends(std::time::SystemTime::now());
        let registry = DockerRegistry::with_password(USER, &password);
        let proxy = FaultProxy::before(registry.address());
        let access = registry.access_through(&proxy.host());
        let api = ManagementApi::start(variant, access, registry.looks_up());
        Self::of(layout, registry, proxy, api)
    }

    /// A project whose Management API hands out a wrong password.
    pub(crate) fn with_wrong_password(variant: Variant) -> Self {
        let registry = DockerRegistry::with_password(USER, "right-password");
        let proxy = FaultProxy::before(registry.address());
        let access = RegistryAccess {
            registry: proxy.host(),
            username: USER.to_owned(),
            password: "wrong-password-of-the-test".to_owned(),
        };
        let api = ManagementApi::start(variant, access, registry.looks_up());
        Self::of(&Layout::default(), registry, proxy, api)
    }

    /// A project whose Management API does not find the image that was pushed.
    pub(crate) fn that_loses_images(variant: Variant) -> Self {
        let registry = DockerRegistry::open();
        let proxy = FaultProxy::before(registry.address());
        let access = registry.access_through(&proxy.host());
        let api = ManagementApi::start(variant, access, Box::new(|_| false));
        Self::of(&Layout::default(), registry, proxy, api)
    }

    /// A project as described, whose registry lets everybody in.
    pub(crate) fn open(variant: Variant, layout: &Layout) -> Self {
        let registry = DockerRegistry::open();
        let proxy = FaultProxy::before(registry.address());
        let access = registry.access_through(&proxy.host());
        let api = ManagementApi::start(variant, access, registry.looks_up());
        Self::of(layout, registry, proxy, api)
    }

    /// A project whose images go to a registry of this name, which is reached over TLS.
    pub(crate) fn with_registry_named(variant: Variant, name: &str) -> Self {
        let password = testkit::management::token_that_ends(std::time::SystemTime::now());
        let registry = DockerRegistry::with_password(USER, &password);
        let proxy = FaultProxy::secured_before(registry.address());
        let api = ManagementApi::start(variant, registry.access_through(name), registry.looks_up());
        Self::of(&Layout::default(), registry, proxy, api)
    }

    fn of(
        layout: &Layout,
        registry: DockerRegistry,
        proxy: FaultProxy,
        api: ManagementApi,
    ) -> Self {
        let watch = Watch::over(api.secret_values());
        Self {
            workspace: Workspace::laid_out(layout),
            registry,
            proxy,
            variant: api.variant(),
            api,
            watch: Some(watch),
            outputs: std::cell::RefCell::default(),
        }
    }

    /// `cargo xtask deploy -e production` with one JSON document as its result.
    pub(crate) fn deploy(&self, arguments: &[&str]) -> Finished {
        self.run(
            &[
                &["deploy", "-e", "production", "--output", "json"],
                arguments,
            ]
            .concat(),
        )
    }

    /// The same for people.
    pub(crate) fn deploy_for_people(&self, arguments: &[&str]) -> Finished {
        self.run(&[&["deploy", "-e", "production"], arguments].concat())
    }

    /// Any command, with the three variables that are enough in CI.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        self.keep(self.workspace.deploy_to(XTASK, &self.api, arguments))
    }

    /// The same with further variables.
    pub(crate) fn run_with(&self, arguments: &[&str], more: &[(&str, &str)]) -> Finished {
        let url = self.api.url();
        let variables = [&api_variables(&url, self.api.token())[..], more].concat();
        self.keep(self.workspace.xtask(XTASK, arguments, &variables))
    }

    /// Any command, still running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let url = self.api.url();
        let variables = api_variables(&url, self.api.token());
        self.workspace.start_xtask(XTASK, arguments, &variables)
    }

    /// Interrupts a command as Ctrl-C does and waits for its end.
    pub(crate) fn interrupt(&self, running: Running) -> Finished {
        running.signal_group(Signal::SIGINT);
        self.keep(running.wait(Duration::from_mins(1)))
    }

    fn keep(&self, finished: Finished) -> Finished {
        let mut outputs = self.outputs.borrow_mut();
        outputs.push(finished.stdout.clone());
        outputs.push(finished.stderr.clone());
        finished
    }

    /// New content for the image without a compilation.
    pub(crate) fn change_a_file(&self, content: &str) {
        self.workspace
            .write("services/app.yaml", &format!("name: {content}\n"));
    }

    /// Whether the registry holds a tag in the tenant's repository.
    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.registry.has(self.variant.repository(), tag)
    }

    /// The digests of the blobs whose upload was answered.
    pub(crate) fn blobs_put(&self) -> Vec<String> {
        let exchanges = self.proxy.exchanges();
        let put = exchanges.iter().filter(|e| {
            e.request.method == "PUT"
                && e.status == Some(201)
                && e.request.path().contains("/blobs/uploads/")
        });
        let digests = put.filter_map(|e| {
            let (_, digest) = e.request.target.split_once("digest=")?;
            Some(digest.replace("%3A", ":"))
        });
        digests.collect()
    }

    /// Where a call of the tenant goes.
    pub(crate) fn tenant_path(call: &str) -> String {
        format!("/api/v1/tenants/{TENANT}/{call}")
    }

    /// Ends the watch: no secret was in an output, a file, a command line or a child's
    /// environment, and no temporary file is left.
    #[track_caller]
    pub(crate) fn assert_nothing_leaked(mut self) {
        let mut watch = self.watch.take().expect("watched once");
        watch.also(self.api.secret_values());
        let outputs = self.outputs.take();
        let left = self.workspace.left_behind();
        assert!(left.is_empty(), "temporary files are left: {left:?}");
        watch.assert_none(
            outputs.iter().map(String::as_str),
            &[self.workspace.everything()],
        );
    }
}

/// What a failed command said, as programs read it.
pub(crate) struct Failed {
    pub(crate) step: String,
    pub(crate) code: String,
    pub(crate) details: String,
    pub(crate) resolution: String,
    pub(crate) exit: i32,
    pub(crate) others: Vec<String>,
}

/// Reads the failure from the result and checks what every failure has: a document on standard
/// output, all of its parts, and the exit code that it announces.
#[track_caller]
pub(crate) fn failed(finished: &Finished) -> Failed {
    let report = finished.json();
    let error = &report["error"];
    let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
    let others = error["others"].as_array().cloned().unwrap_or_default();
    let failed = Failed {
        step: text("step"),
        code: text("code"),
        details: text("details"),
        resolution: text("resolution"),
        exit: finished.code(),
        others: others
            .iter()
            .filter_map(|o| o["code"].as_str())
            .map(str::to_owned)
            .collect(),
    };
    assert_ne!(failed.exit, 0, "{finished}");
    for part in [
        &failed.step,
        &failed.code,
        &failed.details,
        &failed.resolution,
    ] {
        assert!(
            !part.is_empty(),
            "a part of the failure is missing: {finished}"
        );
    }
    assert_eq!(error["exit"], Value::from(failed.exit), "{finished}");
    assert!(
        report["schema"].is_string() && report["status"].is_string(),
        "{finished}"
    );
    assert!(!finished.stderr.contains("panicked"), "{finished}");
    failed
}

/// A failure with its exit code, step and code.
#[track_caller]
pub(crate) fn assert_failed(finished: &Finished, exit: i32, step: &str, code: &str) -> Failed {
    let failed = failed(finished);
    assert_eq!(
        (failed.exit, failed.step.as_str(), failed.code.as_str()),
        (exit, step, code),
        "{finished}"
    );
    failed
}
