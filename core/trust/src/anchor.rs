//! A trust anchor in the form of a certificate.
//!
//! Of a root certificate only its name, key and name constraints count (RFC 5280, 6.1.1), and those
//! are all that is built in. What else a certificate has stays empty here, its signature too: nobody
//! checks the signature of what is trusted already. A test reads all of them back.

use ureq::tls::Certificate;

// Tags of ASN.1's distinguished encoding (X.690).
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// The object identifier of name constraints, 2.5.29.30, with its tag and length.
const NAME_CONSTRAINTS: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x1e];
/// Version 3 is written as 2.
const THREE: u8 = 2;

/// The certificate of an authority, from the contents of its `subject`, `subjectPublicKeyInfo` and
/// `NameConstraints`.
pub(crate) fn certificate(
    subject: &[u8],
    key: &[u8],
    constraints: Option<&[u8]>,
) -> Certificate<'static> {
    let nothing = tagged(SEQUENCE, &[]);
    let extensions = constraints.map(|constraints| {
        let value = tagged(OCTET_STRING, &tagged(SEQUENCE, constraints));
        let extension = tagged(SEQUENCE, &[&NAME_CONSTRAINTS[..], &value].concat());
        tagged(EXTENSIONS, &tagged(SEQUENCE, &extension))
    });
    let signed = [
        tagged(VERSION, &tagged(INTEGER, &[THREE])),
        // The serial number.
        tagged(INTEGER, &[1]),
        // The signature's algorithm, the issuer, the validity.
        nothing.clone(),
        nothing.clone(),
        nothing.clone(),
        tagged(SEQUENCE, subject),
        tagged(SEQUENCE, key),
        extensions.unwrap_or_default(),
    ]
    .concat();
    // The algorithm once more, and a signature of no bits.
    let whole = [tagged(SEQUENCE, &signed), nothing, tagged(BIT_STRING, &[0])].concat();
    Certificate::from_der(&tagged(SEQUENCE, &whole)).to_owned()
}

/// A value with its tag and its length before it.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = length.iter().position(|byte| *byte != 0);
    let length = &length[significant.unwrap_or(length.len() - 1)..];
    let mut value = vec![tag];
    if content.len() >= 0x80 {
        // The long form says first how many bytes the length has: eight at most.
        value.push(0x80 | u8::try_from(length.len()).unwrap_or(8));
    }
    value.extend_from_slice(length);
    value.extend_from_slice(content);
    value
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::pki_types::CertificateDer;

    /// What cannot be read back would be left out in silence when a connection is made.
    #[test]
    fn all_that_is_built_in_is_read_back_as_it_was() {
        let mut store = RootCertStore::empty();
        for certificate in crate::built_in() {
            store.add(CertificateDer::from(certificate.der())).unwrap();
        }
        assert!(store.roots.len() > 100);
        assert_eq!(store.roots, webpki_roots::TLS_SERVER_ROOTS);
        let constrained =
            |root: &&rustls::pki_types::TrustAnchor<'_>| root.name_constraints.is_some();
        assert!(store.roots.iter().any(|root| constrained(&root)));
    }
}
