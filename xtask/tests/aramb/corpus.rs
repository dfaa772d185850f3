//! Files of every form that there is: each is deployed, the control plane is given what it should, and the file is as before.
//!
//! What it should is found here by another reader of TOML than the one under test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use testkit::aramb::Generation;
use toml::{Table, Value};

use crate::shop::Shop;

/// Those of the reader's own corpus that can be deployed.
const READ: [&str; 14] = [
    "comments",
    "every-type",
    "inline",
    "minimal",
    "multi-line",
    "no-public-url",
    "numbers",
    "old-spellings",
    "other-order",
    "public",
    "secret-in-variable",
    "seed",
    "trailing-spaces",
    "unknown-keys",
];

fn files() -> Vec<(String, String)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = fs::read_dir(tests.join("tests/aramb/corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let read = READ.map(|name| tests.join(format!("crates/config/tests/aramb/{name}.toml")));
    paths.extend(read);
    paths.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let files = paths
        .iter()
        .map(|path| (name(path), fs::read_to_string(path).unwrap()));
    files.collect()
}

/// The services of a file.
fn services(table: &Table) -> impl Iterator<Item = &Table> {
    let services = table["services"].as_array().unwrap().iter();
    services.map(|service| service.as_table().unwrap())
}

fn words(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn settings<'t>(service: &'t Table, name: &str) -> Option<&'t Value> {
    service.get("configuration")?.get("settings")?.get(name)
}

/// The references to images, each with the image.
fn images(table: &Table, shop: &Shop) -> BTreeMap<String, String> {
    let builds = services(table).filter(|service| words(&service["type"]) == "build");
    let images = builds.map(|build| {
        let reference = format!(
            "${{{}.outputs.IMAGE_URL}}",
            words(&build["uniqueIdentifier"])
        );
        (reference, shop.image(&words(&build["name"])))
    });
    images.collect()
}

/// The values of a service that are given to it: nothing else of the file is looked at.
fn given_to(service: &mut Table) -> impl Iterator<Item = &mut Value> {
    let configuration = service
        .get_mut("configuration")
        .and_then(Value::as_table_mut);
    configuration
        .into_iter()
        .flatten()
        .flat_map(|(name, part)| {
            let values: Vec<&mut Value> = match part {
                Value::Table(settings) if name == "settings" => {
                    settings.iter_mut().map(|(_, value)| value).collect()
                }
                Value::Array(pairs) if name == "vars" || name == "secrets" => {
                    let pairs = pairs.iter_mut();
                    pairs.filter_map(|pair| pair.get_mut("value")).collect()
                }
                _ => Vec::new(),
            };
            values
        })
}

/// The file with the images of what runs.
fn with_images(table: &Table, images: &BTreeMap<String, String>) -> Table {
    let mut table = table.clone();
    let services = table["services"].as_array_mut().unwrap().iter_mut();
    for service in services.map(|service| service.as_table_mut().unwrap()) {
        if words(&service["type"]) == "build" {
            continue;
        }
        for value in given_to(service) {
            if let Value::String(text) = value {
                for (reference, image) in images {
                    *text = text.replace(reference, image);
                }
            }
        }
    }
    table
}

/// Values of secrets, without what they refer to.
fn secrets(table: &Table) -> BTreeSet<String> {
    let secrets = services(table)
        .filter_map(|service| service.get("configuration")?.get("secrets")?.as_array())
        .flatten()
        .flat_map(|secret| {
            let value = words(&secret["value"]);
            let parts = value.split("${").map(|part| {
                let (_, rest) = part.split_once('}').unwrap_or(("", part));
                rest.trim().to_owned()
            });
            parts.collect::<Vec<_>>()
        });
    secrets.filter(|part| part.len() >= 6).collect()
}

fn deploy(shop: &Shop, name: &str, source: &str) {
    let table: Table = source.parse().unwrap();
    let images = images(&table, shop);
    for service in services(&table) {
        if let Some(path) = settings(service, "buildPath") {
            fs::create_dir_all(shop.root().join(words(path))).unwrap();
        }
    }
    shop.write("aramb.toml", source);
    shop.double.forget();
    let finished = shop.deploy(&[]);
    finished.expect_success();
    for secret in secrets(&table) {
        assert!(
            !finished.to_string().contains(&secret),
            "{name}: {secret}: {finished}"
        );
    }
    assert_eq!(shop.file(), source, "{name}: the file afterwards");

    let given = shop.double.given();
    let [given] = &given[..] else {
        panic!("{name}: {} deployments", given.len());
    };
    let given = std::str::from_utf8(given).unwrap();
    let read: Table = given.parse().unwrap();
    assert_eq!(read, with_images(&table, &images), "{name}: {given}");
    // Around the images no byte is another one.
    let mut back = given.to_owned();
    for (reference, image) in &images {
        back = back.replace(image, reference);
    }
    // The one way of writing that cannot be kept is an escaped reference.
    assert_eq!(back, source.replace("\\u0024{", "${"), "{name}");

    let running = services(&table).filter(|service| words(&service["type"]) != "build");
    let running: BTreeSet<_> = running.map(|service| words(&service["name"])).collect();
    let asked = shop.double.calls_of("deploy status").into_iter();
    let slugs: BTreeMap<_, _> = services(&table)
        .filter_map(|service| Some((words(service.get("slug")?), words(&service["name"]))))
        .collect();
    let asked = asked.map(|call| {
        let word = call.flag("--service").unwrap().to_owned();
        slugs.get(&word).cloned().unwrap_or(word)
    });
    assert_eq!(asked.collect::<BTreeSet<_>>(), running, "{name}");
    let builds = shop.double.calls_of("build").len();
    let used = images.keys().filter(|reference| {
        let running = services(&table).filter(|service| words(&service["type"]) != "build");
        running
            .map(Table::to_string)
            .any(|text| text.contains(reference.as_str()))
    });
    assert_eq!(
        builds,
        used.count(),
        "{name}: only images that are run are built"
    );
}

/// Every fourth file, so that these go side by side.
fn check(part: usize) {
    let files = files();
    assert!(files.len() >= 35, "{} files", files.len());
    let shops = Generation::ALL.map(Shop::new);
    for (position, (name, source)) in files.iter().enumerate() {
        if position % 4 != part {
            continue;
        }
        let shop = &shops[position / 4 % 2];
        if position / 8 % 2 == 0 {
            deploy(shop, name, source);
        } else {
            let lines = source.replace('\n', "\r\n");
            deploy(shop, &format!("{name} with CRLF"), &lines);
        }
    }
}

#[test]
fn the_first_part() {
    check(0);
}

#[test]
fn the_second_part() {
    check(1);
}

#[test]
fn the_third_part() {
    check(2);
}

#[test]
fn the_fourth_part() {
    check(3);
}
