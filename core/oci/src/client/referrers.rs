//! Manifests about a manifest: signatures, bills of materials, attestations.
//!
//! A registry that knows them keeps the list of them (`GET …/referrers/DIGEST`) and says so with a
//! header when it takes one. For every other one the client keeps the list, as an index under the
//! tag `sha256-HEX`: OCI Distribution 1.1, "Referrers Tag Schema".

use ureq::http::Method;

use super::Client;
use super::auth::Scope;
use super::body::Payload;
use super::error::ClientError;
use super::transport::{Request, header, read_limited};
use crate::digest::Digest;
use crate::manifest::{Descriptor, ImageIndex, ImageManifest};
use crate::media_type;
use crate::reference::{Repository, Tag};

/// As for any manifest.
const INDEX_LIMIT: u64 = 4 * 1024 * 1024;

impl Client {
    /// Puts a manifest about another one, and sees to it that it is on the list of that one. Its
    /// blobs must be there. Doing it again is harmless.
    ///
    /// Where the client keeps the list, two clients that do so at the same time may lose one's
    /// entry: the specification has no way around it.
    pub fn put_referrer(
        &self,
        repository: &Repository,
        manifest: &ImageManifest,
    ) -> Result<Digest, ClientError> {
        let bytes = manifest.to_vec();
        let digest = Digest::of(&bytes);
        let url = self
            .transport
            .url(&format!("{repository}/manifests/{digest}"));
        let scope = Scope::push(repository);
        let request = Request::new("put a manifest", Method::PUT, url, scope)
            .header("content-type", manifest.media_type())
            .payload(Payload::Bytes(&bytes));
        let response = self.transport.send(&request)?;
        let listed = header(&response, "oci-subject").is_some();
        if let Some(subject) = manifest.subject.as_ref().filter(|_| !listed) {
            let mut entry = Descriptor::new(manifest.media_type(), digest, bytes.len() as u64);
            entry.artifact_type = Some(artifact_type(manifest).to_owned());
            entry.annotations.clone_from(&manifest.annotations);
            self.list_by_tag(repository, &subject.digest, entry)?;
        }
        Ok(digest)
    }

    /// All manifests about `subject`, from the registry's list or that under the tag.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let url = self
            .transport
            .url(&format!("{repository}/referrers/{subject}"));
        let request = Request::new("list referrers", Method::GET, url, Scope::pull(repository))
            .header("accept", media_type::OCI_INDEX)
            .answers(&[404]);
        let mut response = self.transport.send(&request)?;
        if response.status() == 404 {
            return Ok(self.listed_by_tag(repository, subject)?.manifests);
        }
        let bytes = read_limited(&request.site(), response.body_mut(), INDEX_LIMIT)?;
        let index = ImageIndex::from_slice(&bytes).map_err(|_| ClientError::Protocol {
            site: Box::new(request.site()),
            detail: "the registry did not send a list of referrers".to_owned(),
        })?;
        Ok(index.manifests)
    }

    fn list_by_tag(
        &self,
        repository: &Repository,
        subject: &Digest,
        entry: Descriptor,
    ) -> Result<(), ClientError> {
        let mut index = self.listed_by_tag(repository, subject)?;
        if index
            .manifests
            .iter()
            .any(|known| known.digest == entry.digest)
        {
            return Ok(());
        }
        index.manifests.push(entry);
        let Some(tag) = list_tag(subject) else {
            return Ok(());
        };
        self.put_manifest(repository, &tag, &index.to_vec(), media_type::OCI_INDEX)
            .map(drop)
    }

    /// An empty list where there is none, or where the tag means something else.
    fn listed_by_tag(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<ImageIndex, ClientError> {
        let empty = ImageIndex::new(Vec::new());
        let Some(tag) = list_tag(subject) else {
            return Ok(empty);
        };
        if self.manifest_exists(repository, &tag)?.is_none() {
            return Ok(empty);
        }
        let received = self.get_manifest(repository, &tag)?;
        Ok(ImageIndex::from_slice(&received.bytes).unwrap_or(empty))
    }
}

/// `sha256-HEX`, of which a tag has room for 64 digits.
fn list_tag(subject: &Digest) -> Option<Tag> {
    let (algorithm, hex) = (subject.algorithm(), subject.hex());
    format!("{algorithm}-{hex:.64}").parse().ok()
}

fn artifact_type(manifest: &ImageManifest) -> &str {
    let by_config = &manifest.config.media_type;
    manifest.artifact_type.as_deref().unwrap_or(by_config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn the_tag_of_a_list() {
        let digest = Digest::of(b"x");
        let tag = list_tag(&digest).unwrap();
        assert_eq!(tag.as_str(), format!("sha256-{}", digest.hex()));
        let longer = Digest::by(Algorithm::Sha512, b"x");
        let tag = list_tag(&longer).unwrap();
        assert_eq!(tag.as_str(), format!("sha512-{}", &longer.hex()[..64]));
    }
}
