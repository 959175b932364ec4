//! `check` and `schema`: what files must say, and whether they do.

use std::path::Path;

use deploy_engine::model::{self, Diagnostic, Diagnostics, Model, site::SiteFile};
use runbooks::library::Library;
use serde_json::{Value, json};

use super::{Outcome, wrong};
use crate::{
    config::{self, Config, Examined},
    heal,
};

pub fn schema(of: &str) -> Outcome {
    let schema = match of {
        "site" => model::schema::<SiteFile>(),
        "service" => model::schema::<model::service::ServiceSpec>(),
        "runbook" => model::schema::<runbooks::format::Runbook>(),
        "alerts" => model::schema::<runbooks::alerts::AlertFile>(),
        "signatures" => model::schema::<runbooks::signatures::SignatureFile>(),
        "config" => model::schema::<Config>(),
        other => return wrong(format!("there is no format {other}")),
    };
    println!("{schema:#}");
    Outcome::Ok
}

/// All errors of all files at once.
pub fn check(path: &Path, json: bool) -> Outcome {
    let Examined {
        loaded,
        doubtful,
        mut errors,
    } = config::examine(path);
    let config = loaded.map(|loaded| loaded.config);
    let clear = |keys: &[&str]| keys.iter().all(|key| !doubtful.contains(*key));
    let sited = config.as_ref().filter(|_| clear(&["site", "service_dirs"]));
    let model = sited.and_then(|config| {
        let model = Model::load(&config.site, &config.service_dirs);
        model.map_err(|more| errors.extend(more)).ok()
    });
    let automated = clear(&["runbook_dirs", "automation"]);
    if let Some(config) = config.as_ref().filter(|_| automated) {
        let library = check_runbooks(path, config, &mut errors);
        let named = model.as_ref().filter(|_| clear(&["access", "people"]));
        if let (Some(library), Some(model)) = (&library, named) {
            let file = path.display().to_string();
            let wrong = config::check_access(config, model, library);
            let wrong = wrong
                .into_iter()
                .map(|why| Diagnostic::whole_file(&file, why));
            errors.0.extend(wrong);
        }
    }
    if let (Some(config), Some(model)) = (config.as_ref().filter(|_| automated), &model) {
        let file = path.display().to_string();
        let services = model.services.keys().map(|name| name.as_str()).collect();
        let wrong = config::check_bot_needs(config, &services).into_iter();
        let wrong = wrong.map(|why| Diagnostic::whole_file(&file, why));
        errors.0.extend(wrong);
    }
    if let Some(config) = config.as_ref().filter(|_| clear(&["signature_dirs"])) {
        let signatures = runbooks::signatures::load(&config.signature_dirs);
        signatures.map_or_else(|more| errors.extend(more), drop);
    }
    let sources = config.as_ref().filter(|_| clear(&["sources"]));
    if let (Some(config), Some(model)) = (sources, &model) {
        let file = path.display().to_string();
        let wrong = config::check_site_tokens(config, &model.secret_names());
        let wrong = wrong
            .into_iter()
            .map(|why| Diagnostic::whole_file(&file, why));
        errors.0.extend(wrong);
    }
    let errors = errors.or(()).err().unwrap_or_default();
    if json {
        println!("{:#}", report(&errors, model.as_ref()));
    } else if errors.0.is_empty() {
        println!("{}", fine(path, model.as_ref()));
    } else {
        eprintln!("{errors}");
    }
    if errors.0.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Wrong
    }
}

/// Runbooks, and what the configuration says of them.
fn check_runbooks(path: &Path, config: &Config, errors: &mut Diagnostics) -> Option<Library> {
    match Library::load(&config.runbook_dirs) {
        Err(more) => {
            errors.extend(more);
            None
        }
        Ok(library) => {
            let file = path.display().to_string();
            let wrong = heal::heal_settings(&config.automation).check(&library);
            let wrong = wrong
                .into_iter()
                .map(|why| Diagnostic::whole_file(&file, format!("automation: {why}")));
            errors.0.extend(wrong);
            Some(library)
        }
    }
}

fn fine(path: &Path, model: Option<&Model>) -> String {
    let (hosts, services) = model.map_or((0, 0), |model| {
        (model.site.hosts.len(), model.services.len())
    });
    format!(
        "{} is right: {hosts} hosts, {services} services",
        path.display()
    )
}

fn report(errors: &Diagnostics, model: Option<&Model>) -> Value {
    let errors: Vec<Value> = errors
        .0
        .iter()
        .map(|error| {
            json!({
                "file": error.file, "line": error.line, "column": error.column, "message": error.message,
                "expected": error.expected, "found": error.found, "suggestion": error.suggestion,
            })
        })
        .collect();
    json!({
        "ok": errors.is_empty(),
        "errors": errors,
        "site": model.map(|model| model.site.name.clone()),
    })
}
