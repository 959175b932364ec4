//! Messages as Matrix HTML, plain text and console text. Pure. Everything that came from outside is escaped here.

use comfy_table::{Cell as TextCell, Color, ContentArrangement, Table as TextTable, presets};
use owo_colors::{OwoColorize, Style};

use super::{Block, Message, Severity, Table, Tone};

/// Cells of a progress bar in texts.
const BAR_CELLS: u32 = 20;
/// The longest text of one message, in bytes: an edit carries text and HTML twice, encryption makes a third more of it, and a
/// Matrix event may have 65,536.
pub const TEXT_LIMIT_BYTES: usize = 8_000;
/// Width of tables where nobody knows the width of the reader's window.
const PLAIN_WIDTH: u16 = 100;

/// Plain text, as fallback in chats and for scripts. No colours; signs instead.
pub fn plain(message: &Message) -> String {
    let mut lines = vec![title(message)];
    lines.extend(
        message
            .blocks
            .iter()
            .map(|block| plain_block(block, PLAIN_WIDTH)),
    );
    clipped(lines.join("\n"), TEXT_LIMIT_BYTES)
}

/// One block as plain text.
pub fn plain_block(block: &Block, width: u16) -> String {
    clean(&match block {
        Block::Line { text, tone } => signed(text, *tone),
        Block::Table { table } => text_table(table, width, false),
        Block::Progress { progress } => {
            format!("{} {}", bar(progress.done, progress.total), progress.label)
        }
        Block::Code { text } => text.clone(),
        Block::Hint { text } => format!("→ {text}"),
    })
}

fn title(message: &Message) -> String {
    clean(&format!("{} {}", message.severity.emoji(), message.title))
}

/// For a terminal, with colours, `width` columns wide.
pub fn ansi(message: &Message, width: u16) -> String {
    let mut lines = vec![
        title(message)
            .style(severity_style(message.severity).bold())
            .to_string(),
    ];
    lines.extend(message.blocks.iter().map(|block| ansi_block(block, width)));
    lines.join("\n")
}

/// One block with colours.
pub fn ansi_block(block: &Block, width: u16) -> String {
    match block {
        Block::Line { text, tone } => clean(text).style(tone_style(*tone)).to_string(),
        Block::Table { table } => text_table(table, width, true),
        Block::Progress { progress } => {
            let bar = bar(progress.done, progress.total);
            format!(
                "{} {}",
                bar.style(Style::new().cyan()),
                clean(&progress.label)
            )
        }
        Block::Code { text } => text
            .lines()
            .map(ansi_diff_line)
            .collect::<Vec<_>>()
            .join("\n"),
        Block::Hint { text } => format!("{} {}", "→".cyan(), clean(text).cyan()),
    }
}

fn ansi_diff_line(line: &str) -> String {
    let style = match line.trim_start().as_bytes().first() {
        Some(b'+') => Style::new().green(),
        Some(b'-') => Style::new().red(),
        _ => Style::new().dimmed(),
    };
    format!("  {}", clean(line).style(style))
}

/// HTML as Matrix clients show it.
pub fn html(message: &Message) -> String {
    let title = format!(
        "<strong>{} {}</strong>",
        message.severity.emoji(),
        escaped(&message.title)
    );
    let mut html = clipped_blocks(title, &message.blocks);
    // Between a line and what follows, browsers need a break; block elements bring their own.
    while html.ends_with("<br>") {
        html.truncate(html.len() - "<br>".len());
    }
    html
}

/// Whole blocks only: half a table would be broken HTML.
fn clipped_blocks(title: String, blocks: &[Block]) -> String {
    let mut html = title + "<br>";
    for (index, block) in blocks.iter().enumerate() {
        let next = html_block(block);
        if html.len() + next.len() > TEXT_LIMIT_BYTES {
            html.push_str(&format!(
                "<em>… {} more parts; ask me for details</em>",
                blocks.len() - index
            ));
            break;
        }
        html.push_str(&next);
    }
    html
}

fn html_block(block: &Block) -> String {
    match block {
        Block::Line { text, tone } => format!("{}<br>", html_toned(text, *tone)),
        Block::Table { table } => html_table(table),
        Block::Progress { progress } => {
            let bar = bar(progress.done, progress.total);
            format!("<code>{bar}</code> {}<br>", escaped(&progress.label))
        }
        Block::Code { text } => {
            let text = clipped(text.clone(), TEXT_LIMIT_BYTES / 2);
            format!("<pre><code>{}</code></pre>", escaped(&text))
        }
        Block::Hint { text } => format!("→ <em>{}</em><br>", escaped(text)),
    }
}

fn html_table(table: &Table) -> String {
    let header: String = table
        .header
        .iter()
        .map(|title| format!("<th>{}</th>", escaped(title)))
        .collect();
    let rows: String = table
        .rows
        .iter()
        .map(|row| {
            let cells: String = row
                .iter()
                .map(|cell| format!("<td>{}</td>", html_toned(&cell.text, cell.tone)))
                .collect();
            format!("<tr>{cells}</tr>")
        })
        .collect();
    format!("<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>")
}

fn html_toned(text: &str, tone: Tone) -> String {
    let sign = tone
        .sign()
        .map(|sign| format!("{sign} "))
        .unwrap_or_default();
    let text = escaped(text);
    match tone {
        Tone::Dim => format!("<font data-mx-color=\"#888888\">{text}</font>"),
        _ => format!("{sign}{text}"),
    }
}

fn signed(text: &str, tone: Tone) -> String {
    let text = clean(text);
    tone.sign()
        .map(|sign| format!("{sign} {text}"))
        .unwrap_or(text)
}

/// `coloured`: colours instead of signs.
fn text_table(table: &Table, width: u16, coloured: bool) -> String {
    let cell = |text: &str, tone: Tone| match (coloured, tone) {
        (false, tone) => TextCell::new(signed(text, tone)),
        (true, Tone::Plain) => TextCell::new(clean(text)),
        (true, Tone::Good) => TextCell::new(clean(text)).fg(Color::Green),
        (true, Tone::Warn) => TextCell::new(clean(text)).fg(Color::Yellow),
        (true, Tone::Bad) => TextCell::new(clean(text)).fg(Color::Red),
        (true, Tone::Dim) => TextCell::new(clean(text)).fg(Color::DarkGrey),
    };
    let mut text = TextTable::new();
    text.load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(table.header.iter().map(|title| cell(title, Tone::Dim)));
    if coloured {
        text.enforce_styling();
    }
    for row in &table.rows {
        text.add_row(row.iter().map(|value| cell(&value.text, value.tone)));
    }
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// For example `█████░░░░░ 5/10`.
pub fn bar(done: u32, total: u32) -> String {
    let done = done.min(total);
    let full = (done * BAR_CELLS).checked_div(total).unwrap_or(BAR_CELLS);
    let (full, empty) = (full as usize, (BAR_CELLS - full) as usize);
    format!("{}{} {done}/{total}", "█".repeat(full), "░".repeat(empty))
}

/// Control characters (an escape sequence in a log line, say) never reach a terminal, nor do characters that turn the direction
/// of writing, so that a text would read as another one (<https://www.unicode.org/reports/tr9/#Explicit_Directional_Embeddings>).
pub fn clean(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() || turns(c) => '�',
            c => c,
        })
        .collect()
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\n' => html.push('\n'),
            c => html.push(c),
        }
    }
    html
}

fn clipped(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let cut = (0..=limit)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        let left = text.len() - cut;
        text.truncate(cut);
        text.push_str(&format!("\n… {left} more bytes"));
    }
    text
}

fn tone_style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().green(),
        Tone::Warn => Style::new().yellow(),
        Tone::Bad => Style::new().red(),
        Tone::Dim => Style::new().dimmed(),
    }
}

fn severity_style(severity: Severity) -> Style {
    match severity {
        Severity::Info => Style::new(),
        Severity::Good => Style::new().green(),
        Severity::Working => Style::new().cyan(),
        Severity::Refused | Severity::Attention => Style::new().yellow(),
        Severity::Bad => Style::new().red(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wording::Cell;

    fn sample() -> Message {
        let mut table = Table::new(&["service", "health"]);
        table.row(["mariadb".into(), Cell::new("healthy", Tone::Good)]);
        table.row(["rabbit<b>".into(), Cell::new("unknown", Tone::Dim)]);
        Message::new(Severity::Working, "Deploy <site>")
            .line("3 hosts\u{1b}[31m & more")
            .table(table)
            .progress(5, 10, "install on ctl1")
            .code("+ a\n- b")
            .hint("cancel 12ab")
    }

    #[test]
    fn one_message_in_all_clothes() {
        insta::assert_snapshot!(plain(&sample()));
        insta::assert_snapshot!(html(&sample()));
    }

    #[test]
    fn long_texts_keep_whole_tags_and_characters() {
        let long = Message::new(Severity::Info, "t")
            .code("ä".repeat(40_000))
            .code("b".repeat(40_000))
            .line("end");
        let html = html(&long);
        assert!(html.len() <= TEXT_LIMIT_BYTES + 200, "{}", html.len());
        assert_eq!(
            html.matches("<pre>").count(),
            html.matches("</pre>").count()
        );
        assert!(plain(&long).len() <= TEXT_LIMIT_BYTES + 40);
    }

    #[test]
    fn no_escape_sequence_reaches_a_terminal_from_outside() {
        let hostile = "\u{1b}]0;owned\u{7}";
        let message = Message::new(Severity::Bad, hostile)
            .line(hostile)
            .code(hostile)
            .hint(hostile);
        for shown in [plain(&message), html(&message), ansi(&message, 80)] {
            assert!(!shown.contains("\u{1b}]0"), "{shown:?}");
        }
    }

    #[test]
    fn no_text_from_outside_turns_the_direction_of_writing() {
        let message = Message::new(Severity::Bad, "reb\u{202e}toor").line("\u{2066}x");
        for shown in [plain(&message), html(&message), ansi(&message, 80)] {
            assert!(!shown.contains(['\u{202e}', '\u{2066}']), "{shown}");
        }
    }
}
