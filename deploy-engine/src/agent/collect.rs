//! Collects into ordered maps and sets by insertion. `Iterator::collect` sorts first, and each sort of yet another type adds
//! kilobytes to a program that must stay small.

use std::collections::{BTreeMap, BTreeSet};

pub fn map<K: Ord, V>(items: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut all = BTreeMap::new();
    for (key, value) in items {
        all.insert(key, value);
    }
    all
}

pub fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut all = BTreeSet::new();
    for item in items {
        all.insert(item);
    }
    all
}
