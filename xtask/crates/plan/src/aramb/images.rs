//! The texts of a file with the images of its builds in place of the references to them.

use std::collections::BTreeMap;

use super::{ArambFile, OutputName, Target, Value, references};

/// A text of the file that names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'a> {
    /// Position of the service that says it.
    pub service: usize,
    /// The text.
    pub value: &'a Value,
    /// The text with the images.
    pub text: String,
    /// Positions of the builds that it names.
    pub builds: Vec<usize>,
}

/// Finds the texts of these services that name images of these builds, in the order of the services.
#[must_use]
pub fn name_images<'a>(
    file: &'a ArambFile,
    services: &[usize],
    images: &BTreeMap<usize, String>,
) -> Vec<Named<'a>> {
    let positions = super::graph::positions(&file.services);
    let mut named = Vec::new();
    for &service in services {
        for value in file.services[service].values() {
            let mut text = String::with_capacity(value.text.len());
            let mut copied = 0;
            let mut builds = Vec::new();
            for reference in references(&value.text).flatten() {
                let Some(&build) = positions.get(&reference.service) else {
                    continue;
                };
                let (Target::Output(OutputName::ImageUrl), Some(image)) =
                    (&reference.target, images.get(&build))
                else {
                    continue;
                };
                text.push_str(&value.text[copied..reference.range.start]);
                text.push_str(image);
                copied = reference.range.end;
                builds.push(build);
            }
            if !builds.is_empty() {
                text.push_str(&value.text[copied..]);
                named.push(Named {
                    service,
                    value,
                    text,
                    builds,
                });
            }
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::super::ServiceType::{Backend, Build};
    use super::super::graph::tests::{file, service};
    use super::*;

    #[test]
    fn images_are_named_wherever_they_stand() {
        let file = file(vec![
            service(
                102,
                Backend,
                &[
                    "${101.outputs.IMAGE_URL}",
                    "a ${100.outputs.IMAGE_URL} ${101.outputs.IMAGE_URL} ${102.vars.V0}",
                    "${101.vars.V0}",
                ],
            ),
            service(101, Build, &["x"]),
            service(100, Build, &[]),
        ]);
        let images = [(1, "shop/api:1".to_owned())].into();
        let named = name_images(&file, &[0], &images);
        let texts: Vec<_> = named.iter().map(|named| named.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "shop/api:1",
                "a ${100.outputs.IMAGE_URL} shop/api:1 ${102.vars.V0}"
            ]
        );
        assert_eq!(named[1].builds, [1]);
        assert_eq!(name_images(&file, &[], &images), []);
    }
}
