//! Templates of a service folder: strict (an undefined value is an error), rendered by the bot, errors with line and column.

use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, Value, syntax::SyntaxConfig, value::ValueKind,
};

use sha2::{Digest, Sha256};

use super::{
    Diagnostic, Diagnostics,
    catalogue::Folder,
    diagnostic::{Source, nearest},
};

/// The templates of one service.
pub struct Templates<'f> {
    folder: &'f Folder,
    plain: Environment<'f>,
    alerts: Environment<'f>,
}

/// Which template marks a file uses.
#[derive(Clone, Copy)]
pub enum Marks {
    /// `{{ … }}`, `{% … %}`
    Plain,
    /// `[[ … ]]`, `[% … %]`: alert rules have Prometheus' own `{{ … }}` in them.
    Alerts,
}

impl<'f> Templates<'f> {
    pub fn new(folder: &'f Folder) -> Result<Self, Diagnostics> {
        let mut errors = Diagnostics::default();
        let plain = environment(SyntaxConfig::builder());
        let mut builder = SyntaxConfig::builder();
        builder
            .variable_delimiters("[[", "]]")
            .block_delimiters("[%", "%]")
            .comment_delimiters("[#", "#]");
        let (plain, alerts) = match (plain, environment(builder)) {
            (Ok(plain), Ok(alerts)) => (plain, alerts),
            (Err(error), _) | (_, Err(error)) => {
                let what = format!("the template language cannot be set up: {error}");
                return Err(Diagnostic::whole_file(&folder.origin, what).into());
            }
        };
        let mut templates = Self {
            folder,
            plain,
            alerts,
        };
        for (name, text) in &folder.files {
            if name.ends_with(".j2")
                && let Err(error) = templates.plain.add_template(name, text)
            {
                errors.push(templates.file_error(name, &error));
            }
        }
        errors.or(templates)
    }

    /// The text of a file of the folder, as it is.
    pub fn raw(&self, name: &str, at: Diagnostic) -> Result<&'f str, Diagnostics> {
        self.folder
            .files
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| {
                let known: Vec<&str> = self.folder.files.keys().map(String::as_str).collect();
                let expected = format!("one of the folder's files: {}", known.join(", "));
                Diagnostic {
                    message: format!("there is no file `{name}` beside service.yaml"),
                    ..at
                }
                .expected(expected)
                .did_you_mean(name, known)
                .into()
            })
    }

    /// Renders a file of the folder; `at` is where it was asked for.
    pub fn file(
        &self,
        name: &str,
        marks: Marks,
        context: &Value,
        at: Diagnostic,
    ) -> Result<String, Diagnostics> {
        let text = self.raw(name, at)?;
        let environment = match marks {
            Marks::Plain => &self.plain,
            Marks::Alerts => &self.alerts,
        };
        environment
            .render_named_str(name, text, context.clone())
            .map_err(|error| self.file_error(name, &error).into())
    }

    /// Renders a text of `service.yaml` itself; `at` is its place.
    pub fn inline(
        &self,
        text: &str,
        context: &Value,
        at: impl FnOnce() -> Diagnostic,
    ) -> Result<String, Diagnostics> {
        if !text.contains("{{") && !text.contains("{%") && !text.contains("{#") {
            return Ok(text.to_owned());
        }
        self.plain
            .render_named_str("service.yaml", text, context.clone())
            .map_err(|error| match error.name() {
                // An included file is to blame.
                Some(name) if name != "service.yaml" => self.file_error(name, &error).into(),
                _ => {
                    let at = at();
                    Diagnostic {
                        message: format!("this template {}", words(&error)),
                        ..at
                    }
                    .found(blamed(&error).unwrap_or_else(|| format!("`{text}`")))
                    .into()
                }
            })
    }

    fn file_error(&self, name: &str, error: &Error) -> Diagnostic {
        let file = format!("{}/{name}", self.folder.origin);
        let text = self.folder.files.get(name).map_or("", String::as_str);
        let (line, column, width) = place(error, text);
        let diagnostic = Source::new(file, text).at(
            line,
            column,
            width,
            format!("this template {}", words(error)),
        );
        match blamed(error) {
            Some(found) => diagnostic.found(found),
            None => diagnostic,
        }
    }
}

fn environment<'f>(
    mut syntax: minijinja::syntax::SyntaxConfigBuilder,
) -> Result<Environment<'f>, Error> {
    let syntax = syntax
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("uuid", |text: String| named_uuid(&text));
    // Configurations say `true`, not `True`.
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Bool => out
            .write_str(if value.is_true() { "true" } else { "false" })
            .map_err(Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    });
    Ok(environment)
}

/// Always the same for a text, and another one for any other (RFC 9562, version 8, from SHA-256): what must be unique on a site
/// and must not change between two deploys.
fn named_uuid(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes)
        .into_uuid()
        .to_string()
}

fn words(error: &Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}"));
    let detail = detail.unwrap_or_default();
    match error.kind() {
        ErrorKind::UndefinedError => format!("uses a value that is not defined{detail}"),
        ErrorKind::SyntaxError => format!("cannot be parsed{detail}"),
        ErrorKind::UnknownFilter => format!("uses an unknown filter{detail}"),
        ErrorKind::TemplateNotFound => format!("includes a file that is not there{detail}"),
        other => format!("cannot be rendered: {other}{detail}"),
    }
}

/// The piece of the template that failed.
fn blamed(error: &Error) -> Option<String> {
    let piece = error.template_source()?.get(error.range()?)?;
    Some(format!("`{}`", piece.trim()))
}

fn place(error: &Error, text: &str) -> (usize, usize, usize) {
    let line = error.line().unwrap_or(1);
    let Some(range) = error.range() else {
        return (line, 1, 1);
    };
    let Some(before) = text.get(..range.start) else {
        return (line, 1, 1);
    };
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let piece = text.get(range).unwrap_or_default();
    let first_line = piece.lines().next().unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    (
        line,
        before[start..].chars().count() + 1,
        first_line.chars().count().max(1),
    )
}

/// Adds what was probably meant by an unknown word.
pub fn suggest(diagnostic: Diagnostic, word: &str, known: &[&str], what: &str) -> Diagnostic {
    let diagnostic = if known.is_empty() {
        diagnostic.expected(format!("no {what}: there is none"))
    } else {
        diagnostic.expected(format!("one of {}", known.join(", ")))
    };
    match nearest(word, known.iter().copied()) {
        Some(near) => diagnostic.suggestion(format!("did you mean `{near}`?")),
        None => diagnostic,
    }
}
