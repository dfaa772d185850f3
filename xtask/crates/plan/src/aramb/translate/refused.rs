//! What the platform does not run, whatever else is said of it.

use super::Fault;
use crate::aramb::{Service, ServiceType};

/// Kinds of services that the platform does not run.
pub(super) fn refused(service: &Service) -> Option<Fault> {
    let name = &service.name;
    match service.kind {
        ServiceType::ArambAgent | ServiceType::Onboarding | ServiceType::Template => {
            Some(Fault::new(
                "type_not_offered",
                format!(
                    "`{name}` is of the type {}, which this platform does not run",
                    service.kind.name()
                ),
                "take it out of the file, deploy the others (--services), or deploy to aramb",
            ))
        }
        ServiceType::Frontend
            if service.settings.image.is_none() && service.settings.static_path.is_some() =>
        {
            Some(Fault::new(
                "static_not_offered",
                format!("`{name}` is static files without an image, and this platform runs images"),
                "give it an image that serves them, of a build for instance, or deploy to aramb",
            ))
        }
        kind if kind.is_database() && service.settings.public_net == Some(true) => {
            Some(Fault::new(
                "public_not_offered",
                format!(
                    "`{name}` is a database and public, and this platform publishes HTTP alone"
                ),
                "take `publicNet` out of it: the other services reach it all the same",
            ))
        }
        _ => None,
    }
}
