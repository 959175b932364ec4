//! Texts from outside, made harmless where they enter.

use std::fmt::Write;

/// Longest kept value of a label, in bytes. Real ones are host names, paths and short sentences.
pub(crate) const LABEL_VALUE_LIMIT_BYTES: usize = 1_024;
/// Longest kept annotation, in bytes: a few paragraphs for people.
pub(crate) const ANNOTATION_LIMIT_BYTES: usize = 4_096;
/// Longest accepted name of a label or annotation, in bytes.
pub(crate) const NAME_LIMIT_BYTES: usize = 128;

/// Control, direction-changing and invisible characters become `\u{..}`, so that a text cannot move a cursor, break a line
/// or show something else than it is; longer texts are cut and say so.
pub(crate) fn tame(text: &str, limit_bytes: usize) -> String {
    // Nearly all are.
    if text.len() <= limit_bytes && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len().min(limit_bytes) + 16);
    for c in text.chars() {
        if out.len() >= limit_bytes {
            let _ = write!(out, "… ({} bytes in all)", text.len());
            break;
        }
        if harmful(c) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_harmful_passes() {
        assert_eq!(
            tame("a\u{1b}[31m \u{202e}b\n$(reboot)\u{0}", 1_000),
            "a\\u{1b}[31m \\u{202e}b\\u{a}$(reboot)\\u{0}"
        );
        assert_eq!(tame("grün – ok", 1_000), "grün – ok");
    }

    #[test]
    fn long_texts_are_cut_and_say_so() {
        assert_eq!(tame("abcdef", 3), "abc… (6 bytes in all)");
        assert!(tame(&"\u{0}".repeat(10_000), 100).len() < 150);
    }
}
