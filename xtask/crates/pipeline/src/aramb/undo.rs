//! The way back on a control plane that has none: what a service was when it was last well is deployed once more.

use std::collections::BTreeMap;

use oci::Digest;
use serde::{Deserialize, Serialize};

use super::state::State;

/// Under which name the state has it.
const KEPT: &str = "good.json";

/// The files that services were last well with.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Good {
    /// Names of services, each with the name of a text.
    services: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
}

impl Good {
    pub(super) fn of(state: &State) -> Self {
        state.read(KEPT).unwrap_or_default()
    }

    /// These services are well with this text.
    pub(super) fn note<'a>(&mut self, services: impl Iterator<Item = &'a str>, text: &str) {
        let name = Digest::of(text.as_bytes()).hex();
        for service in services {
            self.services.insert(service.to_owned(), name.clone());
        }
        self.texts.insert(name, text.to_owned());
        let used: std::collections::BTreeSet<_> = self.services.values().collect();
        self.texts.retain(|name, _| used.contains(name));
    }

    /// Forgets services that the file does not have any more.
    pub(super) fn keep_only(&mut self, is_there: impl Fn(&str) -> bool) {
        self.services.retain(|name, _| is_there(name));
    }

    pub(super) fn keep(&self, state: &State) -> std::io::Result<()> {
        state.write(KEPT, self)
    }

    /// These services by the texts that they were well with, in their order; and those that never were.
    pub(super) fn before<'a>(
        &self,
        services: &[&'a str],
    ) -> (Vec<(&str, Vec<&'a str>)>, Vec<&'a str>) {
        let mut groups: Vec<(&str, Vec<&'a str>)> = Vec::new();
        let mut new = Vec::new();
        for &service in services {
            let text = self.services.get(service);
            let Some(text) = text.and_then(|name| self.texts.get(name)) else {
                new.push(service);
                continue;
            };
            match groups.iter_mut().find(|(known, _)| *known == text) {
                Some((_, group)) => group.push(service),
                None => groups.push((text, vec![service])),
            }
        }
        (groups, new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_returns_to_what_it_was_well_with() {
        let mut good = Good::default();
        good.note(["db", "api"].into_iter(), "one");
        good.note(["api"].into_iter(), "two");
        good.note(["web"].into_iter(), "one");
        let (groups, new) = good.before(&["db", "api", "job", "web"]);
        assert_eq!(groups, [("one", vec!["db", "web"]), ("two", vec!["api"])]);
        assert_eq!(new, ["job"]);
        good.note(["db", "api", "web"].into_iter(), "three");
        assert_eq!(good.texts.len(), 1);
        good.keep_only(|name| name != "db");
        assert_eq!(good.before(&["db"]).1, ["db"]);
    }
}
