//! Secrets are references until a frame leaves, and references again when one comes in. Both happen here and nowhere else.

use std::sync::Arc;

use crate::wire::{Request, Resource, Work, secret_reference};

/// Where the values of secrets are kept. Values never enter logs, errors or `Debug`.
pub trait Secrets: Send + Sync {
    /// The value of a name such as `mariadb.root`; `None`: there is no such secret.
    fn reveal(&self, name: &str) -> Option<Arc<str>>;

    /// All names and values: what must not come back from hosts in clear.
    fn all_values(&self) -> Vec<(String, Arc<str>)>;
}

/// Shorter values are not looked for in what comes back: they would be found in innocent texts.
const SCRUB_MIN_CHARS: usize = 8;
const OPEN: &str = "⟦secret:";
const CLOSE: char = '⟧';

/// Whether a text refers to a secret.
fn refers(text: &str) -> bool {
    text.contains(OPEN)
}

/// A file that holds a secret is never shown in a diff: also an older value, which nobody could scrub, stays on its host.
pub fn mark_sensitive(request: &mut Request) {
    let resources = match request {
        Request::Observe { resources, .. } => resources,
        Request::Start {
            work: Work::Apply { resources, .. },
            ..
        } => resources,
        _ => return,
    };
    for resource in resources {
        if let Resource::File {
            content, sensitive, ..
        } = resource
        {
            *sensitive |= refers(content);
        }
    }
}

/// Replaces every reference in the JSON of a frame by the secret's value, escaped for JSON. An error is the unknown name.
pub fn reveal(json: &str, secrets: &dyn Secrets) -> Result<String, String> {
    let mut revealed = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(OPEN) {
        let (before, from) = rest.split_at(at);
        revealed.push_str(before);
        let name = &from[OPEN.len()..];
        let Some((name, after)) = name.split_once(CLOSE) else {
            return Err(name.chars().take(40).collect());
        };
        let value = secrets.reveal(name).ok_or_else(|| name.to_owned())?;
        revealed.push_str(&escaped(&value));
        rest = after;
    }
    revealed.push_str(rest);
    Ok(revealed)
}

/// As it stands inside a JSON text, without the quotes.
fn escaped(value: &str) -> String {
    let json = serde_json::Value::from(value).to_string();
    json[1..json.len() - 1].to_owned()
}

/// Puts references in place of the values of secrets in what comes from hosts.
pub struct Scrubber {
    /// What to look for → the reference, longest first, so that a value that holds another goes first.
    values: Vec<(String, String)>,
}

impl Scrubber {
    /// Takes the values as they are now. A value is also looked for as a JSON text shows it, once and twice wrapped (an API's
    /// answer inside a probe's).
    pub fn new(secrets: &dyn Secrets) -> Self {
        let mut values = Vec::new();
        for (name, value) in secrets.all_values() {
            if value.chars().count() < SCRUB_MIN_CHARS {
                continue;
            }
            let reference = secret_reference(&name);
            let once = escaped(&value);
            let twice = escaped(&once);
            for form in [value.to_string(), once, twice] {
                if !values.iter().any(|(known, _)| *known == form) {
                    values.push((form, reference.clone()));
                }
            }
        }
        values.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        Self { values }
    }

    /// What is looked for → what stands in its place, longest first.
    pub fn values(&self) -> &[(String, String)] {
        &self.values
    }

    /// The JSON of a frame without values of secrets.
    pub fn scrub(&self, json: String) -> String {
        self.values.iter().fold(json, |json, (value, reference)| {
            if json.contains(value.as_str()) {
                json.replace(value.as_str(), reference)
            } else {
                json
            }
        })
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Secrets in memory.
    pub struct Fixed(pub BTreeMap<&'static str, &'static str>);

    impl Secrets for Fixed {
        fn reveal(&self, name: &str) -> Option<Arc<str>> {
            self.0.get(name).map(|value| Arc::from(*value))
        }

        fn all_values(&self) -> Vec<(String, Arc<str>)> {
            self.0
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Arc::from(*value)))
                .collect()
        }
    }

    fn fixed() -> Fixed {
        Fixed(
            [
                ("a.plain", "correct-horse"),
                ("a.odd", "quo\"te\\slash"),
                ("a.short", "1234"),
                ("a.longer", "correct-horse-battery"),
            ]
            .into(),
        )
    }

    #[test]
    fn references_become_values_inside_json() {
        let texts = [
            "x ⟦secret:a.plain⟧ y",
            "⟦secret:a.odd⟧⟦secret:a.short⟧",
            "none",
        ];
        let json = serde_json::to_string(&texts).unwrap();
        let back: Vec<String> = serde_json::from_str(&reveal(&json, &fixed()).unwrap()).unwrap();
        assert_eq!(back, ["x correct-horse y", "quo\"te\\slash1234", "none"]);
    }

    #[test]
    fn an_unknown_or_open_reference_is_an_error() {
        assert_eq!(
            reveal("\"⟦secret:a.none⟧\"", &fixed()),
            Err("a.none".to_owned())
        );
        assert!(reveal("\"⟦secret:a.plain\"", &fixed()).is_err());
    }

    #[test]
    fn values_come_back_as_references_however_they_are_wrapped() {
        let scrubber = Scrubber::new(&fixed());
        let inner = serde_json::json!({"odd": "quo\"te\\slash", "long": "correct-horse-battery", "short": "1234"}).to_string();
        let json =
            serde_json::json!({"body": inner, "line": "password=correct-horse;"}).to_string();
        let scrubbed = scrubber.scrub(json);
        let back: serde_json::Value = serde_json::from_str(&scrubbed).unwrap();
        assert_eq!(back["line"], "password=⟦secret:a.plain⟧;");
        let body: serde_json::Value = serde_json::from_str(back["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["odd"], "⟦secret:a.odd⟧");
        assert_eq!(body["long"], "⟦secret:a.longer⟧");
        assert_eq!(body["short"], "1234");
    }

    #[test]
    fn a_file_that_refers_to_a_secret_becomes_sensitive() {
        let file = |content: &str| Resource::File {
            path: "/etc/x".into(),
            content: content.into(),
            mode: "0600".into(),
            owner: "root".into(),
            group: "root".into(),
            validate: None,
            sensitive: false,
            absent: false,
        };
        let mut request = Request::Observe {
            facts: false,
            resources: vec![file("plain"), file(&secret_reference("a.plain"))],
            probes: BTreeMap::new(),
        };
        mark_sensitive(&mut request);
        let Request::Observe { resources, .. } = request else {
            panic!("the same request")
        };
        let marks = resources.iter().map(|r| {
            matches!(
                r,
                Resource::File {
                    sensitive: true,
                    ..
                }
            )
        });
        assert_eq!(marks.collect::<Vec<_>>(), [false, true]);
    }
}
