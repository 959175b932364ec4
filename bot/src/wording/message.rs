//! A message as a value: what is said, not how it looks.

use serde::{Deserialize, Serialize};

/// How much a message matters. The order is the order in which a chat server gets them when it is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    /// Ended well.
    Good,
    /// Under way.
    Working,
    /// Said no, and why.
    Refused,
    /// Waits for a person.
    Attention,
    Bad,
}

impl Severity {
    pub fn emoji(self) -> &'static str {
        match self {
            Self::Info => "ℹ️",
            Self::Good => "✅",
            Self::Working => "🔧",
            Self::Refused => "✋",
            Self::Attention => "🔔",
            Self::Bad => "🔴",
        }
    }
}

/// Colour of one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    /// Unknown, or of less weight.
    Dim,
}

impl Tone {
    /// A sign for those who cannot see colours, and for plain text.
    pub fn sign(self) -> Option<&'static str> {
        match self {
            Self::Plain | Self::Dim => None,
            Self::Good => Some("🟢"),
            Self::Warn => Some("🟡"),
            Self::Bad => Some("🔴"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub text: String,
    #[serde(default)]
    pub tone: Tone,
}

impl Cell {
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|title| (*title).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub done: u32,
    pub total: u32,
    /// What is being done now.
    pub label: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "block", rename_all = "snake_case")]
pub enum Block {
    /// One sentence.
    Line {
        text: String,
        #[serde(default)]
        tone: Tone,
    },
    Table {
        table: Table,
    },
    Progress {
        progress: Progress,
    },
    /// Verbatim: a diff, the last lines of a program.
    Code {
        text: String,
    },
    /// What the reader can do now.
    Hint {
        text: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub severity: Severity,
    pub title: String,
    #[serde(default)]
    pub blocks: Vec<Block>,
}

impl Message {
    pub fn new(severity: Severity, title: impl Into<String>) -> Self {
        Self {
            severity,
            title: title.into(),
            blocks: Vec::new(),
        }
    }

    #[must_use]
    pub fn line(self, text: impl Into<String>) -> Self {
        self.toned(text, Tone::Plain)
    }

    #[must_use]
    pub fn toned(mut self, text: impl Into<String>, tone: Tone) -> Self {
        self.blocks.push(Block::Line {
            text: text.into(),
            tone,
        });
        self
    }

    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.blocks.push(Block::Table { table });
        self
    }

    #[must_use]
    pub fn progress(mut self, done: u32, total: u32, label: impl Into<String>) -> Self {
        self.blocks.push(Block::Progress {
            progress: Progress {
                done,
                total,
                label: label.into(),
            },
        });
        self
    }

    #[must_use]
    pub fn code(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(Block::Code { text: text.into() });
        self
    }

    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(Block::Hint { text: text.into() });
        self
    }
}
