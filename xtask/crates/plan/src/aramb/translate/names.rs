//! What services are called on our own platform, and back.

use std::collections::BTreeMap;

use super::Fault;
use crate::aramb::{ArambFile, Service, ServiceType};
use crate::config::{APP, ServiceName};

/// The longest name of a service on the platform.
const LONGEST: usize = 30;

/// The names of a file's services, by their positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// As the file has them.
    said: Vec<String>,
    /// As the platform may have them.
    fitting: Vec<String>,
    /// The one that is `app` there.
    app: Option<usize>,
}

impl Names {
    /// The names for a file. The service `app` is the first public backend, else the first public one, else the first that is
    /// no database: it depends on the file alone, so that it stays the same when only some services are deployed.
    ///
    /// # Errors
    ///
    /// When two services cannot be told apart there.
    pub fn of(file: &ArambFile) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        let mut fitting = Vec::new();
        for service in &file.services {
            let name = fitted(&service.name);
            if let Some(other) = taken.insert(name.clone(), &service.name) {
                faults.push(Fault::new(
                    "service_name_taken",
                    format!(
                        "`{other}` and `{}` are both `{name}` on the platform, where a name has at most {LONGEST} lower-case \
                         letters, digits and single dashes",
                        service.name
                    ),
                    "give one of them another name",
                ));
            }
            fitting.push(name);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            said: file.services.iter().map(|one| one.name.clone()).collect(),
            fitting,
            app: app(&file.services),
        })
    }

    /// The position of the service that is `app`.
    #[must_use]
    pub fn app(&self) -> Option<usize> {
        self.app
    }

    /// What the service is called on the platform.
    #[must_use]
    pub fn on_platform(&self, position: usize) -> &str {
        if self.app == Some(position) {
            APP
        } else {
            self.fitting(position)
        }
    }

    /// The same, also for the one that is `app` there: part of names of its own.
    #[must_use]
    pub fn fitting(&self, position: usize) -> &str {
        self.fitting.get(position).map_or("", String::as_str)
    }

    /// What the service is called in the file.
    #[must_use]
    pub fn said(&self, position: usize) -> &str {
        self.said.get(position).map_or("", String::as_str)
    }

    /// The position of the service that is called so on the platform.
    #[must_use]
    pub fn position(&self, on_platform: &str) -> Option<usize> {
        if on_platform == APP {
            return self.app;
        }
        let mut positions = 0..self.fitting.len();
        positions.find(|position| self.on_platform(*position) == on_platform)
    }

    /// A text in which the platform or the pipeline calls services by their names there, with those of the file:
    /// `services.NAME`, and `NAME: ` at the beginning of what is said of it.
    #[must_use]
    pub fn shown(&self, text: &str) -> String {
        const SECTION: &str = "services.";
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(SECTION) {
            let end = after.find(|c| !is_of_a_name(c)).unwrap_or(after.len());
            let inside_of_another = before.ends_with(|c: char| is_of_a_name(c) || c == '{');
            let position = self.position(after[..end].trim_end_matches('-'));
            shown.push_str(before);
            match position.filter(|_| !inside_of_another) {
                Some(position) => shown.push_str(self.said(position)),
                None => shown.extend([SECTION, &after[..end]]),
            }
            rest = &after[end..];
        }
        shown.push_str(rest);
        let parts = shown.split(": ");
        let count = parts.clone().count();
        let parts = parts.enumerate().map(|(number, part)| {
            let name = part.trim_start();
            match self.position(name) {
                Some(position) if number + 1 < count => {
                    format!(
                        "{}{}",
                        &part[..part.len() - name.len()],
                        self.said(position)
                    )
                }
                _ => part.to_owned(),
            }
        });
        parts.collect::<Vec<_>>().join(": ")
    }
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

fn app(services: &[Service]) -> Option<usize> {
    let is_public = |service: &Service| service.settings.public_net == Some(true);
    let fits: [&dyn Fn(&Service) -> bool; 3] = [
        &|service| service.kind == ServiceType::Backend && is_public(service),
        &|service| service.kind == ServiceType::Frontend && is_public(service),
        &|service| matches!(service.kind, ServiceType::Backend | ServiceType::Frontend),
    ];
    fits.iter().find_map(|fits| services.iter().position(fits))
}

/// As the platform can have it. What fits stays as it is.
fn fitted(name: &str) -> String {
    if name != APP && name.parse::<ServiceName>().is_ok() {
        return name.to_owned();
    }
    let mut fitted = String::new();
    for c in name.chars() {
        let c = c.to_ascii_lowercase();
        match c {
            'a'..='z' | '0'..='9' => fitted.push(c),
            _ if !fitted.is_empty() && !fitted.ends_with('-') => fitted.push('-'),
            _ => {}
        }
    }
    if !fitted.starts_with(|c: char| c.is_ascii_lowercase()) {
        fitted.insert_str(0, "s-");
    }
    if fitted == APP {
        fitted.push_str("-service");
    }
    fitted.truncate(LONGEST);
    fitted.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::super::graph::tests::{file, service};
    use super::*;
    use ServiceType::{Backend, Build, Frontend, Postgres};

    fn named(services: &[(ServiceType, &str, bool)]) -> ArambFile {
        let numbered = services.iter().zip(100..);
        let services = numbered.map(|((kind, name, is_public), id)| {
            let mut one = service(id, *kind, &[]);
            (*name).clone_into(&mut one.name);
            one.settings.public_net = Some(*is_public);
            one
        });
        file(services.collect())
    }

    #[test]
    fn what_fits_stays() {
        for (name, expected) in [
            ("backend-api", "backend-api"),
            ("db2", "db2"),
            ("Backend_API", "backend-api"),
            ("a--b", "a-b"),
            ("2nd", "s-2nd"),
            ("app", "app-service"),
            ("é", "s"),
            ("-x-", "x"),
            (
                "a-very-long-name-of-a-service-indeed",
                "a-very-long-name-of-a-service",
            ),
        ] {
            assert_eq!(fitted(name), expected);
            assert!(fitted(name).parse::<ServiceName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn app_is_the_first_public_backend_else_what_is_public_else_what_runs() {
        for (services, expected) in [
            (
                &[
                    (Postgres, "db", false),
                    (Frontend, "web", true),
                    (Backend, "worker", false),
                    (Backend, "api", true),
                ][..],
                Some(3),
            ),
            (
                &[(Backend, "worker", false), (Frontend, "web", true)],
                Some(1),
            ),
            (
                &[(Postgres, "db", false), (Backend, "worker", false)],
                Some(1),
            ),
            (&[(Postgres, "db", false), (Build, "build", false)], None),
        ] {
            assert_eq!(Names::of(&named(services)).unwrap().app(), expected);
        }
    }

    #[test]
    fn names_are_found_back() {
        let names = Names::of(&named(&[
            (Postgres, "My_DB", false),
            (Backend, "backend-api", true),
            (Backend, "app", false),
        ]))
        .unwrap();
        let there: Vec<_> = (0..3).map(|position| names.on_platform(position)).collect();
        assert_eq!(there, ["my-db", "app", "app-service"]);
        for position in 0..3 {
            assert_eq!(names.position(names.on_platform(position)), Some(position));
        }
        assert_eq!(names.position("backend-api"), None);
        for (text, expected) in [
            ("services.my-db: not found", "My_DB: not found"),
            (
                "it failed: app: exited with 1",
                "it failed: backend-api: exited with 1",
            ),
            ("        app: 3 layers", "        backend-api: 3 layers"),
            ("app-service: gone", "app: gone"),
            ("the app is well", "the app is well"),
            (
                "services.other.env names ${services.app.X}",
                "services.other.env names ${services.app.X}",
            ),
            ("an app", "an app"),
        ] {
            assert_eq!(names.shown(text), expected);
        }
    }

    #[test]
    fn two_of_one_name_are_refused() {
        let faults = Names::of(&named(&[
            (Backend, "api_v1", true),
            (Backend, "API-v1", false),
        ]))
        .unwrap_err();
        assert_eq!(faults[0].code, "service_name_taken");
        assert!(
            faults[0]
                .message
                .starts_with("`api_v1` and `API-v1` are both `api-v1`")
        );
    }
}
