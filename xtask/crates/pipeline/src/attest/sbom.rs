//! The list of parts as `CycloneDX` 1.5: <https://cyclonedx.org/docs/1.5/json/>.
//!
//! The same image gives the same bytes: no time but `SOURCE_DATE_EPOCH`, and a serial number that
//! is drawn from the content.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat};
use oci::Digest;
use serde::Serialize;

use super::graph::{Details, Facts, Origin, Part};

pub(super) const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";

/// The image that the list is about.
pub(super) struct Subject {
    /// `registry/repository`
    pub(super) name: String,
    pub(super) digest: Digest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bom {
    #[serde(rename = "$schema")]
    schema: &'static str,
    #[serde(rename = "bomFormat")]
    format: &'static str,
    spec_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

#[derive(Serialize)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    tools: Tools,
    component: Component,
}

#[derive(Serialize)]
struct Tools {
    components: [Component; 1],
}

#[derive(Default, Serialize)]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<Licence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(rename = "externalReferences", skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Licence {
    expression: String,
}

#[derive(Serialize)]
struct Link {
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
}

#[derive(Serialize)]
struct Property {
    name: &'static str,
    value: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    #[serde(rename = "ref")]
    reference: String,
    depends_on: Vec<String>,
}

/// The document.
pub(super) fn document(image: &Subject, facts: &Facts) -> Vec<u8> {
    let mut bom = Bom {
        schema: "http://cyclonedx.org/schema/bom-1.5.schema.json",
        format: "CycloneDX",
        spec_version: "1.5",
        serial_number: None,
        version: 1,
        metadata: metadata(image),
        components: components(facts),
        dependencies: dependencies(image, facts),
    };
    bom.serial_number = Some(serial_number(&super::to_json(&bom)));
    super::to_json(&bom)
}

fn metadata(image: &Subject) -> Metadata {
    Metadata {
        timestamp: timestamp(),
        tools: Tools {
            components: [Component {
                kind: "application",
                name: "xtask".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Component::default()
            }],
        },
        component: Component {
            kind: "container",
            reference: Some(image_reference(image)),
            name: image.name.clone(),
            version: image.digest.to_string(),
            hashes: vec![Hash {
                alg: "SHA-256",
                content: image.digest.hex(),
            }],
            purl: Some(image_reference(image)),
            ..Component::default()
        },
    }
}

/// As specified for `pkg:oci`: the last part of the name, the digest, and where it is.
fn image_reference(image: &Subject) -> String {
    let (_, short) = image.name.rsplit_once('/').unwrap_or(("", &image.name));
    format!(
        "pkg:oci/{short}@{}?repository_url={}",
        encoded(&image.digest.to_string()),
        encoded(&image.name)
    )
}

fn timestamp() -> Option<String> {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").ok()?.parse().ok()?;
    let time = DateTime::from_timestamp(seconds, 0)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn components(facts: &Facts) -> Vec<Component> {
    let parts = facts.edges.keys();
    parts.map(|part| component(part, facts)).collect()
}

fn component(part: &Part, facts: &Facts) -> Component {
    let details = facts.details.get(part).cloned().unwrap_or_default();
    let shipped = facts.shipped.contains(part);
    Component {
        kind: if shipped { "application" } else { "library" },
        reference: Some(purl(part)),
        name: part.name.clone(),
        version: part.version.clone(),
        hashes: hashes(&details),
        licenses: licences(&details),
        links: links(&details),
        purl: Some(purl(part)),
        properties: source_of(part, facts),
        description: details.description,
    }
}

/// Where the list of an application's parts comes from.
fn source_of(part: &Part, facts: &Facts) -> Vec<Property> {
    if !facts.shipped.contains(part) {
        return Vec::new();
    }
    let value = if facts.audited.contains(part) {
        "the program itself (cargo auditable)"
    } else {
        "cargo metadata"
    };
    let name = "systemprompt:dependencies-from";
    vec![Property { name, value }]
}

fn hashes(details: &Details) -> Vec<Hash> {
    let sums = details.checksum.iter();
    let hashes = sums.map(|sum| Hash {
        alg: "SHA-256",
        content: sum.clone(),
    });
    hashes.collect()
}

/// Older manifests write `/` for `OR`.
fn licences(details: &Details) -> Vec<Licence> {
    let licences = details.licence.iter().map(|text| Licence {
        expression: text.replace('/', " OR ").replace("  ", " "),
    });
    licences.collect()
}

/// Only addresses: a manifest may have any text there.
fn links(details: &Details) -> Vec<Link> {
    let repository = details.repository.iter();
    let addresses = repository.filter(|text| text.starts_with("https://") && !text.contains(' '));
    let links = addresses.map(|url| Link {
        kind: "vcs",
        url: url.clone(),
    });
    links.collect()
}

fn dependencies(image: &Subject, facts: &Facts) -> Vec<Dependency> {
    let list = |parts: &BTreeSet<Part>| parts.iter().map(purl).collect();
    let whole = Dependency {
        reference: image_reference(image),
        depends_on: list(&facts.shipped),
    };
    let parts = facts.edges.iter().map(|(part, needed)| Dependency {
        reference: purl(part),
        depends_on: list(needed),
    });
    std::iter::once(whole).chain(parts).collect()
}

/// The package's name for other tools. A package that is not from crates.io says so, or it would be
/// taken for the one there of the same name, with its vulnerabilities.
fn purl(part: &Part) -> String {
    let plain = format!(
        "pkg:cargo/{}@{}",
        encoded(&part.name),
        encoded(&part.version)
    );
    match &part.origin {
        Origin::Registry => plain,
        Origin::Local(folder) => format!("{plain}?download_url=file:.%2F{}", encoded(folder)),
        Origin::Elsewhere(source) => match source.strip_prefix("git+") {
            Some(_) => format!("{plain}?vcs_url={}", encoded(source)),
            None => format!("{plain}?repository_url={}", encoded(source)),
        },
    }
}

/// Percent-encoding as the purl specification has it.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                encoded.push(char::from(byte));
            }
            other => {
                // Writing into a text cannot fail.
                let _ = write!(encoded, "%{other:02X}");
            }
        }
    }
    encoded
}

/// A UUID of version 8 (RFC 9562, section 5.8) made from the content.
fn serial_number(content: &[u8]) -> String {
    let hex = Digest::of(content).hex();
    format!(
        "urn:uuid:{}-{}-8{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..15],
        &hex[15..18],
        &hex[18..30]
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::image::Shipped;

    fn part(name: &str, origin: Origin) -> Part {
        Part {
            name: name.to_owned(),
            version: "1.0.0+x".to_owned(),
            origin,
        }
    }

    #[test]
    fn names_for_other_tools() {
        for (origin, expected) in [
            (Origin::Registry, "pkg:cargo/a@1.0.0%2Bx"),
            (
                Origin::Local("core/api".into()),
                "pkg:cargo/a@1.0.0%2Bx?download_url=file:.%2Fcore%2Fapi",
            ),
            (
                Origin::Elsewhere("git+https://example.org/a#ab12".into()),
                "pkg:cargo/a@1.0.0%2Bx?vcs_url=git%2Bhttps:%2F%2Fexample.org%2Fa%23ab12",
            ),
        ] {
            assert_eq!(purl(&part("a", origin)), expected);
        }
    }

    #[test]
    fn the_same_content_has_the_same_number_and_other_content_another() {
        let (one, two) = (serial_number(b"1"), serial_number(b"2"));
        assert_eq!(one, serial_number(b"1"));
        assert_ne!(one, two);
        assert_eq!(
            one.len(),
            "urn:uuid:00000000-0000-0000-0000-000000000000".len()
        );
    }

    /// Hundreds of packages with licences as people write them, judged by the library of the
    /// format's makers, which brings the official schema along.
    #[test]
    fn real_library_takes_the_list_of_this_workspace() {
        const CHECK: &str = "import sys\n\
            from cyclonedx.schema import SchemaVersion\n\
            from cyclonedx.validation.json import JsonStrictValidator\n\
            validator = JsonStrictValidator(SchemaVersion.V1_5)\n\
            error = validator.validate_str(open(sys.argv[1]).read())\n\
            sys.exit(0 if error is None else 'invalid: ' + str(error)[:2000])\n";
        let executable = std::env::current_exe().unwrap();
        let packages = executable
            .ancestors()
            .nth(3)
            .unwrap()
            .join("test-tools/pip");
        assert!(
            packages.join("cyclonedx").is_dir(),
            "the CycloneDX library is missing: run `cargo xtask test --setup`"
        );
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(3)
            .unwrap();
        let programs = ["xtask", "systemprompt", "systemprompt-admin"].map(|package| Shipped {
            package: package.to_owned(),
            path: executable.clone(),
        });
        let facts = super::super::cargo::facts(root, &[], &programs).unwrap();
        assert!(facts.edges.len() > 100 && facts.shipped.len() == 3);
        let image = Subject {
            name: "registry.example/app".into(),
            digest: Digest::of(b"image"),
        };
        let list = document(&image, &facts);
        assert_eq!(list, document(&image, &facts));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sbom.json");
        std::fs::write(&file, &list).unwrap();
        let output = std::process::Command::new("python3")
            .args(["-c", CHECK])
            .arg(&file)
            .env("PYTHONPATH", packages)
            .output()
            .expect("Python is missing: run `cargo xtask test --setup`");
        assert!(output.status.success(), "{output:?}");
    }
}
