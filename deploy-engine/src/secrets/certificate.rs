//! Keys and certificates of services whose members speak TLS. They are secrets of the site like passwords: made on first use,
//! kept encrypted, written to hosts by the deploy. The authority's key never leaves the bot.
//!
//! Names: `SERVICE.tls/ca` and `SERVICE.tls/@HOST` are certificates, with `/key` after it their keys. No password has a `/`.

use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::{
    model::{HostName, ServiceName},
    wire::secret_reference,
};

const AUTHORITY: &str = "ca";
pub(super) const KEY: &str = "/key";
/// Between the name of a service and what its certificate is for.
const TLS: &str = ".tls/";

/// Nobody renews what a closed group of daemons shows each other; a certificate that ends on a night some years from now would
/// be an outage of its own.
const VALID_FROM: (i32, u8, u8) = (2025, 1, 1);
const VALID_UNTIL: (i32, u8, u8) = (2049, 12, 31);

/// The certificate of the authority: what a client of the service must know. For example `icinga2.tls/ca`.
pub fn authority(service: &ServiceName) -> String {
    authority_name(service.as_str())
}

pub(super) fn authority_name(service: &str) -> String {
    format!("{service}{TLS}{AUTHORITY}")
}

fn member(service: &ServiceName, host: &HostName) -> String {
    format!("{service}{TLS}@{host}")
}

/// The names of everything that these members need.
pub fn names(service: &ServiceName, members: &[HostName]) -> Vec<String> {
    members
        .iter()
        .map(|host| member(service, host))
        .chain([authority(service)])
        .flat_map(|name| [format!("{name}{KEY}"), name])
        .collect()
}

/// What templates of the service see as `tls` on this host.
pub fn references(service: &ServiceName, host: &HostName) -> BTreeMap<&'static str, String> {
    let own = member(service, host);
    [
        ("authority", secret_reference(&authority(service))),
        ("certificate", secret_reference(&own)),
        ("key", secret_reference(&format!("{own}{KEY}"))),
    ]
    .into()
}

/// What a secret's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted<'n> {
    Password,
    Key,
    /// Signed by its own key.
    Authority {
        service: &'n str,
    },
    /// Signed by the authority of its service.
    Member {
        service: &'n str,
        host: &'n str,
    },
}

impl<'n> Wanted<'n> {
    pub fn of(name: &'n str) -> Self {
        match name.split_once(TLS) {
            None => Self::Password,
            Some((_, rest)) if rest.ends_with(KEY) => Self::Key,
            Some((service, AUTHORITY)) => Self::Authority { service },
            Some((service, host)) => Self::Member {
                service,
                host: host.trim_start_matches('@'),
            },
        }
    }
}

/// A new key, in PEM.
pub fn new_key() -> Result<String, rcgen::Error> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// The certificate of an authority for its key, in PEM.
pub fn new_authority(service: &str, key: &str) -> Result<String, rcgen::Error> {
    let key = KeyPair::from_pem(key)?;
    Ok(authority_params(service)?.self_signed(&key)?.pem())
}

/// A member's certificate for its key, signed with the key of its service's authority, in PEM. It serves as server's and as
/// client's, and its common name is the host's.
pub fn new_member(
    service: &str,
    host: &str,
    key: &str,
    authority_key: &str,
) -> Result<String, rcgen::Error> {
    let key = KeyPair::from_pem(key)?;
    let issuer = Issuer::new(
        authority_params(service)?,
        KeyPair::from_pem(authority_key)?,
    );
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, host);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(lasting(params).signed_by(&key, &issuer)?.pem())
}

/// The same each time, so that the authority need not be read back to sign with it.
fn authority_params(service: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    let name = format!("Nightshift authority of {service}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(lasting(params))
}

fn lasting(mut params: CertificateParams) -> CertificateParams {
    let day = |(year, month, day)| date_time_ymd(year, month, day);
    (params.not_before, params.not_after) = (day(VALID_FROM), day(VALID_UNTIL));
    params
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::Arc;

    use tokio_rustls::rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    };

    /// Would a client that trusts this authority alone believe that the certificate is this host's?
    pub fn verifies(certificate: &str, authority: &str, host: &str) -> bool {
        let read = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(read(authority)).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let certificate = read(certificate);
        verifier
            .verify_server_cert(&certificate, &[], &name, &[], UnixTime::now())
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        let service: ServiceName = "icinga2".parse().unwrap();
        let host: HostName = "ca".parse().unwrap();
        assert_eq!(
            names(&service, std::slice::from_ref(&host)),
            [
                "icinga2.tls/@ca/key",
                "icinga2.tls/@ca",
                "icinga2.tls/ca/key",
                "icinga2.tls/ca"
            ]
        );
        assert_eq!(Wanted::of("icinga2.tls"), Wanted::Password);
        assert_eq!(Wanted::of("icinga2.tls/ca/key"), Wanted::Key);
        assert_eq!(
            Wanted::of("icinga2.tls/ca"),
            Wanted::Authority { service: "icinga2" }
        );
        // A host may be called like the authority.
        assert_eq!(
            Wanted::of("icinga2.tls/@ca"),
            Wanted::Member {
                service: "icinga2",
                host: "ca"
            }
        );
    }
}
