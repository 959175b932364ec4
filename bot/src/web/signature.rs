//! Signed webhooks: HMAC-SHA256 over the time and the body, so that the secret never travels and an old message is worth nothing.

use std::time::Duration;

use axum::http::HeaderMap;
use collectors::SourceName;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use crate::config::{Secret, SigningKey};

/// The source's name, the time in seconds since the epoch, and `v1=HEX`.
pub const SOURCE: &str = "x-nightshift-source";
pub const TIMESTAMP: &str = "x-nightshift-timestamp";
pub const SIGNATURE: &str = "x-nightshift-signature";
/// Version of what is signed: `v1:SECONDS:BODY`.
const VERSION: &str = "v1";

/// What each source signs with.
#[derive(Default)]
pub struct Signers(Vec<Signer>);

struct Signer {
    source: SourceName,
    key: Secret,
    window: Duration,
}

/// What a request says of its signature; worth nothing before its body was checked.
pub struct Claim<'s> {
    signer: &'s Signer,
    seconds: i64,
    signature: Vec<u8>,
}

impl Signers {
    pub fn new(keys: &[(String, SigningKey)]) -> Self {
        let signer = |(name, key): &(String, SigningKey)| Signer {
            source: SourceName(name.clone()),
            key: key.secret.clone(),
            window: Duration::from_secs(key.window_seconds.into()),
        };
        Self(keys.iter().map(signer).collect())
    }

    /// Whether it is worth reading the body: a known source, the right time, something like a signature.
    pub fn claim(&self, headers: &HeaderMap, now: Timestamp) -> Option<Claim<'_>> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let source = text(SOURCE)?;
        let signer = self.0.iter().find(|signer| signer.source.0 == source)?;
        let seconds: i64 = text(TIMESTAMP)?.parse().ok()?;
        let apart = Duration::from_secs(now.as_second().abs_diff(seconds));
        if apart > signer.window {
            tracing::warn!(
                source,
                seconds_apart = apart.as_secs(),
                "a signed webhook is too old or from the future"
            );
            return None;
        }
        let hex = text(SIGNATURE)?.strip_prefix(VERSION)?.strip_prefix('=')?;
        Some(Claim {
            signer,
            seconds,
            signature: from_hex(hex)?,
        })
    }
}

impl<'s> Claim<'s> {
    /// Whom it names.
    pub fn source(&self) -> &'s SourceName {
        &self.signer.source
    }

    /// The source, if it signed this body. Compared in constant time.
    pub fn proven(&self, body: &[u8]) -> Option<&'s SourceName> {
        let mac = mac(&self.signer.key, self.seconds, body);
        mac.verify_slice(&self.signature).ok()?;
        Some(&self.signer.source)
    }
}

fn mac(key: &Secret, seconds: i64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key.reveal().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(format!("{VERSION}:{seconds}:").as_bytes());
    mac.update(body);
    mac
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [a, b] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(*a)? * 16 + digit(*b)?).ok()
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
pub mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// The headers of a webhook that `source` signed.
    pub fn headers(source: &str, secret: &str, seconds: i64, body: &[u8]) -> HeaderMap {
        let code = mac(&Secret::new(secret), seconds, body)
            .finalize()
            .into_bytes();
        let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut headers = HeaderMap::new();
        let mut put = |name, value: String| {
            headers.insert(name, HeaderValue::from_str(&value).unwrap());
        };
        put(SOURCE, source.to_owned());
        put(TIMESTAMP, seconds.to_string());
        put(SIGNATURE, format!("v1={hex}"));
        headers
    }

    fn signers() -> Signers {
        let key = |secret: &str| SigningKey {
            secret: Secret::new(secret),
            window_seconds: 300,
        };
        Signers::new(&[
            ("relay".to_owned(), key("one")),
            ("other".to_owned(), key("two")),
        ])
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn source(headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let signers = signers();
        let claim = signers.claim(headers, now())?;
        claim.proven(body).map(|name| name.0.clone())
    }

    /// Made with
    /// `printf 'v1:1800000000:{}' | openssl dgst -sha256 -hmac one`.
    #[test]
    fn it_is_what_other_programs_compute() {
        let made = headers("relay", "one", 1_800_000_000, b"{}");
        assert_eq!(
            made[SIGNATURE],
            "v1=c1b1dd432f28bc04835f68f2e7faea416d3c4157a62e417de31a120f7de717de"
        );
    }

    #[test]
    fn a_signature_proves_its_source_its_body_and_its_time() {
        let at = now().as_second();
        let good = headers("relay", "one", at, b"body");
        assert_eq!(source(&good, b"body").as_deref(), Some("relay"));
        assert_eq!(source(&good, b"bodY"), None);
        for seconds in [at - 300, at + 300] {
            assert!(source(&headers("relay", "one", seconds, b"body"), b"body").is_some());
        }
        for seconds in [at - 301, at + 301, 0, i64::MIN, i64::MAX] {
            assert_eq!(
                source(&headers("relay", "one", seconds, b"body"), b"body"),
                None
            );
        }
        // Another time under the same signature, another source's key, no such source.
        let mut moved = good.clone();
        moved.insert(
            TIMESTAMP,
            HeaderValue::from_str(&(at - 1).to_string()).unwrap(),
        );
        assert_eq!(source(&moved, b"body"), None);
        assert_eq!(source(&headers("relay", "two", at, b"body"), b"body"), None);
        assert_eq!(
            source(&headers("nobody", "one", at, b"body"), b"body"),
            None
        );
    }

    #[test]
    fn what_is_no_signature_is_refused_without_a_look_at_the_body() {
        for wrong in ["", "v1=", "v2=00", "v1=0", "v1=zz", "v1=é", "00"] {
            let mut headers = headers("relay", "one", now().as_second(), b"body");
            headers.insert(
                SIGNATURE,
                HeaderValue::from_bytes(wrong.as_bytes()).unwrap(),
            );
            assert_eq!(source(&headers, b"body"), None, "{wrong}");
        }
        assert!(signers().claim(&HeaderMap::new(), now()).is_none());
    }
}
