//! Addresses of services in the values of others: `${services.NAME.OUTPUT}`. Pure.

/// Where everybody reaches a service.
pub(crate) const PUBLIC_URL: &str = "PUBLIC_URL";
/// Where other services reach it.
pub(crate) const INTERNAL_URL: &str = "INTERNAL_URL";
/// The host in that.
pub(crate) const INTERNAL_HOST: &str = "INTERNAL_HOST";
/// The port in that.
pub(crate) const INTERNAL_PORT: &str = "INTERNAL_PORT";

/// All outputs of a service.
pub(crate) const ALL: [&str; 4] = [PUBLIC_URL, INTERNAL_URL, INTERNAL_HOST, INTERNAL_PORT];

const OPEN: &str = "${services.";
const CLOSE: char = '}';

/// The value with each reference replaced by what `output` says; what it does not know stays as it is.
pub(crate) fn filled(value: &str, output: impl Fn(&str, &str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, name, found, after)) = next(rest) {
        let reference = &rest[before.len()..rest.len() - after.len()];
        filled.push_str(before);
        filled.push_str(&output(name, found).unwrap_or_else(|| reference.to_owned()));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// The services and outputs that a value names.
pub(crate) fn named(value: &str) -> Vec<(&str, &str)> {
    let mut named = Vec::new();
    let mut rest = value;
    while let Some((_, name, output, after)) = next(rest) {
        named.push((name, output));
        rest = after;
    }
    named
}

/// The services that a value names.
pub(super) fn named_services(value: &str) -> impl Iterator<Item = String> {
    named(value).into_iter().map(|(name, _)| name.to_owned())
}

/// What is before the first reference, its two parts, and what is behind it.
fn next(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, inside) = text.split_once(OPEN)?;
    let (reference, after) = inside.split_once(CLOSE)?;
    let (name, output) = reference.split_once('.').unwrap_or((reference, ""));
    Some((before, name, output, after))
}

/// What begins the names of the variables for a service's outputs.
pub(crate) fn variable(service: &str, output: &str) -> String {
    let name = service.to_ascii_uppercase().replace('-', "_");
    format!("{name}_{output}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stand_anywhere() {
        let output = |name: &str, output: &str| match (name, output) {
            ("db", "INTERNAL_HOST") => Some("127.0.0.1".to_owned()),
            ("db", "INTERNAL_PORT") => Some("20007".to_owned()),
            _ => None,
        };
        let value = "postgres://u@${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}/x${services.y.Z}$";
        assert_eq!(
            filled(value, output),
            "postgres://u@127.0.0.1:20007/x${services.y.Z}$"
        );
        let found = [("db", "INTERNAL_HOST"), ("db", "INTERNAL_PORT"), ("y", "Z")];
        assert_eq!(named(value), found);
        for plain in ["", "$", "${PORT}", "${services.db", "${services"] {
            assert_eq!(filled(plain, output), plain);
            assert!(named(plain).is_empty(), "{plain}");
        }
    }

    #[test]
    fn variables_are_in_capitals() {
        assert_eq!(variable("my-db", INTERNAL_URL), "MY_DB_INTERNAL_URL");
    }
}
