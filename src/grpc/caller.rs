//! Who asks: the one place that says so, and that tokens will change later.
//!
//! Today it is the subject of the client's certificate, where there is one, otherwise whoever the
//! request claims to come from.

use std::sync::Arc;
use tonic::Extensions;

/// Who asks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Caller {
    /// Nothing proves it: what the request claims holds.
    #[default]
    Claimed,
    /// The common name of the client's certificate, which the server's authorities signed.
    Certificate { common_name: Arc<str> },
}

/// What a connection knows of its client: the certificate, DER, when it showed one.
#[derive(Clone, Debug)]
pub struct PeerCertificate(pub Option<Arc<[u8]>>);

/// Says who asks, from a request's extensions.
pub fn caller(extensions: &Extensions) -> Caller {
    let shown = extensions.get::<PeerCertificate>().and_then(|certificate| certificate.0.as_deref());
    shown.map_or(Caller::Claimed, from_certificate)
}

fn from_certificate(der: &[u8]) -> Caller {
    match common_name(der) {
        Some(name) => Caller::Certificate { common_name: name.into() },
        None => Caller::Claimed,
    }
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xA0;
/// 2.5.4.3, commonName.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The subject's common name (RFC 5280 4.1: the sixth field of the certificate's first part, the
/// version not counted). TLS has verified the certificate; this only reads it.
fn common_name(certificate: &[u8]) -> Option<String> {
    let mut outer = Der(Der(certificate).take(SEQUENCE)?);
    let mut body = Der(outer.take(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.take(VERSION)?;
    }
    body.take(INTEGER)?;
    for _algorithm_issuer_validity in 0..3 {
        body.take(SEQUENCE)?;
    }
    let mut subject = Der(body.take(SEQUENCE)?);
    while !subject.0.is_empty() {
        let mut set = Der(subject.take(SET)?);
        while !set.0.is_empty() {
            let mut attribute = Der(set.take(SEQUENCE)?);
            let is_name = attribute.take(OBJECT)? == COMMON_NAME;
            let (_, text) = attribute.next()?;
            if is_name {
                return std::str::from_utf8(text).ok().map(String::from);
            }
        }
    }
    None
}

/// What is left of a run of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(common_name: Option<&str>) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_string()]).expect("params");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "o".repeat(200));
        if let Some(name) = common_name {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        }
        params.self_signed(&key).expect("certificate").der().to_vec()
    }

    #[test]
    fn the_certificate_says_who_asks() {
        let mut extensions = Extensions::new();
        assert_eq!(caller(&extensions), Caller::Claimed);
        extensions.insert(PeerCertificate(Some(certificate(Some("validator-7")).into())));
        assert_eq!(caller(&extensions), Caller::Certificate { common_name: "validator-7".into() });
        extensions.insert(PeerCertificate(Some(certificate(None).into())));
        assert_eq!(caller(&extensions), Caller::Claimed);
    }

    #[test]
    fn cut_certificates_are_no_panic() {
        let whole = certificate(Some("validator-7"));
        for end in 0..whole.len() {
            common_name(&whole[..end]);
        }
    }
}
