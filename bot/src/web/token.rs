//! Bearer tokens of webhooks: which source is this?

use collectors::SourceName;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Secret;

/// Digests of the tokens: comparing digests takes the same time whatever the token, and nothing here can leak one.
pub struct Tokens(Vec<(SourceName, [u8; 32])>);

impl Tokens {
    pub fn new(tokens: &[(String, Secret)]) -> Self {
        let digest = |(name, token): &(String, Secret)| {
            (
                SourceName(name.clone()),
                Sha256::digest(token.reveal().as_bytes()).into(),
            )
        };
        Self(tokens.iter().map(digest).collect())
    }

    /// The source whose token the `Authorization` header carries.
    pub fn source(&self, header: Option<&str>) -> Option<&SourceName> {
        let token = header?.strip_prefix("Bearer ")?;
        let given: [u8; 32] = Sha256::digest(token.trim().as_bytes()).into();
        let mut found = None;
        // All are compared, and each in full.
        for (name, known) in &self.0 {
            if bool::from(known.ct_eq(&given)) {
                found = Some(name);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_source() {
        let tokens = [("am1", "one"), ("am2", "two")].map(|(n, t)| (n.to_owned(), Secret::new(t)));
        let tokens = Tokens::new(&tokens);
        let source = |header| tokens.source(header).map(|name| name.0.as_str());
        assert_eq!(source(Some("Bearer two")), Some("am2"));
        assert_eq!(source(Some("Bearer three")), None);
        assert_eq!(source(Some("Basic two")), None);
        assert_eq!(source(Some("Bearer ")), None);
        assert_eq!(source(None), None);
    }
}
