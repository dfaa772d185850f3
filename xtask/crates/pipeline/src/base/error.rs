//! Why a base image cannot be had, and what to do about it.

use deploy_image::{LookError, PlanError};
use deploy_plan::config::without_passwords;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use oci::{ClientError, ParseManifestError, ParseReferenceError, StoreError};

use crate::control::with_causes;
use crate::lock::{LockError, Pin};

/// Why a base image cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaseError {
    #[error("`{}` names no image", without_passwords(text))]
    Reference {
        text: String,
        #[source]
        source: ParseReferenceError,
    },
    /// The note says what there was to say about credentials.
    #[error("cannot get {image}{}", note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default())]
    Registry {
        image: String,
        note: Option<String>,
        #[source]
        source: Box<ClientError>,
    },
    #[error("{image} has no image for {wanted}; it has {offered}")]
    NoPlatform {
        image: String,
        wanted: String,
        offered: String,
    },
    #[error("{image} is for {found}, the image is to be for {wanted}")]
    OtherPlatform {
        image: String,
        found: String,
        wanted: String,
    },
    #[error("{} for {} is not in .systemprompt/deploy.lock", pin.reference, pin.platform)]
    NotLocked { pin: Pin },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the manifest of {image} cannot be used")]
    Manifest {
        image: String,
        #[source]
        source: ParseManifestError,
    },
    #[error("the configuration of {image} cannot be used: {reason}")]
    Configuration { image: String, reason: String },
    #[error("cannot look into {image}")]
    Look {
        image: String,
        #[source]
        source: LookError,
    },
    /// What was kept of it is there no more.
    #[error("what is known of {image} cannot be read")]
    Unknown { image: String },
    #[error("cannot keep {image}")]
    Store {
        image: String,
        #[source]
        source: StoreError,
    },
}

impl BaseError {
    /// The failure of the step that met it.
    pub(crate) fn failure(&self, step: Step) -> Failure {
        if let Self::Registry { source, .. } = self
            && matches!(**source, ClientError::Interrupted)
        {
            return crate::run::interrupted(step);
        }
        let (code, exit) = self.code();
        Failure::new(step, code, exit, with_causes(self), self.resolution())
    }

    fn code(&self) -> (&'static str, Exit) {
        match self {
            Self::Reference { .. } => ("base_invalid", Exit::Configuration),
            Self::Registry { source, .. } => match **source {
                ClientError::Unauthorized { .. } | ClientError::Denied { .. } => {
                    ("base_unauthorized", Exit::Authentication)
                }
                ClientError::NotFound { .. } => ("base_not_found", Exit::Configuration),
                ClientError::Untrusted { .. } => ("registry_untrusted", Exit::Push),
                ClientError::RootCertificates(_) => ("ca_file_invalid", Exit::Configuration),
                _ => ("base_unreachable", Exit::Other),
            },
            Self::NoPlatform { .. } | Self::OtherPlatform { .. } => {
                ("base_platform_missing", Exit::Configuration)
            }
            Self::NotLocked { .. } => ("base_not_locked", Exit::Configuration),
            Self::Lock(LockError::Write { .. }) => ("lock_not_written", Exit::Other),
            Self::Lock(_) => ("lock_invalid", Exit::Configuration),
            Self::Manifest { .. } | Self::Configuration { .. } | Self::Look { .. } => {
                ("base_broken", Exit::Other)
            }
            Self::Store { .. } | Self::Unknown { .. } => ("store_failed", Exit::Build),
        }
    }

    fn resolution(&self) -> String {
        match self {
            Self::Reference {
                source: ParseReferenceError::Credentials,
                ..
            } => "take them out of the name, log in to its registry: docker login, and change the \
                  password where it stood in a file that others have"
                .into(),
            Self::Reference { .. } => "write it as registry/repository:tag".into(),
            Self::Registry { source, image, .. } => match **source {
                ClientError::Unauthorized { .. } | ClientError::Denied { .. } => {
                    "check its name, and log in to its registry: docker login".into()
                }
                ClientError::NotFound { .. } if image.contains('@') => {
                    "its registry has it no more: cargo xtask lock --update".into()
                }
                ClientError::NotFound { .. } => "correct its name or its tag".into(),
                ClientError::Untrusted { .. } => crate::push::AUTHORITY.into(),
                ClientError::RootCertificates(_) => {
                    "correct SSL_CERT_FILE: a file with certificates in PEM".into()
                }
                _ => "check the network, then run the same command again; an application's image \
                      can stand on --base host instead"
                    .into(),
            },
            Self::NoPlatform { .. } | Self::OtherPlatform { .. } => {
                "choose another base, or set image.platform to one that it has".into()
            }
            Self::NotLocked { .. } => {
                "pin it with `cargo xtask lock` and commit the file, or leave out --locked".into()
            }
            Self::Lock(LockError::Version { .. }) => {
                "use the version of the tool that wrote it".into()
            }
            Self::Lock(LockError::Write { .. }) => "make .systemprompt/ writable".into(),
            Self::Lock(_) => {
                "correct it, or remove it and run `cargo xtask lock`: bases may then be newer"
                    .into()
            }
            Self::Manifest { .. } | Self::Configuration { .. } => {
                "choose another base image".into()
            }
            Self::Look { .. } => {
                "choose another base image, or set image.check_libraries = false".into()
            }
            Self::Store { .. } | Self::Unknown { .. } => {
                "make room on its disk, or .systemprompt/cache/ writable; what is in there may be removed".into()
            }
        }
    }

    /// The failure behind a plan that could not be made, where a base image is the reason.
    pub(crate) fn behind(error: &PlanError) -> Option<Failure> {
        let PlanError::Base { at, source, .. } = error else {
            return None;
        };
        let base = source.downcast_ref::<Self>()?;
        let mut failure = base.failure(Step::Image);
        failure.details = format!("{at}: {}", failure.details);
        Some(failure)
    }

    /// The failure behind a push that could not read a layer of a base image.
    pub(crate) fn behind_push(error: &ClientError) -> Option<Failure> {
        let ClientError::Source { source, .. } = error else {
            return None;
        };
        let base = source.get_ref()?.downcast_ref::<Self>()?;
        Some(base.failure(Step::Push))
    }
}
