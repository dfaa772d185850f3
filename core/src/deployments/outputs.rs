//! What values of variables name: addresses of services by `${services.NAME.OUTPUT}`, secrets by `${secrets.NAME}`. Pure.

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

const SERVICE: &str = "${services.";
const SECRET: &str = "${secrets.";
const CLOSE: char = '}';

/// What a value names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reference<'a> {
    /// Something of a service.
    Output {
        /// Its name.
        service: &'a str,
        /// Which of its outputs.
        output: &'a str,
    },
    /// A secret of the tenant.
    Secret(&'a str),
}

/// The value with each reference replaced by what `known` says; what it does not know stays as it is. What is put in is not
/// looked at again.
pub(crate) fn filled(value: &str, known: impl Fn(Reference<'_>) -> Option<String>) -> String {
    let mut filled = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, found, after)) = next(rest) {
        let reference = &rest[before.len()..rest.len() - after.len()];
        filled.push_str(before);
        filled.push_str(&known(found).unwrap_or_else(|| reference.to_owned()));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// All that a value names.
pub(crate) fn named(value: &str) -> Vec<Reference<'_>> {
    let mut named = Vec::new();
    let mut rest = value;
    while let Some((_, found, after)) = next(rest) {
        named.push(found);
        rest = after;
    }
    named
}

/// What is before the first reference, what it names, and what is behind it.
fn next(text: &str) -> Option<(&str, Reference<'_>, &str)> {
    let found = [SERVICE, SECRET].into_iter();
    let found = found.filter_map(|open| Some((text.find(open)?, open)));
    let (place, open) = found.min()?;
    let (before, inside) = (&text[..place], &text[place + open.len()..]);
    let (name, after) = inside.split_once(CLOSE)?;
    let reference = if open == SECRET {
        Reference::Secret(name)
    } else {
        let (service, output) = name.split_once('.').unwrap_or((name, ""));
        Reference::Output { service, output }
    };
    Some((before, reference, after))
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
        let known = |reference: Reference<'_>| match reference {
            Reference::Output {
                service: "db",
                output: "INTERNAL_HOST",
            } => Some("127.0.0.1".to_owned()),
            Reference::Output {
                service: "db",
                output: "INTERNAL_PORT",
            } => Some("20007".to_owned()),
            // What a secret is like is nobody's business.
            Reference::Secret("PASSWORD") => Some("a${secrets.PASSWORD}$}".to_owned()),
            _ => None,
        };
        let value = "postgres://u:${secrets.PASSWORD}@${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}/x${services.y.Z}$${secrets.NO}";
        assert_eq!(
            filled(value, known),
            "postgres://u:a${secrets.PASSWORD}$}@127.0.0.1:20007/x${services.y.Z}$${secrets.NO}"
        );
        let output = |service, output| Reference::Output { service, output };
        let found = [
            Reference::Secret("PASSWORD"),
            output("db", "INTERNAL_HOST"),
            output("db", "INTERNAL_PORT"),
            output("y", "Z"),
            Reference::Secret("NO"),
        ];
        assert_eq!(named(value), found);
        for plain in [
            "",
            "$",
            "${PORT}",
            "${services.db",
            "${services",
            "${secrets.A",
            "${secret.A}",
        ] {
            assert_eq!(filled(plain, known), plain);
            assert!(named(plain).is_empty(), "{plain}");
        }
    }

    #[test]
    fn variables_are_in_capitals() {
        assert_eq!(variable("my-db", INTERNAL_URL), "MY_DB_INTERNAL_URL");
    }
}
