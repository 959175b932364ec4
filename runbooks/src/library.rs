//! The runbooks there are: the embedded ones and those of the site's directories, checked against probes, conditions and
//! decisions, with all errors at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use deploy_engine::{
    condition,
    model::{Diagnostic, Diagnostics, Document, document, load_document, parse_document},
    probe,
};
use include_dir::{Dir, include_dir};
use serde_json::Value;

use crate::{
    alerts::AlertTable,
    decision::{self, Entry, Settings},
    format::{Class, MEMBERS, ProofSpec, Runbook, RunbookId, StepSpec, normalised, placeholder},
    never,
};

/// The runbooks that come with the program: every file of the folder.
static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/library");

/// Name and text of every file of an embedded folder, in the order of their names.
pub(crate) fn embedded(
    folder: &'static Dir<'static>,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut files: Vec<_> = folder.files().collect();
    files.sort_by_key(|file| file.path());
    files
        .into_iter()
        .filter_map(|file| Some((file.path().to_str()?, file.contents_utf8()?)))
}

/// Most steps of one runbook: more is a program, not a recipe.
const STEPS_MAX: usize = 40;

/// All runbooks, by id, and the table that says which alerts make them look.
#[derive(Clone, Debug, Default)]
pub struct Library {
    runbooks: BTreeMap<RunbookId, Runbook>,
    alerts: AlertTable,
}

impl Library {
    /// The embedded runbooks; a file of a directory replaces the embedded one with its id, or adds to them. A directory's folder
    /// `alerts` does the same to the table of alerts.
    ///
    /// # Errors
    /// Everything that is wrong in any file, with its place.
    pub fn load(directories: &[PathBuf]) -> Result<Self, Diagnostics> {
        let mut errors = Diagnostics::default();
        let mut runbooks = BTreeMap::new();
        for (name, text) in embedded(&EMBEDDED) {
            take(
                parse_document(name, text),
                &mut runbooks,
                &mut BTreeSet::new(),
                &mut errors,
            );
        }
        for directory in directories {
            let mut own = BTreeSet::new();
            for path in files(directory, "runbooks", &mut errors) {
                take(load_document(&path), &mut runbooks, &mut own, &mut errors);
            }
        }
        let there: BTreeSet<&str> = runbooks.keys().map(|id| id.0.as_str()).collect();
        let alerts = AlertTable::load(directories, &there);
        let alerts = alerts
            .map_err(|more| errors.extend(more))
            .unwrap_or_default();
        errors.or(Self { runbooks, alerts })
    }

    /// The embedded runbooks alone.
    ///
    /// # Errors
    /// As for [`Library::load`]; a test holds that there are none.
    pub fn embedded() -> Result<Self, Diagnostics> {
        Self::load(&[])
    }

    pub fn get(&self, id: &RunbookId) -> Option<&Runbook> {
        self.runbooks.get(id)
    }

    /// These, each followed by its variants (ADR 23).
    pub fn with_variants(&self, ids: &[RunbookId]) -> Vec<RunbookId> {
        let of = |id: &RunbookId| {
            let variants = self.runbooks.keys().filter(|one| one.is_variant_of(id));
            let all = std::iter::once(id).chain(variants);
            all.cloned().collect::<Vec<_>>()
        };
        ids.iter().flat_map(of).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Runbook> {
        self.runbooks.values()
    }

    /// Those that may change something: what is trusted, and drilled.
    pub fn repairs(&self) -> impl Iterator<Item = &Runbook> {
        self.iter().filter(|one| one.class != Class::Diagnosis)
    }

    pub fn alerts(&self) -> &AlertTable {
        &self.alerts
    }
}

/// The settings that a decision sees: the runbook's, overridden by the site's, times in seconds.
pub fn settings(runbook: &Runbook, overrides: &BTreeMap<String, Value>) -> Settings {
    let own = runbook.settings.iter();
    let site = overrides
        .iter()
        .filter(|(name, _)| runbook.settings.contains_key(*name));
    own.chain(site)
        .map(|(name, value)| (name.clone(), normalised(value)))
        .collect()
}

/// The YAML files of a directory, sorted.
pub(crate) fn files(directory: &Path, what: &str, errors: &mut Diagnostics) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    match listed {
        Ok(paths) => {
            let is_yaml = |path: &PathBuf| {
                path.extension()
                    .is_some_and(|extension| extension == "yaml")
            };
            let mut paths: Vec<PathBuf> = Vec::into_iter(paths).filter(is_yaml).collect();
            paths.sort();
            paths
        }
        Err(error) => {
            errors.push(Diagnostic::whole_file(
                directory.display().to_string(),
                format!("the directory of {what} cannot be read: {error}"),
            ));
            Vec::new()
        }
    }
}

fn take(
    loaded: Result<document::Document<Runbook>, Diagnostics>,
    runbooks: &mut BTreeMap<RunbookId, Runbook>,
    own: &mut BTreeSet<RunbookId>,
    errors: &mut Diagnostics,
) {
    match loaded {
        Err(found) => errors.extend(found),
        Ok(document) => {
            errors.extend(check_document(&document));
            let id = document.value.runbook.clone();
            if !own.insert(id.clone()) {
                errors.push(document.error_at(
                    &["runbook"],
                    format!("{id} is there twice in this directory"),
                ));
            }
            runbooks.insert(id, document.value);
        }
    }
}

/// Everything that the schema cannot say. Pure.
pub fn check_document(document: &Document<Runbook>) -> Diagnostics {
    let mut checker = Checker {
        document,
        errors: Diagnostics::default(),
    };
    let runbook = &document.value;
    let Some(entry) = checker.decision(&runbook.decide) else {
        return checker.errors;
    };
    checker.probes(&["evidence"], &runbook.evidence);
    checker.evidence(entry);
    checker.settings(entry);
    checker.budget();
    match runbook.class {
        Class::Diagnosis => checker.changes_nothing(entry),
        Class::Automatic | Class::Guarded | Class::Human => checker.repair(entry),
    }
    checker.errors
}

struct Checker<'a> {
    document: &'a Document<Runbook>,
    errors: Diagnostics,
}

impl Checker<'_> {
    fn error(&mut self, path: &[&str], message: impl Into<String>) {
        self.errors.push(self.document.error_at(path, message));
    }

    fn unknown<'n>(
        &mut self,
        path: &[&str],
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) {
        let error = self
            .document
            .error_at(path, format!("there is no {what} of this name"));
        self.errors
            .push(error.found(name).did_you_mean(name, known));
    }

    /// A diagnosis has nothing that could change anything, and its decision no role that anything could be done to.
    fn changes_nothing(&mut self, entry: &Entry) {
        let runbook = &self.document.value;
        if !runbook.steps.is_empty() {
            self.error(&["steps"], "expected none: a diagnosis changes nothing");
        }
        if runbook.proof.is_some() {
            self.error(&["proof"], "expected none: a diagnosis changes nothing");
        }
        if !runbook.affects.is_empty() {
            self.error(&["affects"], "expected none: a diagnosis acts on nobody");
        }
        if !entry.roles.is_empty() {
            let why = format!(
                "{} decides on repairs; a diagnosis needs one without roles",
                entry.name
            );
            self.error(&["decide"], why);
        }
    }

    fn repair(&mut self, entry: &Entry) {
        let runbook = &self.document.value;
        if runbook.steps.is_empty() || runbook.steps.len() > STEPS_MAX {
            let found = runbook.steps.len();
            self.error(
                &["steps"],
                format!("expected 1 to {STEPS_MAX} steps; found {found}"),
            );
        }
        for (index, step) in runbook.steps.iter().enumerate() {
            self.step(index, step, entry);
        }
        self.covers_roles(entry);
        for role in &runbook.affects {
            self.role(&["affects"], role, entry);
        }
        if runbook.drill.is_empty() {
            self.error(&["drill"], "expected the drill that proves it; found none");
        }
        match &runbook.proof {
            Some(proof) => self.proof(proof, entry),
            None => self.error(
                &["proof"],
                "expected what proves that it is mended; found nothing",
            ),
        }
    }

    fn proof(&mut self, proof: &ProofSpec, entry: &Entry) {
        self.condition(&["proof", "condition"], &proof.condition);
        self.role(
            &["proof", "on"],
            proof.on.as_deref().unwrap_or(MEMBERS),
            entry,
        );
        self.placeholders(&["proof", "with"], &proof.with, entry);
        if proof.settle >= proof.deadline || proof.settle.0.0 == 0 {
            self.error(
                &["proof", "deadline"],
                "expected a settle time above nothing and a deadline after it",
            );
        }
    }

    fn decision(&mut self, name: &str) -> Option<&'static Entry> {
        let found = decision::find(name);
        if found.is_none() {
            self.unknown(
                &["decide"],
                "decision",
                name,
                decision::registry().map(|entry| entry.name),
            );
        }
        found
    }

    fn condition(&mut self, path: &[&str], name: &str) {
        if condition::find(name).is_none() {
            self.unknown(
                path,
                "condition",
                name,
                condition::registry().map(|one| one.name()),
            );
        }
    }

    fn probes(&mut self, path: &[&str], names: &[String]) {
        for (index, name) in names.iter().enumerate() {
            if probe::find(name).is_none() {
                let index = index.to_string();
                let path: Vec<&str> = path.iter().copied().chain([index.as_str()]).collect();
                let about = probe::split(name).1;
                let known: Vec<String> = probe::registry()
                    .map(|one| match about.filter(|_| one.is_about_one()) {
                        Some(about) => format!("{}/{about}", one.name()),
                        None => one.name().to_owned(),
                    })
                    .collect();
                let known = known.iter().map(String::as_str);
                self.unknown(&path, "probe", name, known);
            }
        }
    }

    fn evidence(&mut self, entry: &Entry) {
        let asked = &self.document.value.evidence;
        let missing: Vec<&str> = entry
            .evidence
            .iter()
            .copied()
            .filter(|probe| !asked.iter().any(|one| one == probe))
            .collect();
        if !missing.is_empty() {
            self.error(
                &["evidence"],
                format!("{} also reads {}", entry.name, missing.join(", ")),
            );
        }
    }

    fn settings(&mut self, entry: &Entry) {
        let set = &self.document.value.settings;
        for name in set
            .keys()
            .filter(|name| !entry.settings.contains(&name.as_str()))
        {
            let path = ["settings", name.as_str()];
            self.unknown(&path, "setting", name, entry.settings.iter().copied());
        }
        let missing: Vec<&str> = entry
            .settings
            .iter()
            .copied()
            .filter(|name| !set.contains_key(*name))
            .collect();
        if !missing.is_empty() {
            self.error(
                &["decide"],
                format!("{} needs the settings {}", entry.name, missing.join(", ")),
            );
        }
    }

    fn budget(&mut self) {
        let budget = &self.document.value.budget;
        if budget.per_target.is_empty() || budget.at_once == 0 {
            self.error(
                &["budget"],
                "expected a limit per target, and at least one repair at once",
            );
        }
        let span = crate::budget::WINDOW_MAX.as_secs();
        let windows = budget.per_target.iter().chain(&budget.per_site);
        if windows
            .into_iter()
            .any(|window| i64::from(window.window.0.0) > span || window.count == 0)
        {
            self.error(
                &["budget"],
                "expected windows of at most 7d and counts above nothing",
            );
        }
    }

    fn role(&mut self, path: &[&str], name: &str, entry: &Entry) {
        if name != MEMBERS && !entry.roles.iter().any(|role| role.name == name) {
            let known = entry.roles.iter().map(|role| role.name).chain([MEMBERS]);
            self.unknown(path, &format!("role of {}", entry.name), name, known);
        }
    }

    fn placeholders(&mut self, path: &[&str], with: &BTreeMap<String, Value>, entry: &Entry) {
        for value in with
            .values()
            .filter_map(Value::as_str)
            .filter_map(placeholder)
        {
            if !entry.parameters.contains(&value) {
                self.unknown(path, "parameter", value, entry.parameters.iter().copied());
            }
        }
    }

    fn step(&mut self, index: usize, step: &StepSpec, entry: &Entry) {
        let number = index.to_string();
        let at = ["steps", number.as_str()];
        let field = |name: &'static str| ["steps".to_owned(), number.clone(), name.to_owned()];
        let kinds = [
            step.snapshot.is_some(),
            step.run.is_some(),
            step.wait.is_some(),
        ];
        let kind_count = kinds.iter().filter(|is| **is).count();
        if kind_count > 1 || (kind_count == 0 && step.then.is_none()) {
            self.error(
                &at,
                "expected exactly one of snapshot, run, wait, or then alone",
            );
        }
        if (index == 0) != step.snapshot.is_some() {
            self.error(
                &at,
                "expected a snapshot as the first step and nowhere else (gate G9)",
            );
        }
        for name in step.guard.iter().chain(&step.unless).chain(&step.then) {
            self.condition(&at, name);
        }
        if let Some(probes) = &step.snapshot {
            let path = field("snapshot");
            self.probes(&path.each_ref().map(String::as_str), probes);
        }
        for guard in &step.guards {
            self.condition(&at, &guard.condition);
            self.role(&at, &guard.on, entry);
        }
        match &step.on {
            Some(role) if role == MEMBERS && step.run.is_some() => {
                self.error(
                    &at,
                    "expected a role of the decision: a command is never run on \"all members\"",
                );
            }
            Some(role) => {
                let path = field("on");
                self.role(&path.each_ref().map(String::as_str), role, entry);
            }
            None if step.snapshot.is_none() => {
                self.error(&at, "expected `on`: the role that it is about")
            }
            None => {}
        }
        if step.then.is_some() != step.within.is_some() {
            self.error(&at, "`then` and `within` belong together");
        }
        self.placeholders(&at, &step.with, entry);
        if let Some(argv) = &step.run {
            self.command(&at, step, argv, entry);
        }
        if let Some(undo) = &step.undo {
            // What takes a step back stands behind no guard.
            let path = [&at[..], &["undo"]].concat();
            self.argv(&path, undo, &[], entry);
        }
    }

    fn command(&mut self, at: &[&str], step: &StepSpec, argv: &[String], entry: &Entry) {
        let guards: Vec<String> = step
            .guard
            .iter()
            .chain(step.guards.iter().map(|guard| &guard.condition))
            .cloned()
            .collect();
        let path = [at, &["run"]].concat();
        self.argv(&path, argv, &guards, entry);
        if step.effect.is_none() || step.timeout.is_none() || step.title.is_empty() {
            self.error(at, "a command needs a title, an effect and a timeout");
        }
        if step.guard.is_none() && step.guards.is_empty() {
            self.error(
                at,
                "a command needs a guard that is asked in the same breath (gate G11)",
            );
        }
        if step.effect == Some(deploy_engine::job::Effect::Once) && step.unless.is_none() {
            self.error(
                at,
                "a command that must not happen twice needs `unless`, which decides after a loss",
            );
        }
    }

    /// `guards`: the conditions that stand before it. Anything that is never done is refused here, with its place.
    fn argv(&mut self, at: &[&str], argv: &[String], guards: &[String], entry: &Entry) {
        let Some(program) = argv.first() else {
            return self.error(at, "expected a command; found an empty list");
        };
        if placeholder(program).is_some() {
            self.error(at, "expected a program by its name; found a parameter");
        }
        let runbook = &self.document.value;
        let guards = guards.iter().map(String::as_str);
        if let Some(why) = never::refusal(argv, &runbook.decide, guards) {
            self.error(at, why);
        }
        for name in argv.iter().filter_map(|word| placeholder(word)) {
            if !entry.parameters.contains(&name) {
                self.unknown(at, "parameter", name, entry.parameters.iter().copied());
            }
        }
    }

    /// A role that the decision gives and no step uses would be a silent "nothing to do".
    fn covers_roles(&mut self, entry: &Entry) {
        let runbook = &self.document.value;
        let used = |name: &str| {
            runbook.steps.iter().any(|step| {
                step.on.as_deref() == Some(name) || step.guards.iter().any(|guard| guard.on == name)
            })
        };
        let acts = entry.roles.iter().any(|role| {
            runbook
                .steps
                .iter()
                .any(|step| step.run.is_some() && step.on.as_deref() == Some(role.name))
        });
        let unused: Vec<&str> = entry
            .roles
            .iter()
            .filter(|role| role.optional && !used(role.name))
            .map(|role| role.name)
            .collect();
        if !acts {
            self.error(
                &["steps"],
                "expected at least one command on a role of the decision",
            );
        }
        if !unused.is_empty() {
            self.error(
                &["steps"],
                format!(
                    "no step is about {}, which {} may give",
                    unused.join(", "),
                    entry.name
                ),
            );
        }
    }
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
