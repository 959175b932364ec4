//! The secrets of a site: generated on first use, kept in an age-encrypted file.
//!
//! Two files in one folder, made together by one rename: `identity` (the age key, 0600) and `secrets.age`. Whoever loses one
//! of them gets an error that says so; nothing is ever generated anew over what an existing site uses.

pub mod certificate;
mod store;

use std::{fmt, sync::Arc};

pub use store::{SecretError, SecretStore};

/// A secret's value. `Debug` and `Display` never show it; it is wiped from memory by its last owner only as far as the
/// allocator allows, so it is kept in few places.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The value itself: for the transport alone.
    pub fn reveal(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
