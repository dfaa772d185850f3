//! Environments that exist without being written into a file.

use super::api_url::SANDBOX_API;

/// An environment with the values in which it differs from the defaults.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinEnvironment {
    /// Its name.
    pub name: &'static str,
    /// Key and value, as variables would set them.
    pub values: &'static [(&'static str, &'static str)],
}

/// All of them. `local` builds on the host's own libraries, so that a first deployment needs
/// neither a registry nor a network, and without the papers that nobody reads there. `production` names no address: whoever hosts the platform
/// sets `api.url` once for the whole file, and it must hold there too.
pub const BUILTIN_ENVIRONMENTS: &[BuiltinEnvironment] = &[
    BuiltinEnvironment {
        name: "local",
        values: &[
            ("control_plane", "embedded"),
            ("image.base", "host"),
            ("image.sbom", "false"),
            ("image.provenance", "false"),
        ],
    },
    BuiltinEnvironment {
        name: "sandbox",
        values: &[
            ("control_plane", "management-api"),
            ("api.url", SANDBOX_API),
        ],
    },
    BuiltinEnvironment {
        name: "production",
        values: &[("control_plane", "management-api")],
    },
];

/// The built-in environment of this name.
#[must_use]
pub fn builtin_environment(name: &str) -> Option<&'static BuiltinEnvironment> {
    BUILTIN_ENVIRONMENTS
        .iter()
        .find(|environment| environment.name == name)
}
