//! Unified diffs of texts, line by line. One algorithm only: the general entry of the library carries all of them.

use similar::{
    DiffOp,
    algorithms::{Capture, Replace, myers},
    udiff::UnifiedHunkHeader,
};

/// Equal lines shown around a change.
const CONTEXT_LINES: usize = 3;

/// Empty if the texts are the same.
pub fn unified(old: &str, new: &str) -> Vec<String> {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let mut hook = Replace::new(Capture::new());
    // A hook that only collects has no error.
    let Ok(()) = myers::diff(&mut hook, &old[..], 0..old.len(), &new[..], 0..new.len());
    let mut shown = Vec::new();
    for group in hook.into_inner().into_grouped_ops(CONTEXT_LINES) {
        shown.push(UnifiedHunkHeader::new(&group).to_string());
        for op in &group {
            show(op, &old, &new, &mut shown);
        }
    }
    shown
}

fn show(op: &DiffOp, old: &[&str], new: &[&str], shown: &mut Vec<String>) {
    let mut push = |sign: char, lines: &[&str]| {
        for line in lines {
            shown.push(format!("{sign}{}", line.trim_end_matches('\n')));
            if !line.ends_with('\n') {
                shown.push("\\ No newline at end of file".to_owned());
            }
        }
    };
    if let DiffOp::Equal { .. } = op {
        push(' ', &old[op.old_range()]);
    } else {
        push('-', &old[op.old_range()]);
        push('+', &new[op.new_range()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_patch_would_read() {
        for (old, new, expected) in [
            ("a\n", "a\n", vec![]),
            ("", "a\nb\n", vec!["@@ -0,0 +1,2 @@", "+a", "+b"]),
            (
                "a\nb\n",
                "a\nc\n",
                vec!["@@ -1,2 +1,2 @@", " a", "-b", "+c"],
            ),
            (
                "a",
                "a\n",
                vec!["@@ -1 +1 @@", "-a", "\\ No newline at end of file", "+a"],
            ),
            (
                "1\n2\n3\n4\n5\n6\n7\n8\n9\n",
                "1\n2\n3\n4\n6\n7\n8\n9\n",
                vec!["@@ -2,7 +2,6 @@", " 2", " 3", " 4", "-5", " 6", " 7", " 8"],
            ),
        ] {
            assert_eq!(unified(old, new), expected, "{old:?} {new:?}");
        }
    }
}
