//! What several test programs need.

// Each test program uses its part of it.
#![allow(dead_code)]

pub mod human;
pub mod room;
pub mod scene;

use std::{os::unix::fs::PermissionsExt, path::Path};

/// As secrets must be.
pub fn only_for_owner(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
