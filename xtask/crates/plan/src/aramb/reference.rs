//! References: `${100.outputs.PUBLIC_URL}` anywhere inside a text.

use std::ops::Range;

use super::Id;

/// What a control plane tells of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputName {
    /// The image that a build has made.
    ImageUrl,
    /// Where everybody reaches a service.
    PublicUrl,
    /// Where the others reach it; `PRIVATE_URL` in older files.
    InternalUrl,
}

impl OutputName {
    /// All, under each of their names.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("IMAGE_URL", Self::ImageUrl),
        ("PUBLIC_URL", Self::PublicUrl),
        ("INTERNAL_URL", Self::InternalUrl),
        ("PRIVATE_URL", Self::InternalUrl),
    ];

    /// The output of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let known = Self::NAMES.into_iter().find(|(known, _)| *known == name);
        known.map(|(_, output)| output)
    }
}

/// What a reference takes from a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `vars.KEY`.
    Var(String),
    /// `secrets.KEY`.
    Secret(String),
    /// `outputs.NAME`.
    Output(OutputName),
}

/// One reference in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its bytes in the text, from `$` to `}`.
    pub range: Range<usize>,
    /// Whom it names.
    pub service: Id,
    /// What it takes from there.
    pub target: Target,
}

/// What looks like a reference and is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// No closing brace.
    #[error("the reference is not closed")]
    Open,
    /// Neither `vars`, `secrets` nor `outputs`.
    #[error("`{0}` is nothing that a service has")]
    Part(String),
    /// No such output.
    #[error("there is no output `{0}`")]
    Output(String),
    /// No name, or more than one.
    #[error("the reference has to be of the form ${{NUMBER.PART.NAME}}")]
    Form,
    /// A number that no service can have.
    #[error("no service has such a number")]
    Number,
}

/// The references of a text, in their order; `${` before anything but a digit is for a shell, and is left alone.
pub fn references(
    text: &str,
) -> impl Iterator<Item = Result<Reference, (Range<usize>, BadReference)>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text.get(at..)?.find("${")?;
            let rest = &text[start + 2..];
            at = start + 2;
            if !rest.starts_with(|c: char| c.is_ascii_digit()) {
                continue;
            }
            let Some(length) = rest.find('}') else {
                at = text.len();
                return Some(Err((start..text.len(), BadReference::Open)));
            };
            at = start + 2 + length + 1;
            let range = start..at;
            return Some(match parse(&rest[..length]) {
                Ok((service, target)) => Ok(Reference {
                    range,
                    service,
                    target,
                }),
                Err(bad) => Err((range, bad)),
            });
        }
    })
}

fn parse(inner: &str) -> Result<(Id, Target), BadReference> {
    let mut parts = inner.splitn(3, '.');
    let (Some(number), Some(part), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(BadReference::Form);
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) || name.is_empty() {
        return Err(BadReference::Form);
    }
    let service = number.parse().map_err(|_| BadReference::Number)?;
    let target = match part {
        "vars" => Target::Var(name.to_owned()),
        "secrets" => Target::Secret(name.to_owned()),
        "outputs" => match OutputName::of(name) {
            Some(output) => Target::Output(output),
            None => return Err(BadReference::Output(name.to_owned())),
        },
        _ => return Err(BadReference::Part(part.to_owned())),
    };
    Ok((service, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Result<(String, Id, Target), (String, BadReference)>;

    fn found(text: &str) -> Vec<Found> {
        references(text)
            .map(|found| match found {
                Ok(reference) => Ok((
                    text[reference.range].to_owned(),
                    reference.service,
                    reference.target,
                )),
                Err((range, bad)) => Err((text[range].to_owned(), bad)),
            })
            .collect()
    }

    #[test]
    fn they_stand_anywhere_inside_a_text() {
        let text = "a ${100.outputs.PUBLIC_URL}/x${101.vars.DB.NAME} é ${102.secrets.P-W}${103.outputs.PRIVATE_URL}";
        let output = |name| Target::Output(name);
        assert_eq!(
            found(text),
            [
                Ok((
                    "${100.outputs.PUBLIC_URL}".to_owned(),
                    100,
                    output(OutputName::PublicUrl)
                )),
                Ok((
                    "${101.vars.DB.NAME}".to_owned(),
                    101,
                    Target::Var("DB.NAME".to_owned())
                )),
                Ok((
                    "${102.secrets.P-W}".to_owned(),
                    102,
                    Target::Secret("P-W".to_owned())
                )),
                Ok((
                    "${103.outputs.PRIVATE_URL}".to_owned(),
                    103,
                    output(OutputName::InternalUrl)
                )),
            ]
        );
    }

    #[test]
    fn what_is_for_a_shell_is_left_alone() {
        for text in [
            "",
            "$",
            "${",
            "${HOME}",
            "$100",
            "{100.vars.X}",
            "${PORT:-100.vars.X}",
            "$${}",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn what_looks_like_one_and_is_none_is_told() {
        for (text, bad) in [
            ("${100.outputs.IMAGE_URL", BadReference::Open),
            ("${100}", BadReference::Form),
            ("${100.outputs}", BadReference::Form),
            ("${100.vars.}", BadReference::Form),
            ("${100x.vars.A}", BadReference::Form),
            (
                "${100.output.IMAGE_URL}",
                BadReference::Part("output".to_owned()),
            ),
            ("${100.outputs.URL}", BadReference::Output("URL".to_owned())),
            ("${99999999999999999999999.vars.A}", BadReference::Number),
        ] {
            assert_eq!(found(text), [Err((text.to_owned(), bad))]);
        }
    }
}
