//! The table's files, checked with all errors at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use deploy_engine::model::{Diagnostics, Document, load_document, parse_document};
use include_dir::{Dir, include_dir};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{AlertFile, AlertTable, Destination, Mapping, Row, bare, key};
use crate::{format::RunbookId, library};

/// The folder of a site's directory of runbooks that has its own tables of alerts.
pub const FOLDER: &str = "alerts";

/// The tables that come with the program: every file of the folder.
static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/alerts");

fn embedded() -> impl Iterator<Item = (&'static str, &'static str)> {
    let files = EMBEDDED.files();
    files.filter_map(|file| Some((file.path().to_str()?, file.contents_utf8()?)))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    runbooks: BTreeMap<String, String>,
}

/// Every runbook that has a name, with its title, whether there is one or not.
pub fn catalogue() -> &'static BTreeMap<String, String> {
    static CATALOGUE: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let text = include_str!("../../catalogue.yaml");
        let parsed = parse_document::<Catalogue>("catalogue.yaml", text);
        // A test holds that it is right; without it nothing but titles would be missing.
        parsed.map_or_else(|_| BTreeMap::new(), |document| document.value.runbooks)
    })
}

impl AlertTable {
    /// The embedded tables, and the folder `alerts` of each directory on top. `there`: the runbooks that there are.
    ///
    /// # Errors
    /// Everything that is wrong in any file, with its place.
    pub fn load(directories: &[PathBuf], there: &BTreeSet<&str>) -> Result<Self, Diagnostics> {
        let (mut table, mut errors) = (Self::default(), Diagnostics::default());
        for (name, text) in embedded() {
            table.take(parse_document(name, text), 0, there, &mut errors);
        }
        for (number, directory) in directories.iter().enumerate() {
            for path in own_files(directory, &mut errors) {
                table.take(load_document(&path), number + 1, there, &mut errors);
            }
        }
        errors.or(table)
    }

    fn take(
        &mut self,
        loaded: Result<Document<AlertFile>, Diagnostics>,
        layer: usize,
        there: &BTreeSet<&str>,
        errors: &mut Diagnostics,
    ) {
        match loaded {
            Err(found) => errors.extend(found),
            Ok(document) => {
                let found = check(&document, there);
                if found.is_empty() {
                    self.add(&document, layer);
                }
                errors.extend(found);
            }
        }
    }

    fn add(&mut self, document: &Document<AlertFile>, layer: usize) {
        for set in &document.value.sets {
            let by = set.by.clone().unwrap_or_default();
            for row in &set.map {
                let Some(destination) = destination(row) else {
                    continue;
                };
                let index = self.rows.len();
                self.rows.push(Mapping {
                    destination,
                    target: row.target.clone(),
                    service: row.service.clone(),
                    service_by: row.service_by,
                    when: row.when.clone(),
                    set: set.set.clone(),
                    file: document.source.name().to_owned(),
                    layer,
                });
                for name in &row.names {
                    match name.strip_suffix('*') {
                        Some(start) => {
                            let of = self.beginnings.entry(by.clone()).or_default();
                            of.push((key(start), index));
                        }
                        None => {
                            let of = self.exact.entry(by.clone()).or_default();
                            of.entry(key(name)).or_default().push(index);
                            if let Some(bare) = bare(name) {
                                let of = self.bare.entry(by.clone()).or_default();
                                of.entry(key(bare)).or_default().push(index);
                            }
                        }
                    }
                }
            }
        }
    }
}

fn own_files(directory: &Path, errors: &mut Diagnostics) -> Vec<PathBuf> {
    let folder = directory.join(FOLDER);
    match folder.is_dir() {
        true => library::files(&folder, "alerts", errors),
        false => Vec::new(),
    }
}

/// `None`: not exactly one.
fn destination(row: &Row) -> Option<Destination> {
    let ids = |ids: &Option<Vec<RunbookId>>| ids.clone();
    let found = [
        ids(&row.runbook).map(Destination::Runbook),
        ids(&row.diagnosis).map(Destination::Diagnosis),
        ids(&row.page).map(Destination::Page),
        ids(&row.host_down).map(Destination::HostDown),
        row.gate.map(Destination::Gate),
    ];
    let mut found = found.into_iter().flatten();
    let first = found.next();
    first.filter(|_| found.next().is_none())
}

/// Everything that the schema cannot say. Pure.
fn check(document: &Document<AlertFile>, there: &BTreeSet<&str>) -> Diagnostics {
    let mut errors = Diagnostics::default();
    for (s, set) in document.value.sets.iter().enumerate() {
        let mut seen = BTreeSet::new();
        for (r, row) in set.map.iter().enumerate() {
            let at = [
                "sets".to_owned(),
                s.to_string(),
                "map".to_owned(),
                r.to_string(),
            ];
            for why in wrong(row, there) {
                errors.push(document.error_at(&at, why));
            }
            let again = row.names.iter().filter(|name| {
                let entry = (key(name), name.ends_with('*'), format!("{:?}", row.when));
                !seen.insert(entry)
            });
            for name in again {
                errors.push(document.error_at(&at, format!("{name} is mapped twice in this set")));
            }
        }
    }
    errors
}

fn wrong(row: &Row, there: &BTreeSet<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    let destination = destination(row);
    match &destination {
        None => wrong.push(
            "expected exactly one of runbook, diagnosis, page, host_down and gate".to_owned(),
        ),
        Some(destination) => {
            let unknown = destination.ids().iter().filter(|id| {
                !there.contains(id.0.as_str()) && !catalogue().contains_key(id.0.as_str())
            });
            wrong.extend(unknown.map(|id| format!("there is no runbook {id}")));
        }
    }
    if matches!(&destination, Some(Destination::Runbook(ids) | Destination::Diagnosis(ids)) if ids.is_empty())
    {
        wrong.push("expected at least one runbook".to_owned());
    }
    if row.names.is_empty() {
        wrong.push("expected at least one name".to_owned());
    }
    let empty = row.names.iter().filter(|name| key(name).is_empty());
    wrong.extend(empty.map(|name| format!("expected letters or digits in a name; found {name:?}")));
    let acts = !matches!(
        destination,
        Some(Destination::Page(_) | Destination::Gate(_))
    );
    let wide = row.names.iter().filter(|name| name.ends_with('*') && acts);
    wrong.extend(
        wide.map(|name| format!("{name}: a beginning can only page; what acts is named in full")),
    );
    wrong
}
