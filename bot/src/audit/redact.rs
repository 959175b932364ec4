//! Known secrets are taken out of whatever leaves the bot: the second line behind types that do not show them.
//!
//! Secrets are references or values that cannot be printed, everywhere. What comes from outside may repeat one all the same: a
//! person who pastes a password into a command, an alert that quotes a connection string.

use std::{borrow::Cow, sync::Arc};

use aho_corasick::{AhoCorasick, MatchKind};
use deploy_engine::transport::{Scrubber, Secrets};
use serde::{Serialize, de::DeserializeOwned};

use crate::config::Secret;

/// Puts references in place of secrets. Cheap to clone. One pass over a text, however many secrets there are: webhooks go through it.
#[derive(Clone, Default)]
pub struct Redactor(Option<Arc<Finder>>);

struct Finder {
    values: AhoCorasick,
    references: Vec<String>,
}

/// The site's secrets and those of the configuration.
struct All<'a> {
    site: &'a dyn Secrets,
    own: &'a [(String, Secret)],
}

impl Secrets for All<'_> {
    fn reveal(&self, _: &str) -> Option<Arc<str>> {
        None
    }

    fn all_values(&self) -> Vec<(String, Arc<str>)> {
        let own = self.own.iter();
        let own = own.map(|(name, secret)| (name.clone(), Arc::from(secret.reveal())));
        self.site.all_values().into_iter().chain(own).collect()
    }
}

impl Redactor {
    /// `own`: name → secret of the configuration.
    ///
    /// # Errors
    /// Too many or too long secrets to look for at once.
    pub fn new(site: &dyn Secrets, own: &[(String, Secret)]) -> Result<Self, String> {
        let scrubber = Scrubber::new(&All { site, own });
        let (values, references): (Vec<_>, Vec<_>) = scrubber.values().iter().cloned().unzip();
        let values = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(values)
            // The error names lengths, no values.
            .map_err(|error| format!("secrets cannot be looked for: {error}"))?;
        Ok(Self(Some(Arc::new(Finder { values, references }))))
    }

    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match &self.0 {
            Some(finder) if finder.values.is_match(text) => {
                Cow::Owned(finder.values.replace_all(text, &finder.references))
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// The same for all texts of a value; one that holds no secret is left as it is. `withheld` stands for a value that cannot
    /// be read any more without its secret, for example because one was a word of the type itself.
    pub fn value<T: Serialize + DeserializeOwned>(&self, value: T, withheld: fn() -> T) -> T {
        if self.0.is_none() {
            return value;
        }
        let Ok(json) = serde_json::to_string(&value) else {
            return withheld();
        };
        match self.text(&json) {
            Cow::Borrowed(_) => value,
            Cow::Owned(clean) => serde_json::from_str(&clean).unwrap_or_else(|_| withheld()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wording::{Message, Severity};

    struct Site;
    impl Secrets for Site {
        fn reveal(&self, _: &str) -> Option<Arc<str>> {
            None
        }
        fn all_values(&self) -> Vec<(String, Arc<str>)> {
            vec![("mariadb.root".into(), Arc::from("planted-site-secret"))]
        }
    }

    #[test]
    fn secrets_of_site_and_configuration_become_references() {
        let own = [("webhook am".to_owned(), Secret::new("planted \"token\""))];
        let redactor = Redactor::new(&Site, &own).unwrap();
        assert_eq!(
            redactor.text("halt planted-site-secret and planted \"token\""),
            "halt ⟦secret:mariadb.root⟧ and ⟦secret:webhook am⟧"
        );
        let message =
            Message::new(Severity::Info, "x planted-site-secret").line("planted \"token\"");
        let withheld = || Message::new(Severity::Bad, "withheld");
        let clean = format!("{:?}", redactor.value(message, withheld));
        assert!(
            !clean.contains("planted") && clean.contains("mariadb.root"),
            "{clean}"
        );
        assert!(format!("{:?}", Redactor::default().text("as it is")).contains("as it is"));
    }
}
