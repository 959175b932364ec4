//! A way to the HTTP API of a source: address, authority, credentials and limits.

use std::{fmt, net::SocketAddr, time::Duration};

use jiff::Timestamp;
use reqwest::{
    Certificate, Client, Identity, Method, RequestBuilder, Response, StatusCode, Url, redirect,
};
use serde::Serialize;

use crate::http::{
    ANSWER_TIMEOUT, Answer, CONNECT_TIMEOUT, SourceError, asked, base, read, refusal, transport,
};

/// Probes of an idle connection: a stream whose other end has vanished is known after some 25 s.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// How a source is reached.
#[derive(Clone)]
pub struct Connection {
    /// For example `https://icinga1:5665`. Its host is the name that the certificate must have.
    pub url: String,
    /// Where that name is, if the resolver of the bot is not to be asked.
    pub address: Option<SocketAddr>,
    pub credentials: Option<Credentials>,
    /// PEM: the only authorities that are believed; none: those of the system.
    pub authorities: Option<Vec<u8>>,
    /// PEM: the bot's own certificate and key.
    pub identity: Option<Vec<u8>>,
    /// For one whole answer.
    pub answer_within: Duration,
}

/// What the bot shows that it may ask.
#[derive(Clone)]
pub enum Credentials {
    Basic {
        user: String,
        password: String,
    },
    /// The value of `Authorization` after its first word: `Bearer` or `ApiKey`.
    Token {
        scheme: &'static str,
        token: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
            Self::Token { scheme, .. } => write!(f, "{scheme}(…)"),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("url", &self.url)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Without credentials, and with the usual limits.
    pub fn plain(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            address: None,
            credentials: None,
            authorities: None,
            identity: None,
            answer_within: ANSWER_TIMEOUT,
        }
    }
}

/// A client for one API. No proxy and no redirects: the bot asks exactly the address that was configured.
#[derive(Clone)]
pub struct Api {
    base: Url,
    client: Client,
    credentials: Option<Credentials>,
    within: Duration,
}

/// An answer, and the time that the server says it is.
#[derive(Clone, Debug)]
pub struct Dated {
    pub answer: Answer,
    /// None: it does not say.
    pub date: Option<Timestamp>,
}

impl Api {
    /// # Errors
    /// [`SourceError::Address`]: an address or a certificate that is none.
    pub fn new(connection: &Connection) -> Result<Self, SourceError> {
        let wrong = |what: &str| {
            let found = format!("{what} that cannot be read");
            move |_: reqwest::Error| SourceError::Address { found }
        };
        let base = base(&connection.url)?;
        let mut client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE_INTERVAL)
            .tcp_keepalive_retries(KEEPALIVE_RETRIES)
            .redirect(redirect::Policy::none())
            .no_proxy();
        if let (Some(address), Some(host)) = (connection.address, base.host_str()) {
            client = client.resolve(host, address);
        }
        if let Some(pem) = &connection.authorities {
            let authorities = Certificate::from_pem_bundle(pem);
            let authorities = authorities.map_err(wrong("certificates of an authority"))?;
            if authorities.is_empty() {
                let found = "a file of authorities without a certificate".to_owned();
                return Err(SourceError::Address { found });
            }
            client = client.tls_certs_only(authorities);
        }
        if let Some(pem) = &connection.identity {
            let identity = Identity::from_pem(pem);
            client = client.identity(identity.map_err(wrong("a client certificate"))?);
        }
        Ok(Self {
            base,
            client: client.build().map_err(wrong("TLS settings"))?,
            credentials: connection.credentials.clone(),
            within: connection.answer_within,
        })
    }

    /// `path`: from our own code, never from outside.
    ///
    /// # Errors
    /// Anything but a complete answer with status 200.
    pub async fn get(&self, path: &str) -> Result<Dated, SourceError> {
        self.answer(Method::GET, path, |request| request).await
    }

    /// A question or an order with a JSON body.
    ///
    /// # Errors
    /// As [`Api::get`]. Whether an order was carried out is unknown then.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Dated, SourceError> {
        self.answer(Method::POST, path, |request| request.json(body))
            .await
    }

    /// As [`Api::post`], for servers that take the body of a question only so.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn query(&self, path: &str, body: &impl Serialize) -> Result<Dated, SourceError> {
        let as_get = |request: RequestBuilder| {
            let request = request.header("X-HTTP-Method-Override", "GET");
            request.json(body)
        };
        self.answer(Method::POST, path, as_get).await
    }

    /// # Errors
    /// As [`Api::get`].
    pub async fn delete(&self, path: &str) -> Result<Dated, SourceError> {
        self.answer(Method::DELETE, path, |request| request).await
    }

    /// As [`Api::delete`], where what is deleted is named in a JSON body.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn delete_with(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Dated, SourceError> {
        self.answer(Method::DELETE, path, |request| request.json(body))
            .await
    }

    /// The beginning of an answer that has no end; only its beginning has to come in time.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn open(&self, path: &str, body: &impl Serialize) -> Result<Opened, SourceError> {
        let (asked, request) = self.request(Method::POST, path)?;
        let begins = async {
            let sent = request.json(body).send().await;
            let response = sent.map_err(|error| transport(&asked, &error))?;
            match response.status() {
                StatusCode::OK => Ok(response),
                _ => Err(refusal(&asked, response).await),
            }
        };
        let response = self.in_time(&asked, begins).await?;
        Ok(Opened { asked, response })
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Dated, SourceError> {
        let (asked, request) = self.request(method, path)?;
        let whole = async {
            let sent = with(request).send().await;
            let response = sent.map_err(|error| transport(&asked, &error))?;
            let date = date(&response);
            let body = read(&asked, response).await?;
            let asked = asked.clone();
            Ok(Dated {
                answer: Answer { asked, body },
                date,
            })
        };
        self.in_time(&asked, whole).await
    }

    async fn in_time<T>(
        &self,
        asked: &str,
        exchange: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let within = self.within;
        let late = |_| SourceError::TimedOut {
            asked: asked.to_owned(),
            within,
        };
        tokio::time::timeout(within, exchange).await.map_err(late)?
    }

    fn request(&self, method: Method, path: &str) -> Result<(String, RequestBuilder), SourceError> {
        let url = self.base.join(path).map_err(|error| SourceError::Address {
            found: error.to_string(),
        })?;
        let asked = asked(method.as_str(), &url);
        let request = self.client.request(method, url);
        let request = request.header("Accept", "application/json");
        Ok((
            asked,
            match &self.credentials {
                None => request,
                Some(Credentials::Basic { user, password }) => {
                    request.basic_auth(user, Some(password))
                }
                Some(Credentials::Token { scheme, token }) => {
                    request.header("Authorization", format!("{scheme} {token}"))
                }
            },
        ))
    }
}

fn date(response: &Response) -> Option<Timestamp> {
    let text = response.headers().get("date")?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    date.parse_timestamp(text).ok()
}

/// An answer that has no end.
pub struct Opened {
    asked: String,
    response: Response,
}

impl Opened {
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// The next bytes; none: the server ended it.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        let chunk = self.response.chunk().await;
        let chunk = chunk.map_err(|error| transport(&self.asked, &error))?;
        Ok(chunk.map(|bytes| bytes.to_vec()))
    }
}
