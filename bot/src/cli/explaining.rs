//! `explain`: what would become of alerts and rules, from files alone. Nothing and nobody is asked.

use std::path::Path;

use deploy_engine::model::Model;
use runbooks::{
    explain::{FileRead, Report, Seen, explain, files},
    library::Library,
    topology::Topology,
};
use serde_json::json;

use super::{Outcome, args::CONFIG, asking::view, wrong};
use crate::{config, wording::explained};

/// `what`: files, folders, or a name with `label=value`s.
pub fn run(config: &Path, what: &[String], json: bool) -> Outcome {
    let (library, site) = match ground(config) {
        Ok(ground) => ground,
        Err(errors) => return wrong(errors),
    };
    let read = read(what);
    let report = explain(&library, site.as_ref(), &read.seen);
    match json {
        true => println!("{:#}", as_json(&report, &read)),
        false => {
            let mut message = explained(&report, site.as_ref().map(|site| site.site.as_str()));
            if read.passed_over > 0 {
                let passed = read.passed_over;
                message = message.line(format!("{passed} files of other kinds were passed over"));
            }
            view().show("answer", &message);
            for error in &read.errors {
                eprintln!("{}: {}", error.file, error.why);
            }
        }
    }
    (read.errors.is_empty() && !read.seen.is_empty()).into()
}

/// With the site's own tables and hosts where there is a configuration; else what comes with the program.
fn ground(path: &Path) -> Result<(Library, Option<Topology>), String> {
    if path == Path::new(CONFIG) && !path.exists() {
        let library = Library::embedded().map_err(|errors| errors.to_string())?;
        return Ok((library, None));
    }
    let config = config::read(path).map_err(|errors| errors.to_string())?;
    let library = Library::load(&config.runbook_dirs).map_err(|errors| errors.to_string())?;
    let model = Model::load(&config.site, &config.service_dirs);
    let model = model.map_err(|errors| errors.to_string())?;
    Ok((library, Some(Topology::from(&model))))
}

fn read(what: &[String]) -> FileRead {
    let first = what.first().map(String::as_str).unwrap_or_default();
    let is_path = |word: &str| word.contains('/') || word.contains('.') || Path::new(word).exists();
    if !is_path(first) {
        return FileRead {
            seen: vec![Seen::said(what)],
            ..FileRead::default()
        };
    }
    let mut all = FileRead::default();
    for path in what {
        let read = files(Path::new(path));
        all.seen.extend(read.seen);
        all.errors.extend(read.errors);
        all.files += read.files;
        all.passed_over += read.passed_over;
    }
    all
}

fn as_json(report: &Report, read: &FileRead) -> serde_json::Value {
    json!({
        "counts": report.counts,
        "by_instance": report.by_instance,
        "alerts": report.lines,
        "files": read.files,
        "passed_over": read.passed_over,
        "errors": read.errors,
    })
}
