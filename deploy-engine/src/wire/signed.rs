//! Signed requests: a host does only what comes from whoever holds its key, on this connection.
//!
//! The key is a host's own, derived from one secret of the site, so that what one host knows is worth nothing on another. A
//! signature covers the exact bytes of a request after its secrets were put in: the step's key, the fence, the whole work and
//! its time limit, and the nonce with which the agent greeted, so that a recorded request is worth nothing on another
//! connection.

use std::fmt;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The secret of a site that the keys of its hosts are derived from.
pub const STEP_SECRET: &str = "nightshift.steps";
/// What stands between a request and its signature. JSON without line breaks never holds it.
const MARK: u8 = b'\n';
/// Bytes of keys and signatures: those of SHA-256.
const BYTES: usize = 32;

/// What one host checks signatures with. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey([u8; BYTES]);

impl HostKey {
    /// The key of `host`, from the site's secret.
    pub fn derive(secret: &str, host: &str) -> Self {
        Self(
            mac(
                secret.as_bytes(),
                &[b"nightshift host key 1", host.as_bytes()],
            )
            .into_bytes(),
        )
    }

    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// For the file on the host, and for the frame that brings it there.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }

    /// Names the key without giving it away.
    pub fn id(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"nightshift host key id 1");
        hash.update(self.0);
        to_hex(&hash.finalize()[..8])
    }

    /// The signature of a request's payload on the connection with this nonce, in hex.
    pub fn sign(&self, nonce: &str, payload: &[u8]) -> String {
        to_hex(&self.request(nonce, payload).into_bytes())
    }

    /// Takes as long for a wrong signature as for a right one.
    pub fn verifies(&self, nonce: &str, payload: &[u8], signature: &str) -> bool {
        matches(self.request(nonce, payload), signature)
    }

    /// The signature that lets the host install a version of the agent, in hex.
    pub fn sign_agent(&self, sha256: &str) -> String {
        to_hex(&self.agent(sha256).into_bytes())
    }

    pub fn verifies_agent(&self, sha256: &str, signature: &str) -> bool {
        matches(self.agent(sha256), signature)
    }

    fn request(&self, nonce: &str, payload: &[u8]) -> Code {
        mac(
            &self.0,
            &[b"nightshift request 1", nonce.as_bytes(), payload],
        )
    }

    fn agent(&self, sha256: &str) -> Code {
        mac(&self.0, &[b"nightshift agent 1", sha256.as_bytes()])
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({})", self.id())
    }
}

impl Serialize for HostKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for HostKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The text itself must not get into an error.
        Self::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("expected a key of 64 hexadecimal digits"))
    }
}

/// A payload with its signature behind it, to be enclosed.
pub fn seal(payload: &[u8], signature: &str) -> Vec<u8> {
    [payload, &[MARK], signature.as_bytes()].concat()
}

/// A payload as [`seal`] made it; without a signature if it has none.
pub fn unseal(sealed: &[u8]) -> (&[u8], Option<&str>) {
    match sealed.iter().position(|byte| *byte == MARK) {
        None => (sealed, None),
        // A signature that is no text is there, and matches nothing.
        Some(at) => (
            &sealed[..at],
            Some(std::str::from_utf8(&sealed[at + 1..]).unwrap_or_default()),
        ),
    }
}

struct Code(Hmac<Sha256>);

impl Code {
    fn into_bytes(self) -> [u8; BYTES] {
        self.0.finalize().into_bytes().into()
    }
}

/// Each part goes in with its length, so that no two lists of parts are the same bytes.
fn mac(key: &[u8], parts: &[&[u8]]) -> Code {
    let mut mac =
        <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    Code(mac)
}

fn matches(code: Code, signature: &str) -> bool {
    // `verify_slice` compares in constant time.
    from_hex(signature).is_some_and(|given| code.0.verify_slice(&given).is_ok())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; BYTES]> {
    let digits = text.as_bytes();
    let plain = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * BYTES || !digits.iter().all(plain) {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &[u8] = br#"{"id":1,"body":{"request":"ask","key":"j.0.1"}}"#;

    #[test]
    fn a_signature_is_of_one_key_one_connection_and_these_bytes() {
        let key = HostKey::derive("site secret", "ctl1");
        let signature = key.sign("nonce", PAYLOAD);
        assert!(key.verifies("nonce", PAYLOAD, &signature));
        let mut other = PAYLOAD.to_vec();
        *other.last_mut().unwrap() ^= 1;
        let wrong = [
            HostKey::derive("site secret", "ctl2").verifies("nonce", PAYLOAD, &signature),
            HostKey::derive("other secret", "ctl1").verifies("nonce", PAYLOAD, &signature),
            key.verifies("another nonce", PAYLOAD, &signature),
            key.verifies("nonce", &other, &signature),
            key.verifies("nonc", &[b"e", PAYLOAD].concat(), &signature),
            key.verifies("nonce", PAYLOAD, &signature[..62]),
            key.verifies("nonce", PAYLOAD, &signature.to_uppercase()),
            key.verifies("nonce", PAYLOAD, ""),
            key.verifies_agent("nonce", &signature),
        ];
        assert_eq!(wrong, [false; 9]);
    }

    #[test]
    fn sealed_payloads_come_apart_again() {
        assert_eq!(unseal(PAYLOAD), (PAYLOAD, None));
        assert_eq!(unseal(&seal(PAYLOAD, "ab")), (PAYLOAD, Some("ab")));
        assert_eq!(unseal(b"x\n\xff"), (&b"x"[..], Some("")));
        assert_eq!(unseal(b"x\nab\ncd"), (&b"x"[..], Some("ab\ncd")));
    }

    #[test]
    fn keys_travel_as_hex_and_never_show() {
        let key = HostKey::derive("site secret", "ctl1");
        let hex = key.to_hex();
        assert_eq!(HostKey::from_hex(&hex), Some(key.clone()));
        assert!(!format!("{key:?}").contains(&hex[..16]));
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<HostKey>(&json).unwrap(), key);
        let error = serde_json::from_str::<HostKey>("\"0123 planted\"").unwrap_err();
        assert!(!error.to_string().contains("planted"), "{error}");
        for wrong in [
            "",
            "zz",
            &hex[1..],
            &format!("{hex}0"),
            &format!("+{}", &hex[1..]),
        ] {
            assert_eq!(HostKey::from_hex(wrong), None, "{wrong}");
        }
    }
}
