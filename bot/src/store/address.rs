//! Where a shared store is: its address, which has no password in it, and the password beside it.

use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::config::Secret;

/// Where the store is, and how to get in.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    /// `postgres://USER@HOST:PORT/DATABASE?sslmode=…`, without a password.
    pub url: String,
    pub password: Option<Secret>,
}

impl PostgresStore {
    /// For people; never with a password.
    pub fn at(&self) -> String {
        match self.options() {
            Ok(options) => described(&options),
            Err(_) => "PostgreSQL".to_owned(),
        }
    }

    /// # Errors
    /// What is wrong with the address. Never shows it: somebody may have written a password into it.
    pub fn check(&self) -> Result<(), String> {
        self.options().map(drop)
    }

    pub(super) fn options(&self) -> Result<PgConnectOptions, String> {
        if has_password(&self.url) {
            return Err("expected an address without a password, found one in it; \
                        name a `file` or a `credential` under `password`"
                .to_owned());
        }
        if !self.url.starts_with("postgres://") && !self.url.starts_with("postgresql://") {
            return Err("expected an address like `postgres://USER@HOST:PORT/DATABASE`".to_owned());
        }
        let options = PgConnectOptions::from_str(&self.url)
            .map_err(|_| "expected an address like `postgres://USER@HOST:PORT/DATABASE`")?;
        let options = match &self.password {
            Some(password) => options.password(password.reveal()),
            None => options,
        };
        Ok(match says_tls(&self.url) || is_local(&options) {
            true => options,
            // Whoever can read the store knows who may do what; whoever can write it decides what happens.
            false => options.ssl_mode(PgSslMode::VerifyFull),
        })
    }
}

/// The host that an address of a store names; none where it is none.
pub fn host(url: &str) -> Option<String> {
    let options = PgConnectOptions::from_str(url).ok()?;
    Some(options.get_host().to_owned())
}

/// In the user's place, or as a parameter.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, parameters) = match rest.split_once('?') {
        Some((before, parameters)) => (before, parameters),
        None => (rest, ""),
    };
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let named = parameters.split('&').any(|one| one.starts_with("password"));
    user.contains(':') || named
}

fn says_tls(url: &str) -> bool {
    url.contains("sslmode=") || url.contains("ssl-mode=")
}

fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let loopback = host
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    options.get_socket().is_some() || host.starts_with('/') || host == "localhost" || loopback
}

fn described(options: &PgConnectOptions) -> String {
    let host = options.get_socket().map_or_else(
        || options.get_host().to_owned(),
        |path| path.display().to_string(),
    );
    format!(
        "postgres://{}@{host}:{}/{}",
        options.get_username(),
        options.get_port(),
        options.get_database().unwrap_or("")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(url: &str) -> PostgresStore {
        PostgresStore {
            url: url.to_owned(),
            password: Some(Secret::new("hush")),
        }
    }

    #[rstest::rstest]
    #[case("postgres://bot:hush@db/x", "without a password")]
    #[case("postgres://bot@db/x?password=hush", "without a password")]
    #[case("mysql://bot@db/x", "expected an address like")]
    #[case("bot@db", "expected an address like")]
    fn addresses_that_are_refused_are_not_shown(#[case] url: &str, #[case] expected: &str) {
        let why = store(url).check().unwrap_err();
        assert!(why.contains(expected), "{why}");
        assert!(!why.contains("hush"), "{why}");
    }

    #[test]
    fn a_password_is_never_shown() {
        let store = store("postgres://bot@db.example.org:6432/night");
        assert_eq!(store.at(), "postgres://bot@db.example.org:6432/night");
        assert!(!format!("{store:?}").contains("hush"));
    }

    #[rstest::rstest]
    #[case("postgres://bot@db.example.org/x", true)]
    #[case("postgres://bot@127.0.0.1/x", false)]
    #[case("postgres://bot@localhost/x", false)]
    #[case("postgres:///x?host=/run/postgresql", false)]
    #[case("postgres://bot@db.example.org/x?sslmode=verify-ca", false)]
    fn over_a_network_the_server_is_verified_unless_told_otherwise(
        #[case] url: &str,
        #[case] full: bool,
    ) {
        let mode = store(url).options().unwrap().get_ssl_mode();
        assert_eq!(matches!(mode, PgSslMode::VerifyFull), full, "{mode:?}");
    }
}
