//! Secrets are references until a frame leaves, and references again when one comes in.

use std::sync::Arc;

/// Where the values of secrets are kept. Values never enter logs, errors or `Debug`.
pub trait Secrets: Send + Sync {
    /// The value of a name such as `mariadb.root`; `None`: there is no such secret.
    fn reveal(&self, name: &str) -> Option<Arc<str>>;

    /// All names and values: what must not come back from hosts in clear.
    fn all_values(&self) -> Vec<(String, Arc<str>)>;
}
