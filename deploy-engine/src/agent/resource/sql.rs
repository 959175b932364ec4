//! MariaDB databases, users and grants, through the server's socket as root.

use std::{collections::BTreeSet, time::Duration};

use super::{Judged, Pending};
use crate::{
    agent::{
        collect,
        exec::{Exec, failure, last_lines},
    },
    wire::{Exit, Resource},
};

/// A batch of small statements; longer means a lock, or a cluster that does not take writes.
const SQL_TIMEOUT: Duration = Duration::from_secs(30);
/// Errors of the client that mean: no server there (2002 socket, 2003 TCP, 2013 lost).
const NO_SERVER: [&str; 3] = ["ERROR 2002", "ERROR 2003", "ERROR 2013"];

/// A wanted database object.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    Database {
        name: &'a str,
        charset: &'a str,
        absent: bool,
    },
    User {
        name: &'a str,
        from: &'a str,
        password: &'a str,
        absent: bool,
    },
    Grant {
        user: &'a str,
        from: &'a str,
        privileges: &'a [String],
        on: &'a str,
    },
}

impl<'a> Wanted<'a> {
    pub fn of(resource: &'a Resource) -> Option<Self> {
        Some(match resource {
            Resource::SqlDatabase {
                name,
                charset,
                absent,
            } => Self::Database {
                name,
                charset,
                absent: *absent,
            },
            Resource::SqlUser {
                name,
                from,
                password,
                absent,
            } => Self::User {
                name,
                from,
                password,
                absent: *absent,
            },
            Resource::SqlGrant {
                user,
                from,
                privileges,
                on,
            } => Self::Grant {
                user,
                from,
                privileges,
                on,
            },
            _ => return None,
        })
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Database { charset, .. } => super::plain_name("character set", charset, ""),
            Self::User { .. } => Ok(()),
            Self::Grant { privileges, on, .. } => {
                target(on)?;
                let word = |p: &&String| {
                    !p.is_empty() && p.chars().all(|c| c.is_ascii_alphabetic() || c == ' ')
                };
                match privileges.iter().find(|p| !word(p)) {
                    _ if privileges.is_empty() => {
                        Err("expected at least one privilege, found none".to_owned())
                    }
                    Some(bad) => Err(format!(
                        "expected a privilege such as SELECT, found {bad:?}"
                    )),
                    None => Ok(()),
                }
            }
        }
    }

    /// The question that shows the object as it is.
    fn question(&self) -> String {
        match self {
            Self::Database { name, .. } => format!(
                "SELECT DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME={};",
                quote(name)
            ),
            Self::User {
                name,
                from,
                password,
                ..
            } => format!(
                "SELECT plugin, authentication_string, authentication_string=PASSWORD({}) FROM mysql.user WHERE User={} AND Host={};",
                quote(password),
                quote(name),
                quote(from)
            ),
            Self::Grant { user, from, .. } => {
                format!("SHOW GRANTS FOR {}@{};", quote(user), quote(from))
            }
        }
    }
}

/// A text literal; the session has backslash escapes on (see [`PREAMBLE`]).
fn quote(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str("\\'"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\u{1a}' => quoted.push_str("\\Z"),
            c => quoted.push(c),
        }
    }
    quoted + "'"
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `*.*`, `db.*` or `db.table`, quoted. In a database's name `_` and `%` are wildcards of GRANT's and are escaped.
fn target(on: &str) -> Result<String, String> {
    let wrong = || format!("expected *.*, DATABASE.* or DATABASE.TABLE, found {on:?}");
    let (database, table) = on.split_once('.').ok_or_else(wrong)?;
    if database.is_empty() || table.is_empty() || table.contains('.') {
        return Err(wrong());
    }
    Ok(match (database, table) {
        ("*", "*") => "*.*".to_owned(),
        ("*", _) => return Err(wrong()),
        (_, "*") => {
            let escaped = database
                .replace('\\', "\\\\")
                .replace('_', "\\_")
                .replace('%', "\\%");
            format!("{}.*", identifier(&escaped))
        }
        _ => format!("{}.{}", identifier(database), identifier(table)),
    })
}

/// Backslash escapes on, whatever the server's default mode says.
const PREAMBLE: &str = "SET SESSION sql_mode='';\n";

/// What the server answered, one list of rows a question.
#[derive(Debug)]
pub enum Answers {
    Rows(Vec<Vec<Vec<String>>>),
    /// No server runs here, or there is no client yet.
    NoServer(String),
    Error(String),
}

/// Asks everything in one go.
pub fn ask(exec: &Exec, wanted: &[Wanted<'_>]) -> Answers {
    if wanted.is_empty() {
        return Answers::Rows(vec![]);
    }
    let mut batch = PREAMBLE.to_owned();
    for (index, wanted) in wanted.iter().enumerate() {
        batch += &format!("SELECT 'nightshift-question', {index};\n");
        if wanted.check().is_ok() {
            batch += &wanted.question();
            batch.push('\n');
        }
    }
    // `--force`: SHOW GRANTS of a user that does not exist yet is an error, and the other questions still count.
    match client(exec, &batch, true) {
        Ok((output, _)) => Answers::Rows(parse_answers(&output, wanted.len())),
        Err(ClientError::NoServer(why)) => Answers::NoServer(why),
        Err(ClientError::Other(why)) => Answers::Error(why),
    }
}

enum ClientError {
    NoServer(String),
    Other(String),
}

fn client(exec: &Exec, statements: &str, force: bool) -> Result<(String, String), ClientError> {
    let mut argv = vec![
        "mariadb",
        "--no-defaults",
        "--batch",
        "--skip-column-names",
        "--protocol=socket",
        "--user=root",
        "--default-character-set=utf8mb4",
    ];
    if force {
        argv.push("--force");
    }
    let output = exec
        .helper_with(&argv, Some(statements), &[], SQL_TIMEOUT)
        .map_err(ClientError::Other)?;
    let said = output.stderr.trim();
    if output.exit == Exit::NotFound {
        return Err(ClientError::NoServer(
            "the mariadb client is not installed".to_owned(),
        ));
    }
    if let Some(line) = said
        .lines()
        .find(|l| NO_SERVER.iter().any(|e| l.starts_with(e)))
    {
        return Err(ClientError::NoServer(line.to_owned()));
    }
    let only_missing_grants = said.lines().all(|l| l.starts_with("ERROR 1141"));
    if output.ok()
        || (force
            && matches!(output.exit, Exit::Code(1))
            && only_missing_grants
            && !said.is_empty())
    {
        // With --force the client ends with 0 even after errors: only those that a question may cause are let through.
        if said
            .lines()
            .any(|l| l.starts_with("ERROR ") && !l.starts_with("ERROR 1141"))
        {
            return Err(ClientError::Other(last_lines(said, 3)));
        }
        return Ok((output.stdout, output.stderr));
    }
    // The statements may hold passwords; the error names the program only.
    Err(ClientError::Other(failure(&argv[..1], &output)))
}

/// Rows of tab-separated, backslash-escaped columns, grouped by the marker rows between them.
pub fn parse_answers(text: &str, count: usize) -> Vec<Vec<Vec<String>>> {
    let mut all = vec![Vec::new(); count];
    let mut current: Option<usize> = None;
    for line in text.lines() {
        let columns: Vec<String> = line.split('\t').map(unescape).collect();
        if let [marker, index] = columns.as_slice()
            && marker == "nightshift-question"
        {
            current = index.parse().ok().filter(|i| *i < count);
        } else if let Some(index) = current {
            all[index].push(columns);
        }
    }
    all
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('0') => out.push('\0'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            (c, false) => out.push(c),
        }
    }
    out
}

pub fn look(wanted: &Wanted<'_>, index: usize, answers: &Answers, pending: &Pending) -> Judged {
    if let Err(why) = wanted.check() {
        return Judged::cannot("", why);
    }
    let rows = match answers {
        Answers::Rows(rows) => rows.get(index).map(Vec::as_slice).unwrap_or_default(),
        Answers::NoServer(_) if pending.packages || pending.units => {
            return Judged::by_diff(
                "no server",
                vec![format!("{} after the server runs", describe(wanted))],
            );
        }
        Answers::NoServer(why) | Answers::Error(why) => return Judged::unknown(why.clone()),
    };
    judge(wanted, rows)
}

fn describe(wanted: &Wanted<'_>) -> String {
    match wanted {
        Wanted::Database { name, absent, .. } => format!("{} database {name}", sign(*absent)),
        Wanted::User {
            name, from, absent, ..
        } => format!("{} SQL user {name}@{from}", sign(*absent)),
        Wanted::Grant {
            user,
            from,
            privileges,
            on,
        } => {
            format!("+ {} on {on} to {user}@{from}", privileges.join(", "))
        }
    }
}

fn sign(absent: bool) -> char {
    if absent { '-' } else { '+' }
}

fn judge(wanted: &Wanted<'_>, rows: &[Vec<String>]) -> Judged {
    match wanted {
        Wanted::Database {
            name,
            charset,
            absent,
        } => match rows.first().and_then(|r| r.first()) {
            None => Judged::by_diff(
                "absent",
                if *absent {
                    vec![]
                } else {
                    vec![describe(wanted)]
                },
            ),
            Some(_) if *absent => Judged::by_diff("present", vec![describe(wanted)]),
            Some(found) if found == charset => Judged::by_diff(found, vec![]),
            Some(found) => Judged::by_diff(
                found,
                vec![format!("character set of {name}: {found} -> {charset}")],
            ),
        },
        Wanted::User {
            name, from, absent, ..
        } => {
            let Some([plugin, hash, same]) = rows.first().map(Vec::as_slice) else {
                return Judged::by_diff(
                    "absent",
                    if *absent {
                        vec![]
                    } else {
                        vec![describe(wanted)]
                    },
                );
            };
            let seen = format!("{plugin} {hash}");
            let diff = match (absent, plugin == "mysql_native_password" && same == "1") {
                (true, _) => vec![describe(wanted)],
                (false, true) => vec![],
                (false, false) => vec![format!("password of {name}@{from} changes")],
            };
            Judged::by_diff(&seen, diff)
        }
        Wanted::Grant { privileges, on, .. } => {
            let found = granted(rows, on);
            let wanted_set = collect::set(privileges.iter().map(|p| canonical(p)));
            let seen = found.iter().cloned().collect::<Vec<_>>().join(",");
            let mut diff = Vec::new();
            diff.extend(
                wanted_set
                    .difference(&found)
                    .map(|p| format!("+ {p} on {on}")),
            );
            diff.extend(
                found
                    .difference(&wanted_set)
                    .map(|p| format!("- {p} on {on}")),
            );
            Judged::by_diff(&seen, diff)
        }
    }
}

/// One name a privilege: MariaDB shows newer names than people write.
fn canonical(privilege: &str) -> String {
    let upper = privilege.trim().to_ascii_uppercase();
    match upper.as_str() {
        "ALL" => "ALL PRIVILEGES".to_owned(),
        "REPLICATION CLIENT" => "BINLOG MONITOR".to_owned(),
        "REPLICATION REPLICA" => "REPLICATION SLAVE".to_owned(),
        "REPLICA MONITOR" => "SLAVE MONITOR".to_owned(),
        "REPLICATION REPLICA ADMIN" => "REPLICATION SLAVE ADMIN".to_owned(),
        _ => upper,
    }
}

/// The privileges that `SHOW GRANTS` lists for exactly this target.
fn granted(rows: &[Vec<String>], on: &str) -> BTreeSet<String> {
    let Ok(wanted) = target(on) else {
        return BTreeSet::new();
    };
    let mut found = BTreeSet::new();
    for line in rows.iter().filter_map(|r| r.first()) {
        let parts = line
            .strip_prefix("GRANT ")
            .and_then(|rest| rest.split_once(" ON "));
        let Some((privileges, rest)) = parts else {
            continue;
        };
        let Some((place, tail)) = rest.split_once(" TO ") else {
            continue;
        };
        if place != wanted {
            continue;
        }
        found.extend(
            privileges
                .split(", ")
                .map(canonical)
                .filter(|p| p != "USAGE"),
        );
        if tail.ends_with("WITH GRANT OPTION") {
            found.insert("GRANT OPTION".to_owned());
        }
    }
    found
}

/// Statements that bring the object from `rows` to what is wanted.
fn statements(wanted: &Wanted<'_>, rows: &[Vec<String>]) -> Result<Vec<String>, String> {
    wanted.check()?;
    Ok(match wanted {
        Wanted::Database {
            name, absent: true, ..
        } => vec![format!("DROP DATABASE {};", identifier(name))],
        Wanted::Database { name, charset, .. } => vec![
            format!(
                "CREATE DATABASE IF NOT EXISTS {} CHARACTER SET {charset};",
                identifier(name)
            ),
            format!(
                "ALTER DATABASE {} CHARACTER SET {charset};",
                identifier(name)
            ),
        ],
        Wanted::User {
            name,
            from,
            absent: true,
            ..
        } => {
            vec![format!("DROP USER {}@{};", quote(name), quote(from))]
        }
        Wanted::User {
            name,
            from,
            password,
            ..
        } => {
            let who = format!("{}@{}", quote(name), quote(from));
            vec![
                format!("CREATE USER IF NOT EXISTS {who};"),
                format!(
                    "ALTER USER {who} IDENTIFIED VIA mysql_native_password USING PASSWORD({});",
                    quote(password)
                ),
            ]
        }
        Wanted::Grant {
            user,
            from,
            privileges,
            on,
        } => {
            let (who, place) = (format!("{}@{}", quote(user), quote(from)), target(on)?);
            let found = granted(rows, on);
            let wanted_set = collect::set(privileges.iter().map(|p| canonical(p)));
            let mut all = Vec::new();
            let more: Vec<&str> = wanted_set.difference(&found).map(String::as_str).collect();
            let less: Vec<&str> = found.difference(&wanted_set).map(String::as_str).collect();
            if !less.is_empty() {
                all.push(format!("REVOKE {} ON {place} FROM {who};", less.join(", ")));
            }
            if !more.is_empty() {
                all.push(format!("GRANT {} ON {place} TO {who};", more.join(", ")));
            }
            all
        }
    })
}

pub fn apply(exec: &Exec, wanted: &Wanted<'_>) -> Result<(), String> {
    let rows = match ask(exec, &[*wanted]) {
        Answers::Rows(mut rows) => rows.pop().unwrap_or_default(),
        Answers::NoServer(why) | Answers::Error(why) => return Err(why),
    };
    let batch = format!("{PREAMBLE}{}\n", statements(wanted, &rows)?.join("\n"));
    match client(exec, &batch, false) {
        Ok(_) => Ok(()),
        Err(ClientError::NoServer(why) | ClientError::Other(why)) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::State;

    fn rows(lines: &[&str]) -> Vec<Vec<String>> {
        lines
            .iter()
            .map(|l| l.split('\t').map(unescape).collect())
            .collect()
    }

    #[test]
    fn answers_are_grouped_and_unescaped() {
        let text = "nightshift-question\t0\nutf8mb4\nnightshift-question\t1\nnightshift-question\t2\na\\tb\tc\\\\d\n";
        let found = parse_answers(text, 3);
        assert_eq!(
            found,
            [
                vec![vec!["utf8mb4".to_owned()]],
                vec![],
                vec![vec!["a\tb".into(), "c\\d".into()]]
            ]
        );
    }

    #[test]
    fn nothing_breaks_out_of_quotes() {
        assert_eq!(quote("a'b\\c\n"), "'a\\'b\\\\c\\n'");
        assert_eq!(identifier("a`b"), "`a``b`");
        assert_eq!(target("nova_api.*").as_deref(), Ok("`nova\\_api`.*"));
        for bad in ["*", "a", "a.b.c", "*.x", ".x"] {
            assert!(target(bad).is_err(), "{bad}");
        }
        let privileges = ["SELECT ON *.* TO x; --".to_owned()];
        let grant = Wanted::Grant {
            user: "a",
            from: "%",
            privileges: &privileges,
            on: "*.*",
        };
        assert!(matches!(
            look(&grant, 0, &Answers::Rows(vec![]), &Pending::default()).state,
            State::Cannot { .. }
        ));
    }

    #[test]
    fn grants_are_compared_as_sets() {
        let privileges = ["SELECT".to_owned(), "replication client".to_owned()];
        let grant = Wanted::Grant {
            user: "m",
            from: "%",
            privileges: &privileges,
            on: "*.*",
        };
        let shown = rows(&[
            "GRANT PROCESS, BINLOG MONITOR ON *.* TO `m`@`%` IDENTIFIED BY PASSWORD '*AB' WITH GRANT OPTION",
            "GRANT ALL PRIVILEGES ON `x`.* TO `m`@`%`",
        ]);
        let diff = [
            "+ SELECT on *.*",
            "- GRANT OPTION on *.*",
            "- PROCESS on *.*",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(judge(&grant, &shown).state, State::WillChange { diff });
        assert_eq!(
            statements(&grant, &shown).unwrap(),
            [
                "REVOKE GRANT OPTION, PROCESS ON *.* FROM 'm'@'%';",
                "GRANT SELECT ON *.* TO 'm'@'%';"
            ]
        );
        let all = ["ALL".to_owned()];
        let grant = Wanted::Grant {
            user: "m",
            from: "%",
            privileges: &all,
            on: "x.*",
        };
        assert_eq!(judge(&grant, &shown).state, State::Same);
    }

    #[test]
    fn users_and_databases() {
        let user = |absent| Wanted::User {
            name: "u",
            from: "%",
            password: "p",
            absent,
        };
        assert!(judge(&user(false), &[]).changes());
        assert_eq!(
            judge(&user(false), &rows(&["mysql_native_password\t*AB\t1"])).state,
            State::Same
        );
        assert!(judge(&user(false), &rows(&["mysql_native_password\t*AB\t0"])).changes());
        assert!(judge(&user(false), &rows(&["unix_socket\t\t1"])).changes());
        assert_eq!(judge(&user(true), &[]).state, State::Same);
        let database = Wanted::Database {
            name: "d",
            charset: "utf8mb4",
            absent: false,
        };
        assert_eq!(judge(&database, &rows(&["utf8mb4"])).state, State::Same);
        assert!(judge(&database, &rows(&["latin1"])).changes());
    }

    #[test]
    fn a_server_that_does_not_run_is_unknown_unless_it_will() {
        let database = Wanted::Database {
            name: "d",
            charset: "utf8mb4",
            absent: false,
        };
        let answers = Answers::NoServer("ERROR 2002".into());
        assert!(matches!(
            look(&database, 0, &answers, &Pending::default()).state,
            State::Unknown { .. }
        ));
        let pending = Pending {
            units: true,
            ..Pending::default()
        };
        let diff = vec!["+ database d after the server runs".to_owned()];
        assert_eq!(
            look(&database, 0, &answers, &pending).state,
            State::WillChange { diff }
        );
    }
}
