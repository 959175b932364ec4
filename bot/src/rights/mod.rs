//! Who may do what, where and to what. Pure. What nobody allowed is refused.
//!
//! A role is the simple form: all commands up to it, everywhere. A grant adds single commands, within services, groups of
//! hosts, runbooks and rooms. A room's ceiling holds for both.

mod grant;
#[cfg(test)]
mod properties;
mod quorum;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::command::CommandSpec;
pub use grant::{Access, Grant, Subject};
pub use quorum::{Agreed, ApprovalAction, NoVote, Quorum, Requester};

/// Roles include the ones before them.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Approves, deploys, runs runbooks, halts.
    Operator,
    /// Changes how far automation is trusted.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// Somebody as the chat or the kernel vouches for them, for example `matrix:@ann:example.org` or `unix:root`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity(String);

/// By hand: derived from `try_from`, it would be the schema of any string.
impl schemars::JsonSchema for Identity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Identity".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": r"^(matrix:@[^:\s]+:\S+|unix:[^\s:]+)$",
        })
    }
}

impl Identity {
    pub fn matrix(user: &str) -> Self {
        Self(format!("matrix:{user}"))
    }

    pub fn unix(user: &str) -> Self {
        Self(format!("unix:{user}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Vouched for by this machine's kernel, not by a chat server.
    pub fn is_of_this_machine(&self) -> bool {
        self.0.starts_with("unix:")
    }

    /// The user's own name, without the way they came in.
    pub fn user(&self) -> &str {
        self.0
            .split_once(':')
            .map_or(self.0.as_str(), |(_, user)| user)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.0
    }
}

impl TryFrom<String> for Identity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = match text.split_once(':') {
            Some(("matrix", user)) => {
                user.starts_with('@')
                    && user[1..].contains(':')
                    && !user.contains(char::is_whitespace)
            }
            Some(("unix", user)) => {
                !user.is_empty() && !user.contains(|c: char| c.is_whitespace() || c == ':')
            }
            _ => false,
        };
        if known {
            Ok(Self(text))
        } else {
            Err(format!(
                "expected an identity like `matrix:@ann:example.org` or `unix:ann`, found {text:?}"
            ))
        }
    }
}

/// The people the bot knows.
#[derive(Clone, Debug, Default)]
pub struct People {
    roles: BTreeMap<Identity, Role>,
    /// Whoever runs the bot owns its store and its keys, so refusing them anything would only be pretended.
    owner: Option<Identity>,
    access: Access,
}

impl People {
    pub fn new(roles: BTreeMap<Identity, Role>, owner: Option<Identity>) -> Self {
        let access = Access::default();
        Self {
            roles,
            owner,
            access,
        }
    }

    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub fn access(&self) -> &Access {
        &self.access
    }

    /// `None`: a stranger.
    pub fn role(&self, identity: &Identity) -> Option<Role> {
        self.roles
            .get(identity)
            .copied()
            .or_else(|| (self.owner.as_ref() == Some(identity)).then_some(Role::Admin))
    }
}

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("I do not know you ({who}). Ask whoever runs me to add you under `people`.")]
    Stranger { who: Identity },
    #[error("`{command}` needs the role {needed}; yours is {role}")]
    Role {
        command: &'static str,
        needed: Role,
        role: Role,
    },
    #[error("`{command}` needs the role {needed}; in this room nobody has more than {ceiling}")]
    Room {
        command: &'static str,
        needed: Role,
        ceiling: Role,
    },
    #[error("you may use `{command}`, but not on {what}")]
    Beyond { command: &'static str, what: String },
}

/// Where something is asked.
#[derive(Clone, Copy, Debug)]
pub struct Spot<'a> {
    /// The highest role that anybody has there.
    pub ceiling: Role,
    /// `ADAPTER:ROOM`, or `control` for the command line.
    pub name: &'a str,
}

/// How far a permit reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    /// By role.
    Everything,
    /// What any of these covers.
    Within(Vec<Grant>),
}

/// Proof that somebody may use a command here; nothing acts without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    who: Identity,
    role: Role,
    command: &'static str,
    reach: Reach,
}

impl Permit {
    pub fn who(&self) -> &Identity {
        &self.who
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether what the command is about needs no further look.
    pub fn reaches_everything(&self) -> bool {
        self.reach == Reach::Everything
    }

    /// May the command be used on this?
    pub fn covers(&self, subject: &Subject) -> Result<(), Refusal> {
        match &self.reach {
            Reach::Everything => Ok(()),
            Reach::Within(grants) if grants.iter().any(|grant| grant.covers(subject)) => Ok(()),
            Reach::Within(_) => Err(Refusal::Beyond {
                command: self.command,
                what: subject.to_string(),
            }),
        }
    }
}

/// Decides.
pub fn permit(
    people: &People,
    who: &Identity,
    spot: Spot<'_>,
    spec: &CommandSpec,
) -> Result<Permit, Refusal> {
    let role = people
        .role(who)
        .ok_or_else(|| Refusal::Stranger { who: who.clone() })?;
    let reach = if role >= spec.role {
        Reach::Everything
    } else {
        let grants = people.access.grants_for(who, spec.name, spot.name);
        if grants.is_empty() {
            return Err(Refusal::Role {
                command: spec.name,
                needed: spec.role,
                role,
            });
        }
        Reach::Within(grants)
    };
    if spot.ceiling < spec.role {
        return Err(Refusal::Room {
            command: spec.name,
            needed: spec.role,
            ceiling: spot.ceiling,
        });
    }
    Ok(Permit {
        who: who.clone(),
        role: role.min(spot.ceiling),
        command: spec.name,
        reach,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::spec_of;

    fn people() -> People {
        let roles = [
            ("unix:ann", Role::Admin),
            ("matrix:@bob:x.org", Role::Operator),
            ("unix:eve", Role::Viewer),
        ];
        let roles = roles.map(|(who, role)| (Identity::try_from(who.to_owned()).unwrap(), role));
        People::new(roles.into(), Some(Identity::unix("root")))
    }

    #[rstest::rstest]
    #[case("unix:ann", Role::Admin, "trust", "ok")]
    #[case("unix:root", Role::Admin, "trust", "ok")]
    #[case("matrix:@bob:x.org", Role::Admin, "deploy", "ok")]
    #[case(
        "matrix:@bob:x.org",
        Role::Admin,
        "trust",
        "`trust` needs the role admin; yours is operator"
    )]
    #[case(
        "matrix:@bob:x.org",
        Role::Viewer,
        "deploy",
        "`deploy` needs the role operator; in this room nobody has more than viewer"
    )]
    #[case("unix:eve", Role::Admin, "status", "ok")]
    #[case(
        "unix:eve",
        Role::Admin,
        "halt",
        "`halt` needs the role operator; yours is viewer"
    )]
    #[case(
        "matrix:@ann:x.org",
        Role::Admin,
        "help",
        "I do not know you (matrix:@ann:x.org). Ask whoever runs me to add you under `people`."
    )]
    fn who_may_do_what(
        #[case] who: &str,
        #[case] ceiling: Role,
        #[case] command: &str,
        #[case] expected: &str,
    ) {
        let who = Identity::try_from(who.to_owned()).unwrap();
        let spot = Spot {
            ceiling,
            name: "control",
        };
        let said = match permit(&people(), &who, spot, spec_of(command).unwrap()) {
            Ok(_) => "ok".to_owned(),
            Err(refusal) => refusal.to_string(),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn identities_that_nobody_vouches_for_are_refused() {
        for text in [
            "ann",
            "matrix:ann",
            "unix:",
            "irc:ann",
            "unix:a b",
            "matrix:@ann",
        ] {
            assert!(Identity::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
