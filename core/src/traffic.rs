//! Who has which part of a tenant's traffic: its services, the instances behind each, the routes to them, and the doors by which
//! services reach each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use management_api::types::Protocol;
use proxy::{Group, Proxy, Retired, Rule, Share, Target};

/// Why a door's key is more than the name of its service: one that speaks otherwise is another one.
const TCP: &str = ":tcp";

/// The traffic of one tenant.
#[derive(Default)]
pub(crate) struct Traffic {
    /// Behind the tenant's URL; absent while its port cannot be had.
    proxy: Option<Proxy>,
    /// Where services reach each other, by key.
    doors: BTreeMap<String, Proxy>,
    /// Who has the traffic of each service, or will have it once there is a proxy.
    services: BTreeMap<String, Has>,
    rules: Vec<Rule>,
    /// Services of which instances are on their way: whoever asks for one at the tenant's URL waits for it. Other services,
    /// which may be asked for themselves before the one comes that they ask for, do not.
    awaited: BTreeSet<String>,
}

/// Who has the traffic of one service.
#[derive(Debug, Default)]
struct Has {
    parts: Vec<Part>,
    /// Whether the tenant's URL leads to it too.
    public: bool,
}

/// The part of a service's traffic that its instances of one deployment get.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) number: u64,
    pub(crate) weight: Weight,
    pub(crate) targets: Vec<Target>,
}

/// How much of the traffic a deployment gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// As much for each of its instances as for those of others.
    Each,
    /// So many per cent.
    Percent(u32),
}

/// Who gets all of a service's traffic.
#[derive(Debug, Clone)]
pub(crate) enum Gets {
    /// Whoever has it now.
    AsItIs,
    /// The instances of one deployment.
    Deployment(u64, Vec<Target>),
}

/// What a door is called by.
pub(crate) fn door_key(service: &str, protocol: Protocol) -> String {
    match protocol {
        Protocol::Http => service.to_owned(),
        Protocol::Tcp => format!("{service}{TCP}"),
    }
}

/// What somebody speaks at a door.
pub(crate) fn protocol_of(key: &str) -> Protocol {
    if key.ends_with(TCP) {
        Protocol::Tcp
    } else {
        Protocol::Http
    }
}

impl Traffic {
    pub(crate) fn set_proxy(&mut self, proxy: Proxy) -> Vec<Retired> {
        self.proxy = Some(proxy);
        self.direct()
    }

    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// Opens a door.
    pub(crate) fn add_door(&mut self, key: &str, proxy: Proxy) -> Vec<Retired> {
        self.doors.insert(key.to_owned(), proxy);
        self.direct()
    }

    pub(crate) fn has_door(&self, key: &str) -> bool {
        self.doors.contains_key(key)
    }

    /// Hands over the doors that are not among these.
    pub(crate) fn close_doors(&mut self, keys: &BTreeSet<String>) -> Vec<Proxy> {
        let (stay, go) = std::mem::take(&mut self.doors)
            .into_iter()
            .partition(|(key, _)| keys.contains(key));
        self.doors = stay;
        let go: BTreeMap<String, Proxy> = go;
        go.into_values().collect()
    }

    pub(crate) fn doors(&self) -> impl Iterator<Item = (&str, &Proxy)> {
        self.doors.iter().map(|(key, proxy)| (key.as_str(), proxy))
    }

    /// Where services reach one that speaks so.
    pub(crate) fn door(&self, service: &str, protocol: Protocol) -> Option<SocketAddr> {
        let proxy = self.doors.get(&door_key(service, protocol))?;
        Some(proxy.local_addr())
    }

    /// Makes these the only services and these the only routes, all at one moment.
    pub(crate) fn give(
        &mut self,
        rules: Vec<Rule>,
        services: BTreeMap<String, Gets>,
    ) -> Vec<Retired> {
        let mut before = std::mem::take(&mut self.services);
        let given = services.into_iter().map(|(service, gets)| {
            let parts = match gets {
                Gets::AsItIs => before.remove(&service).unwrap_or_default().parts,
                Gets::Deployment(number, targets) => vec![Part {
                    number,
                    weight: Weight::Each,
                    targets,
                }],
            };
            let public = true;
            (service, Has { parts, public })
        });
        self.services = given.collect();
        self.rules = rules;
        self.direct()
    }

    /// Lets other services reach one that nobody has reached yet; the tenant's URL does not lead to it before
    /// [`give`](Self::give) says so.
    pub(crate) fn open_inside(&mut self, service: &str, number: u64, targets: Vec<Target>) {
        if self.services.contains_key(service) {
            return;
        }
        let has = Has {
            parts: vec![Part {
                number,
                weight: Weight::Each,
                targets,
            }],
            public: false,
        };
        self.services.insert(service.to_owned(), has);
        // It had no traffic: nothing leaves.
        drop(self.direct());
    }

    /// Nobody gets traffic of these services.
    pub(crate) fn stop(&mut self, services: &BTreeSet<String>) -> Vec<Retired> {
        self.services.retain(|name, _| !services.contains(name));
        self.direct()
    }

    /// From when nobody serves these, requests wait for others, until somebody [says otherwise](Self::stop_waiting).
    pub(crate) fn await_others(&mut self, services: &BTreeSet<String>) {
        self.awaited.extend(services.iter().cloned());
    }

    /// [`stop`](Self::stop) until others take over: requests wait for them, until somebody
    /// [says otherwise](Self::stop_waiting).
    pub(crate) fn suspend(&mut self, services: &BTreeSet<String>) -> Vec<Retired> {
        self.await_others(services);
        self.stop(services)
    }

    /// Nobody waits any more for what does not serve.
    pub(crate) fn stop_waiting(&mut self) {
        if !self.awaited.is_empty() {
            self.awaited.clear();
            // Nobody leaves by that.
            drop(self.direct());
        }
    }

    /// Nobody gets traffic of any service.
    pub(crate) fn stop_all(&mut self) -> Vec<Retired> {
        self.services.clear();
        self.direct()
    }

    /// Makes these the deployments that share the traffic of services. One that was among them already keeps its
    /// instances, whatever is said of them here; a new one begins with those that are named.
    pub(crate) fn split(&mut self, services: BTreeMap<String, Vec<Part>>) -> Vec<Retired> {
        for (service, parts) in services {
            let has = self.services.entry(service).or_default();
            let mut before = std::mem::take(&mut has.parts);
            let part = |new: Part| match before.iter().position(|p| p.number == new.number) {
                Some(place) => Part {
                    weight: new.weight,
                    ..before.swap_remove(place)
                },
                None => new,
            };
            has.parts = parts.into_iter().map(part).collect();
        }
        self.direct()
    }

    /// Names the instances of a deployment, if it has a part of the service's traffic.
    pub(crate) fn set_targets(
        &mut self,
        service: &str,
        number: u64,
        targets: Vec<Target>,
    ) -> Vec<Retired> {
        let has = self.services.get_mut(service);
        let part = has.and_then(|has| has.parts.iter_mut().find(|part| part.number == number));
        let Some(part) = part else {
            return Vec::new();
        };
        part.targets = targets;
        self.direct()
    }

    /// Whether somebody gets what a service is asked.
    pub(crate) fn serves(&self, service: &str) -> bool {
        let has = self.services.get(service);
        has.is_some_and(|has| has.parts.iter().any(|part| !part.targets.is_empty()))
    }

    /// Whether somebody has traffic of a service, or will have it.
    pub(crate) fn has(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// What leads from the tenant's URL to services, and who has which part of each.
    #[cfg(test)]
    pub(crate) fn public(&self) -> (Vec<Rule>, BTreeMap<String, Vec<Part>>) {
        let public = self.services.iter().filter(|(_, has)| has.public);
        let services = public.map(|(name, has)| (name.clone(), has.parts.clone()));
        (self.rules.clone(), services.collect())
    }

    /// What the tenant's URL leads to.
    fn groups(&self) -> Vec<Group> {
        let public = self.services.iter().filter(|(_, has)| has.public);
        let public: BTreeMap<&String, &Has> = public.collect();
        let names: BTreeSet<&String> = public.keys().copied().chain(&self.awaited).collect();
        let groups = names.into_iter().map(|name| Group {
            name: name.clone(),
            shares: public.get(name).map(|has| has.shares()).unwrap_or_default(),
            awaited: self.awaited.contains(name),
        });
        groups.collect()
    }

    fn direct(&self) -> Vec<Retired> {
        let mut retired = Vec::new();
        if let Some(proxy) = &self.proxy {
            retired.extend(proxy.divide(&self.groups(), &self.rules));
        }
        for (key, door) in &self.doors {
            let service = key.strip_suffix(TCP).unwrap_or(key);
            let shares = self.services.get(service).map(Has::shares);
            retired.extend(door.direct(&shares.unwrap_or_default()));
        }
        retired
    }
}

impl Has {
    fn shares(&self) -> Vec<Share> {
        let shares = self.parts.iter().map(|part| Share {
            weight: match part.weight {
                Weight::Each => u32::try_from(part.targets.len()).unwrap_or(u32::MAX),
                Weight::Percent(percent) => percent,
            },
            targets: part.targets.clone(),
        });
        shares.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: &str) -> Target {
        Target {
            id: id.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
        }
    }

    async fn proxy() -> Proxy {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Proxy::bind(address, proxy::Settings::default())
            .await
            .unwrap()
    }

    fn rule(prefix: &str, group: &str) -> Rule {
        Rule {
            host: None,
            prefix: prefix.to_owned(),
            group: group.to_owned(),
        }
    }

    fn ids(proxy: &Proxy) -> Vec<String> {
        let targets = proxy.targets().into_iter();
        targets.map(|target| target.id).collect()
    }

    fn gets(services: &[(&str, u64)]) -> BTreeMap<String, Gets> {
        let gets = services.iter().map(|(name, number)| {
            let gets = match number {
                0 => Gets::AsItIs,
                _ => Gets::Deployment(*number, vec![target(&format!("{name}-{number}"))]),
            };
            ((*name).to_owned(), gets)
        });
        gets.collect()
    }

    #[tokio::test]
    async fn the_url_and_the_doors_move_together_and_what_stays_is_not_touched() {
        let (public, door) = (proxy().await, proxy().await);
        let mut traffic = Traffic::default();
        assert!(traffic.set_proxy(public.clone()).is_empty());
        assert!(traffic.add_door("db:tcp", door.clone()).is_empty());
        let rules = vec![rule("/", "app"), rule("/db", "db")];
        assert!(
            traffic
                .give(rules, gets(&[("app", 1), ("db", 1)]))
                .is_empty()
        );
        assert_eq!(
            (ids(&public), ids(&door)),
            (vec!["app-1".into(), "db-1".into()], vec!["db-1".into()])
        );
        // The keeper of what is carried over goes on under its own number.
        let retired = traffic.give(vec![rule("/", "app")], gets(&[("app", 2), ("db", 0)]));
        assert_eq!(retired.len(), 1, "only the old application");
        assert!(
            traffic
                .set_targets("db", 2, vec![target("wrong")])
                .is_empty()
        );
        assert_eq!(
            traffic.set_targets("db", 1, vec![target("again")]).len(),
            2,
            "from the door and from the URL"
        );
        assert_eq!(ids(&door), ["again"]);
        assert!(traffic.serves("db") && !traffic.serves("worker"));
    }

    #[tokio::test]
    async fn whoever_asks_at_the_url_waits_for_what_takes_over_until_nobody_comes() {
        let (public, door) = (proxy().await, proxy().await);
        let mut traffic = Traffic::default();
        drop(traffic.set_proxy(public.clone()));
        drop(traffic.add_door("app", door.clone()));
        let rules = vec![rule("/", "app"), rule("/db", "db")];
        drop(traffic.give(rules, gets(&[("app", 1), ("db", 1)])));
        let awaited = |traffic: &Traffic| -> Vec<(String, bool)> {
            let groups = traffic.groups().into_iter();
            groups.map(|group| (group.name, group.awaited)).collect()
        };
        let (app, db) = ("app".to_owned(), "db".to_owned());
        let none = vec![(app.clone(), false), (db.clone(), false)];
        assert_eq!(awaited(&traffic), none);
        let left = traffic.suspend(&BTreeSet::from([app.clone()]));
        assert_eq!(left.len(), 2, "from the door and from the URL");
        assert_eq!(
            awaited(&traffic),
            [(app.clone(), true), (db.clone(), false)]
        );
        assert!(!traffic.has("app"), "others are told that it is away");
        // It may fail right after its start: whoever takes over then is awaited, too.
        drop(traffic.give(vec![rule("/", "app")], gets(&[("app", 2)])));
        assert_eq!(awaited(&traffic), [(app.clone(), true)]);
        assert_eq!(ids(&public), ["app-2"]);
        traffic.stop_waiting();
        assert_eq!(awaited(&traffic), [(app, false)]);
    }

    #[tokio::test]
    async fn what_is_open_inside_is_not_public_before_it_is_given() {
        let (public, door) = (proxy().await, proxy().await);
        let mut traffic = Traffic::default();
        drop(traffic.set_proxy(public.clone()));
        drop(traffic.add_door("app", door.clone()));
        drop(traffic.give(vec![rule("/", "app")], gets(&[])));
        traffic.open_inside("app", 1, vec![target("new")]);
        assert!(ids(&public).is_empty());
        assert_eq!(ids(&door), ["new"]);
        traffic.open_inside("app", 2, vec![target("other")]);
        assert_eq!(ids(&door), ["new"], "whoever is first");
        drop(traffic.give(vec![rule("/", "app")], gets(&[("app", 0)])));
        assert_eq!(ids(&public), ["new"]);
        drop(traffic.stop(&BTreeSet::from(["app".to_owned()])));
        assert!(ids(&public).is_empty() && ids(&door).is_empty());
    }
}
