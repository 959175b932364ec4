//! Keeps the first and the last half of an output: causes stand at the start, failures at the end.

use std::collections::VecDeque;

/// A byte sink that never holds more than its limit.
#[derive(Debug)]
pub struct HeadTail {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl HeadTail {
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            half: limit_bytes / 2,
            head: Vec::new(),
            tail: VecDeque::new(),
            dropped: 0,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.half - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    pub fn truncated(&self) -> bool {
        self.dropped > 0
    }

    /// The text, with a note where bytes are missing. Bytes that are not UTF-8 are replaced.
    pub fn into_text(self) -> String {
        let tail: Vec<u8> = self.tail.into();
        if self.dropped == 0 {
            let mut all = self.head;
            all.extend(tail);
            return String::from_utf8_lossy(&all).into_owned();
        }
        format!(
            "{}\n[{} bytes left out]\n{}",
            String::from_utf8_lossy(&self.head),
            self.dropped,
            String::from_utf8_lossy(&tail)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_both_ends_within_the_limit() {
        for (limit, pieces, text, truncated) in [
            (8, vec!["abc"], "abc", false),
            (8, vec!["abcd", "efgh"], "abcdefgh", false),
            (
                8,
                vec!["abcde", "fgh", "ij"],
                "abcd\n[2 bytes left out]\nghij",
                true,
            ),
            (4, vec!["0123456789"], "01\n[6 bytes left out]\n89", true),
            (0, vec!["x"], "\n[1 bytes left out]\n", true),
        ] {
            let mut kept = HeadTail::new(limit);
            for piece in pieces {
                kept.push(piece.as_bytes());
            }
            assert_eq!(kept.truncated(), truncated);
            assert_eq!(kept.into_text(), text);
        }
    }
}
