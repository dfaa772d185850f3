//! What is in an image, and what of it is new against the release that serves.

use std::collections::BTreeSet;

use deploy_image::LayerReport;
use deploy_plan::report::{ImageReport, LayerRecord};
use oci::{Digest, ImageManifest};

/// The report of an image's layers; `live` are the uncompressed layers of the image that serves,
/// as far as they are known here.
pub(crate) fn report(layers: &[LayerReport], live: &[Digest]) -> ImageReport {
    let live: BTreeSet<&Digest> = live.iter().collect();
    let records: Vec<LayerRecord> = layers
        .iter()
        .map(|layer| LayerRecord {
            source: layer.source.clone(),
            size: layer.size,
            digest: layer.digest.to_string(),
            state: if live.contains(&layer.diff_id) {
                "unchanged"
            } else if layer.of_base {
                "base"
            } else {
                "new"
            },
        })
        .collect();
    ImageReport {
        size: records.iter().map(|layer| layer.size).sum(),
        new: records
            .iter()
            .filter(|layer| layer.state == "new")
            .map(|layer| layer.size)
            .sum(),
        layers: records,
    }
}

/// The report of an image that was copied: all of it is there, or all of it is new.
pub(crate) fn report_of_copy(
    reference: &str,
    manifest: &ImageManifest,
    unchanged: bool,
) -> ImageReport {
    let records: Vec<LayerRecord> = manifest
        .layers
        .iter()
        .map(|layer| LayerRecord {
            source: reference.to_owned(),
            size: layer.size,
            digest: layer.digest.to_string(),
            state: if unchanged { "unchanged" } else { "new" },
        })
        .collect();
    let size = records.iter().map(|layer| layer.size).sum();
    ImageReport {
        size,
        new: if unchanged { 0 } else { size },
        layers: records,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, size: u64, of_base: bool) -> LayerReport {
        LayerReport {
            digest: Digest::of(format!("{name}, compressed").as_bytes()),
            size,
            diff_id: Digest::of(name.as_bytes()),
            media_type: String::new(),
            source: name.to_owned(),
            cached: false,
            of_base,
        }
    }

    #[test]
    fn layers_are_compared_by_their_content_and_not_by_how_they_are_sent() {
        let layers = [
            layer("base", 100, true),
            layer("a", 20, false),
            layer("b", 3, false),
        ];
        let report = report(&layers, &[Digest::of(b"a")]);
        let states: Vec<_> = report.layers.iter().map(|layer| layer.state).collect();
        assert_eq!(states, ["base", "unchanged", "new"]);
        assert_eq!((report.size, report.new), (123, 3));
    }
}
