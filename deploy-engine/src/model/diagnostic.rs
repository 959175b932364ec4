//! What is wrong with a file, worded for the person who wrote it: where, what was expected, what was found.

use std::{fmt, sync::Arc};

/// One error in one place. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// Characters to mark, at least 1.
    pub width: usize,
    pub message: String,
    pub expected: Option<String>,
    pub found: Option<String>,
    /// What to do about it, for example ``did you mean `port`?``
    pub suggestion: Option<String>,
    /// The whole line of the file, empty when there is none.
    pub source_line: String,
}

impl Diagnostic {
    /// An error about a whole file, or about something that has no line.
    pub fn whole_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: 1,
            column: 1,
            width: 1,
            message: message.into(),
            expected: None,
            found: None,
            suggestion: None,
            source_line: String::new(),
        }
    }

    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub fn suggestion(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Adds `did you mean …?` when one of `known` is close to `word`.
    pub fn did_you_mean<'a>(
        mut self,
        word: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        if let Some(near) = nearest(word, known) {
            self.suggestion = Some(format!("did you mean `{near}`?"));
        }
        self
    }
}

/// A word this similar (Jaro-Winkler, 0 to 1) is taken for a slip of the keyboard: `potr` for `port` passes, `name` does not.
const NEAR_ENOUGH: f64 = 0.8;

/// The word that was probably meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A document's name and lines, to quote from.
#[derive(Clone, Debug)]
pub struct Source(Arc<(String, String)>);

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self(Arc::new((name.into(), text.into())))
    }

    pub fn name(&self) -> &str {
        &self.0.0
    }

    /// A diagnostic at a place of this document.
    pub fn at(
        &self,
        line: usize,
        column: usize,
        width: usize,
        message: impl Into<String>,
    ) -> Diagnostic {
        let source_line = self
            .0
            .1
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default();
        Diagnostic {
            line: line.max(1),
            column: column.max(1),
            width: width.max(1),
            source_line: source_line.to_owned(),
            ..Diagnostic::whole_file(self.name(), message)
        }
    }
}

/// Everything that is wrong, in the order of files and lines. Never empty as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    pub fn extend(&mut self, other: Diagnostics) {
        self.0.extend(other.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value` when nothing is wrong.
    pub fn or<T>(mut self, value: T) -> Result<T, Diagnostics> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0
            .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        self.0.dedup();
        Err(self)
    }

    /// The text for people, in the layout that Rust's compiler made familiar. `colour` only for terminals.
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint(colour);
        let mut text = String::new();
        for diagnostic in &self.0 {
            render_one(diagnostic, &paint, &mut text);
            text.push('\n');
        }
        let count = self.0.len();
        let plural = if count == 1 { "" } else { "s" };
        text.push_str(&paint.bold_red(&format!("{count} error{plural}")));
        text.push('\n');
        text
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

struct Paint(bool);

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn bold_red(&self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn blue(&self, text: &str) -> String {
        self.with("1;34", text)
    }
}

fn render_one(diagnostic: &Diagnostic, paint: &Paint, text: &mut String) {
    let number = diagnostic.line.to_string();
    let gutter = " ".repeat(number.len());
    let bar = paint.blue("|");
    let mut line = |content: String| {
        text.push_str(content.trim_end());
        text.push('\n');
    };
    line(format!(
        "{}: {}",
        paint.bold_red("error"),
        diagnostic.message
    ));
    line(format!(
        "{gutter}{} {}:{}:{}",
        paint.blue("-->"),
        diagnostic.file,
        diagnostic.line,
        diagnostic.column
    ));
    if !diagnostic.source_line.is_empty() {
        let indent = " ".repeat(diagnostic.column - 1);
        let carets = paint.bold_red(&"^".repeat(diagnostic.width));
        line(format!("{gutter} {bar}"));
        line(format!(
            "{} {bar} {}",
            paint.blue(&number),
            diagnostic.source_line
        ));
        line(format!("{gutter} {bar} {indent}{carets}"));
    }
    let notes = [
        ("expected", &diagnostic.expected),
        ("found", &diagnostic.found),
        ("help", &diagnostic.suggestion),
    ];
    for (label, note) in notes {
        if let Some(note) = note {
            line(format!("{gutter} {} {label}: {note}", paint.blue("=")));
        }
    }
}
