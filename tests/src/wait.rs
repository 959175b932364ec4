//! Waiting for a condition instead of sleeping and hoping.

use std::time::{Duration, Instant};

use crate::error::{LabError, Result};

/// Pause between two looks: short beside every lab operation, long enough to leave the processor alone.
const POLL: Duration = Duration::from_millis(25);

/// Calls `look` until it gives `Ok`, at most for `limit`. `look` says in `Err` what it saw instead;
/// the last such sentence is part of the error.
///
/// # Errors
/// [`LabError::Timeout`] with `what`, the time waited and the last state seen.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= limit => {
                return Err(LabError::Timeout {
                    what: what.to_owned(),
                    waited: start.elapsed(),
                    last,
                });
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_once_it_is_there() {
        let mut looks = 0;
        let got = until("three looks", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err(format!("look {looks}"))
            }
        });
        assert_eq!(got.unwrap(), 3);
    }

    #[test]
    fn says_what_it_waited_for_and_the_last_state() {
        let error = until::<()>("the moon", Duration::from_millis(1), || {
            Err("clouds".to_owned())
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("the moon"), "{error}");
        assert!(error.ends_with("last seen: clouds"), "{error}");
    }
}
