//! The services that can be deployed: those built in, and those in the folders that the configuration names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use include_dir::{Dir, include_dir};

use super::{
    Diagnostic, Diagnostics, Document, ServiceName,
    document::{parse_document, read_text},
    service::ServiceSpec,
    template::suggest,
};
use crate::{condition, logic};

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/services");

/// Files in one service folder: a service is a handful of templates; more is a wrong folder.
const FOLDER_FILES_LIMIT: usize = 200;
const SPEC_FILE: &str = "service.yaml";

/// A service's folder: its description and the files beside it.
#[derive(Clone, Debug)]
pub struct Folder {
    /// For messages, for example `services/mariadb` or a path.
    pub origin: String,
    pub document: Document<ServiceSpec>,
    /// Name → text. `service.yaml` itself is not among them.
    pub files: BTreeMap<String, String>,
}

/// Built-in services, overridden by name by those of `dirs` (the last wins).
///
/// # Errors
/// Everything that is wrong with any of the service files.
pub fn load(dirs: &[PathBuf]) -> Result<BTreeMap<ServiceName, Folder>, Diagnostics> {
    let mut errors = Diagnostics::default();
    let mut folders = BTreeMap::new();
    let built_in = BUILT_IN
        .dirs()
        .map(|dir| (origin(dir), Ok(built_in_files(dir))));
    let user = dirs.iter().flat_map(|dir| user_folders(dir));
    for (origin, files) in built_in.chain(user) {
        match files.and_then(|files| folder(origin, files)) {
            Ok(folder) => {
                folders.insert(folder.document.value.service.clone(), folder);
            }
            Err(more) => errors.extend(more),
        }
    }
    errors.or(folders)
}

fn origin(dir: &Dir<'_>) -> String {
    format!("services/{}", dir.path().display())
}

fn built_in_files(dir: &Dir<'_>) -> BTreeMap<String, String> {
    dir.files()
        .filter_map(|file| {
            let name = file.path().file_name()?.to_str()?.to_owned();
            Some((name, file.contents_utf8()?.to_owned()))
        })
        .collect()
}

type Found = (String, Result<BTreeMap<String, String>, Diagnostics>);

fn user_folders(dir: &Path) -> Vec<Found> {
    let shown = dir.display().to_string();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            let error = Diagnostic::whole_file(&shown, format!("cannot be read: {error}"))
                .expected("a folder of service folders");
            return vec![(shown, Err(error.into()))];
        }
    };
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(SPEC_FILE).is_file())
        .collect();
    folders.sort();
    folders
        .into_iter()
        .map(|path| (path.display().to_string(), user_files(&path)))
        .collect()
}

fn user_files(folder: &Path) -> Result<BTreeMap<String, String>, Diagnostics> {
    let refuse = |error: std::io::Error| {
        Diagnostic::whole_file(
            folder.display().to_string(),
            format!("cannot be read: {error}"),
        )
    };
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !path.is_file() || name.starts_with('.') {
            continue;
        }
        if files.len() == FOLDER_FILES_LIMIT {
            return Err(
                Diagnostic::whole_file(folder.display().to_string(), "too many files")
                    .expected(format!("at most {FOLDER_FILES_LIMIT}"))
                    .into(),
            );
        }
        files.insert(name.to_owned(), read_text(&path)?);
    }
    Ok(files)
}

/// Checks the files of one service folder, called `origin` in messages.
pub(crate) fn folder(
    origin: String,
    mut files: BTreeMap<String, String>,
) -> Result<Folder, Diagnostics> {
    let name = format!("{origin}/{SPEC_FILE}");
    let Some(text) = files.remove(SPEC_FILE) else {
        return Err(Diagnostic::whole_file(name, "the file is missing").into());
    };
    let document = parse_document::<ServiceSpec>(&name, &text)?;
    let mut errors = Diagnostics::default();
    let given = document.value.service.as_str();
    if origin.rsplit('/').next() != Some(given) {
        errors.push(
            document
                .error_at(&["service"], "the service is not called like its folder")
                .expected(format!(
                    "`{}`",
                    origin.rsplit('/').next().unwrap_or_default()
                ))
                .found(format!("`{given}`")),
        );
    }
    for (setting, spec) in &document.value.settings {
        if let Some(default) = &spec.default
            && !spec.accepts(default)
        {
            let path = ["settings", setting, "default"];
            errors.push(
                document
                    .error_at(
                        &path,
                        format!("the default of `{setting}` does not fit its type"),
                    )
                    .expected(spec.wanted())
                    .found(super::document::short(default)),
            );
        }
    }
    conditions(&document, &mut errors);
    errors.or(Folder {
        origin,
        document,
        files,
    })
}

/// Names of conditions are words of our own: an unknown one would refuse for ever at run time.
fn conditions(document: &Document<ServiceSpec>, errors: &mut Diagnostics) {
    let spec = &document.value;
    let named = [
        (vec!["health"], &spec.health),
        (vec!["rollout", "before_stop"], &spec.rollout.before_stop),
    ];
    for (path, name) in named {
        if let Some(name) = name
            && condition::find(name).is_none()
        {
            let known: Vec<&str> = condition::registry().map(|known| known.name()).collect();
            let error = document.error_at(&path, format!("there is no condition `{name}`"));
            errors.push(suggest(error, name, &known, "condition"));
        }
    }
    if let Some(name) = &spec.rollout.logic
        && logic::find(Some(name)).is_none()
    {
        let known: Vec<&str> = logic::registry().map(|known| known.name()).collect();
        let error = document.error_at(&["rollout", "logic"], format!("there is no logic `{name}`"));
        errors.push(suggest(error, name, &known, "logic"));
    }
}
