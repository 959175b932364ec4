//! The chain: the hash of every entry covers the entry and the hash before it. Pure.

use std::{fmt, str::FromStr};

use serde::Serialize;
use sha2::{Digest, Sha256};

/// An entry exactly as it is kept: these texts are what is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// From 1, without gaps.
    pub number: i64,
    /// Microseconds since the epoch, UTC.
    pub at: i64,
    pub who: String,
    pub action: String,
    pub target: String,
    /// JSON, as it was written.
    pub body: String,
    /// `None`: written before there was a chain. The first entry with a hash covers all of these as well.
    pub hash: Option<String>,
}

/// Where the log ends: whoever keeps this elsewhere can tell later whether anything up to here was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// 0: there is no entry.
    pub number: i64,
    /// Hexadecimal SHA-256; empty before the first entry.
    pub hash: String,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected NUMBER:HASH as `audit verify` prints it, found {text:?}");
        let (number, hash) = text.split_once(':').ok_or_else(wrong)?;
        let number = number.parse().map_err(|_| wrong())?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        if (number == 0) != hash.is_empty() || (number != 0 && !is_hash) {
            return Err(wrong());
        }
        Ok(Self {
            number,
            hash: hash.to_ascii_lowercase(),
        })
    }
}

/// The hash of an entry after `previous`. The content is one JSON array, so no two entries are the same bytes.
pub fn link(previous: &str, entry: &Kept) -> String {
    let content = serde_json::json!([
        previous,
        entry.number,
        entry.at,
        entry.who,
        entry.action,
        entry.target,
        entry.body
    ]);
    let digest = Sha256::digest(content.to_string().as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first thing that is wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error(
        "expected entry {expected}, found entry {found}: what was between was removed, or a number was changed"
    )]
    Missing { expected: i64, found: i64 },
    #[error(
        "entry {number}: expected the hash {expected}, found {found}: this entry or one before it was changed"
    )]
    Changed {
        number: i64,
        expected: String,
        found: String,
    },
    #[error("entry {number}: expected a hash, as the entry before it has one, found none")]
    Unchained { number: i64 },
    #[error(
        "expected the log to end with {expected}, found its end at {found}: the last entries were removed or changed"
    )]
    Cut { expected: Head, found: Head },
    #[error(
        "entry {number}: expected the hash {expected} that was kept elsewhere, found {found}: the log was rewritten"
    )]
    Rewritten {
        number: i64,
        expected: String,
        found: String,
    },
    #[error(
        "entry {number}: expected event {position} of job {job} in the journal with the digest {expected}, found {found}"
    )]
    Journal {
        number: i64,
        job: String,
        position: i64,
        expected: String,
        found: String,
    },
}

/// Follows the chain, entry by entry from the first.
#[derive(Debug, Default)]
pub struct Checker {
    end: Head,
    chained: bool,
    /// Heads that somebody kept elsewhere.
    known: Vec<Head>,
}

impl Checker {
    pub fn new(known: Vec<Head>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// Where the entries so far end.
    pub fn end(&self) -> &Head {
        &self.end
    }

    /// # Errors
    /// What is wrong with this entry, the first that does not follow.
    pub fn next(&mut self, entry: &Kept) -> Result<(), Broken> {
        let number = entry.number;
        if number != self.end.number + 1 {
            return Err(Broken::Missing {
                expected: self.end.number + 1,
                found: number,
            });
        }
        let expected = link(&self.end.hash, entry);
        match &entry.hash {
            None if self.chained => return Err(Broken::Unchained { number }),
            None => {}
            Some(found) if *found != expected => {
                return Err(Broken::Changed {
                    number,
                    expected,
                    found: found.clone(),
                });
            }
            Some(_) => self.chained = true,
        }
        if let Some(known) = self.known.iter().find(|known| known.number == number)
            && known.hash != expected
        {
            return Err(Broken::Rewritten {
                number,
                expected: known.hash.clone(),
                found: expected,
            });
        }
        self.end = Head {
            number,
            hash: expected,
        };
        Ok(())
    }

    /// After the last entry. `kept` is the head beside the log.
    ///
    /// # Errors
    /// The log ends elsewhere than a head says.
    pub fn finish(self, kept: Option<&Head>) -> Result<Head, Broken> {
        let beyond = self
            .known
            .iter()
            .filter(|known| known.number > self.end.number);
        // A log that was chained once has a head beside it.
        let none = Head::default();
        let beside = kept.or(self.chained.then_some(&none));
        let wrong = beside
            .filter(|head| **head != self.end)
            .or(beyond.max_by_key(|known| known.number));
        match wrong {
            Some(expected) => Err(Broken::Cut {
                expected: expected.clone(),
                found: self.end,
            }),
            None => Ok(self.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: i64, unchained: i64) -> Vec<Kept> {
        let mut previous = String::new();
        let entry = |number| {
            let mut entry = Kept {
                number,
                at: number * 1_000,
                who: "unix:ann".into(),
                action: "deploy".into(),
                target: "control".into(),
                body: format!("{{\"line\":\"deploy {number}\"}}"),
                hash: None,
            };
            previous = link(&previous, &entry);
            entry.hash = (number > unchained).then(|| previous.clone());
            entry
        };
        (1..=count).map(entry).collect()
    }

    fn head_of(entries: &[Kept]) -> Option<Head> {
        let last = entries.last()?;
        Some(Head {
            number: last.number,
            hash: last.hash.clone()?,
        })
    }

    fn checked(entries: &[Kept], head: Option<&Head>, known: &[Head]) -> Result<Head, Broken> {
        let mut checker = Checker::new(known.to_vec());
        entries.iter().try_for_each(|entry| checker.next(entry))?;
        checker.finish(head)
    }

    #[test]
    fn a_whole_log_verifies_also_with_entries_from_before_the_chain() {
        for unchained in [0, 3] {
            let log = entries(6, unchained);
            let head = head_of(&log).unwrap();
            assert_eq!(
                checked(&log, Some(&head), std::slice::from_ref(&head)),
                Ok(head)
            );
        }
        assert_eq!(checked(&[], None, &[]), Ok(Head::default()));
        assert!(checked(&entries(2, 2), None, &[]).is_ok());
    }

    #[test]
    fn every_change_of_every_field_names_its_entry() {
        let log = entries(5, 1);
        let head = head_of(&log).unwrap();
        type Change = fn(&mut Kept);
        let changes: [Change; 6] = [
            |e| e.at += 1,
            |e| e.who = "unix:eve".into(),
            |e| e.action.clear(),
            |e| e.target.push('x'),
            |e| e.body = e.body.replace("deploy", "remove"),
            |e| e.hash = e.hash.as_ref().map(|_| "0".repeat(64)),
        ];
        for change in changes {
            let mut log = log.clone();
            change(&mut log[2]);
            let found = checked(&log, Some(&head), &[]);
            assert!(
                matches!(found, Err(Broken::Changed { number: 3, .. })),
                "{found:?}"
            );
        }
        // An entry from before the chain is covered by the first one that has a hash.
        let mut old = log.clone();
        old[0].who = "unix:eve".into();
        let found = checked(&old, Some(&head), &[]);
        assert!(
            matches!(found, Err(Broken::Changed { number: 2, .. })),
            "{found:?}"
        );
        let mut bare = log.clone();
        bare[3].hash = None;
        assert_eq!(
            checked(&bare, Some(&head), &[]),
            Err(Broken::Unchained { number: 4 })
        );
    }

    #[test]
    fn removed_entries_are_missed_wherever_they_were() {
        let log = entries(5, 0);
        let head = head_of(&log).unwrap();
        let mut middle = log.clone();
        middle.remove(2);
        let missing = Broken::Missing {
            expected: 3,
            found: 4,
        };
        assert_eq!(checked(&middle, Some(&head), &[]), Err(missing));
        let found = checked(&log[..3], Some(&head), &[]);
        assert!(
            matches!(&found, Err(Broken::Cut { expected, found }) if *expected == head && found.number == 3),
            "{found:?}"
        );
        // The head was taken away or set back as well: only a head kept elsewhere tells.
        assert!(matches!(
            checked(&log[..3], None, &[]),
            Err(Broken::Cut { .. })
        ));
        let set_back = head_of(&log[..3]).unwrap();
        assert!(checked(&log[..3], Some(&set_back), &[]).is_ok());
        let known = std::slice::from_ref(&head);
        assert!(matches!(
            checked(&log[..3], Some(&set_back), known),
            Err(Broken::Cut { .. })
        ));
    }

    #[test]
    fn a_rewritten_log_does_not_match_a_head_that_was_kept_elsewhere() {
        let log = entries(4, 0);
        let known = head_of(&log[..2]).unwrap();
        let mut previous = String::new();
        let rewritten: Vec<Kept> = log
            .iter()
            .map(|entry| {
                let mut entry = entry.clone();
                entry.who = "unix:eve".into();
                previous = link(&previous, &entry);
                entry.hash = Some(previous.clone());
                entry
            })
            .collect();
        let head = head_of(&rewritten).unwrap();
        assert!(checked(&rewritten, Some(&head), &[]).is_ok());
        let found = checked(&rewritten, Some(&head), &[known]);
        assert!(
            matches!(found, Err(Broken::Rewritten { number: 2, .. })),
            "{found:?}"
        );
    }

    #[test]
    fn heads_are_read_as_they_are_printed() {
        let head = head_of(&entries(2, 0)).unwrap();
        assert_eq!(head.to_string().parse(), Ok(head));
        assert_eq!("0:".parse(), Ok(Head::default()));
        for wrong in ["", "3", "3:", "0:ab", "x:00", "3:zz"] {
            assert!(wrong.parse::<Head>().is_err(), "{wrong}");
        }
    }
}
