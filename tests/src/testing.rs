//! How a test uses the lab.
//!
//! ```no_run
//! #[test]
//! fn a_host_answers() {
//!     lab::in_lab("answers", 1, |lab| {
//!         assert_eq!(lab.ssh_ok("ctl1", &["hostname"]).unwrap(), "ctl1\n");
//!     });
//! }
//! ```
//!
//! The closure runs on a thread inside the lab's network namespace. Whatever it starts is inside too:
//! threads, programs, and all threads of an async runtime that is *built in the closure*
//! (`tokio::runtime::Runtime::new().unwrap().block_on(async { … })`). A runtime built before, such
//! as that of `#[tokio::test]`, stays outside and cannot reach the hosts.

use crate::lab::{Lab, LabOptions};
use crate::names::LabName;
use crate::progress::Progress;

/// A lab that is taken down when dropped, also by a failing test.
#[derive(Debug)]
pub struct TestLab(Lab);

impl TestLab {
    /// A fresh lab for the test `name` (what an earlier, killed run left is removed first). The lab's name
    /// is that of the environment's lab (`NIGHTSHIFT_LAB`, default `lab`) and the test's together, so that
    /// two people can run the same tests on one machine at the same time.
    ///
    /// # Panics
    /// If the lab cannot come up, with everything that is missing: a test that needs the lab fails without it.
    pub fn up(name: &str, hosts: u8, layer: Option<&str>) -> TestLab {
        let result = test_name(name).and_then(|name| {
            Lab::named(name.clone()).down()?;
            let layer = layer.map(str::to_owned);
            let options = LabOptions { name, hosts, layer };
            Lab::up(&options, &Progress::quiet()).map(TestLab)
        });
        result.unwrap_or_else(|error| panic!("the lab `{name}`: {}", chain(&error)))
    }
}

impl std::ops::Deref for TestLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if let Err(error) = self.0.down() {
            let message = format!(
                "the lab `{}` did not go down: {}",
                self.0.name(),
                chain(&error)
            );
            // A second panic while the test's own goes on would hide the first.
            if std::thread::panicking() {
                eprintln!("{message}");
            } else {
                panic!("{message}");
            }
        }
    }
}

/// Runs `test` inside a fresh lab with so many hosts and takes the lab down afterwards.
///
/// # Panics
/// With the test's own panic, or if the lab cannot come up or go down.
pub fn in_lab(name: &str, hosts: u8, test: impl FnOnce(&Lab) + Send) {
    in_layered_lab(name, hosts, None, test);
}

/// As [`in_lab`], with a saved layer below the hosts.
pub fn in_layered_lab(name: &str, hosts: u8, layer: Option<&str>, test: impl FnOnce(&Lab) + Send) {
    let lab = TestLab::up(name, hosts, layer);
    let entered = lab.inside(|| test(&lab));
    if let Err(error) = entered {
        panic!("the lab `{name}`: {}", chain(&error));
    }
}

/// The lab name for a test, see [`TestLab::up`].
pub fn test_name(name: &str) -> crate::Result<LabName> {
    let prefix = std::env::var("NIGHTSHIFT_LAB").unwrap_or_else(|_| "lab".to_owned());
    format!("{prefix}{name}").parse()
}

/// An error with its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}
