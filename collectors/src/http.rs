//! One bounded exchange with a source: limits on time, size and retries, and errors that name what was asked.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;

/// To open a connection. Sources are on the same site or one hop away.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For one whole answer. A source that needs longer is overloaded, and its answer would be old.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest accepted answer, in bytes: the alerts of 20,000 targets fit.
pub(crate) const ANSWER_LIMIT_BYTES: usize = 32 * 1024 * 1024;
/// Attempts at a question in all; with the pauses below it ends within about 16 s.
pub(crate) const ATTEMPTS: u32 = 3;
/// Pause before the second attempt; doubled before each further one.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Of a body shown in an error, in characters.
const SHOWN_CHARS: usize = 200;

/// Why a source gave no answer. No credentials: addresses are shown without user and query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("{asked}: expected a connection, found: {found}")]
    Unreachable { asked: String, found: String },
    #[error("{asked}: expected an answer within {} s, found none", .within.as_secs())]
    TimedOut { asked: String, within: Duration },
    #[error("{asked}: expected status 200, found {status}: {body}")]
    Status {
        asked: String,
        status: u16,
        body: String,
    },
    #[error("{asked}: expected at most {limit_bytes} bytes, found more")]
    TooLarge { asked: String, limit_bytes: usize },
    #[error("{asked}: expected {expected}, found {found}")]
    Shape {
        asked: String,
        expected: String,
        found: String,
    },
    #[error("address of a source: expected http(s)://HOST[:PORT][/PATH], found {found}")]
    Address { found: String },
}

impl SourceError {
    /// Can the same question succeed in a moment?
    fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::TooLarge { .. } | Self::Shape { .. } | Self::Address { .. } => false,
        }
    }
}

/// No proxy and no redirects: the bot asks exactly the address that was configured.
pub(crate) fn client() -> Result<Client, SourceError> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| SourceError::Address {
            found: error.to_string(),
        })
}

/// A base address, always ending in `/` so that paths are appended.
pub(crate) fn base(address: &str) -> Result<Url, SourceError> {
    let mut url: Url = address.parse().map_err(|_| SourceError::Address {
        found: "something that is not a URL".to_owned(),
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(SourceError::Address {
            found: format!("scheme {:?}", url.scheme()),
        });
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// `METHOD scheme://host:port/path`, for errors.
pub(crate) fn asked(method: &str, url: &Url) -> String {
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!(
        "{method} {}://{}{port}{}",
        url.scheme(),
        url.host_str().unwrap_or(""),
        url.path()
    )
}

/// Asks again after errors that may pass. Only for questions that change nothing.
pub(crate) async fn with_retries<T, F, Fut>(mut ask: F) -> Result<T, SourceError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, SourceError>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match ask().await {
            Err(error) if error.passes() => tracing::debug!(%error, "asking the source again"),
            end => return end,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    ask().await
}

/// A whole answer of a source, as it came; what it says is read without I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `METHOD scheme://host:port/path`, for errors.
    pub asked: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, SourceError> {
        serde_json::from_slice(&self.body).map_err(|error| SourceError::Shape {
            asked: self.asked.clone(),
            expected: "an answer of its API".to_owned(),
            found: format!("{error}: {}", shown(&self.body)),
        })
    }
}

/// Sends a request and waits for its whole answer.
pub(crate) async fn answer(asked: &str, request: RequestBuilder) -> Result<Answer, SourceError> {
    let response = request
        .send()
        .await
        .map_err(|error| transport(asked, &error))?;
    Ok(Answer {
        body: read(asked, response).await?,
        asked: asked.to_owned(),
    })
}

/// The body of a 200, bounded.
pub(crate) async fn read(
    asked: &str,
    mut response: reqwest::Response,
) -> Result<Vec<u8>, SourceError> {
    if response.status() != StatusCode::OK {
        return Err(refusal(asked, response).await);
    }
    bytes(asked, &mut response).await
}

/// What is said by an answer that is not a 200.
pub(crate) async fn refusal(asked: &str, mut response: reqwest::Response) -> SourceError {
    let (asked, status) = (asked.to_owned(), response.status().as_u16());
    match bytes(&asked, &mut response).await {
        Ok(body) => SourceError::Status {
            asked,
            status,
            body: shown(&body),
        },
        Err(error) => error,
    }
}

async fn bytes(asked: &str, response: &mut reqwest::Response) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| transport(asked, &error))?
    {
        if bytes.len() + chunk.len() > ANSWER_LIMIT_BYTES {
            let asked = asked.to_owned();
            return Err(SourceError::TooLarge {
                asked,
                limit_bytes: ANSWER_LIMIT_BYTES,
            });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

pub(crate) fn transport(asked: &str, error: &reqwest::Error) -> SourceError {
    let asked = asked.to_owned();
    if error.is_timeout() {
        return SourceError::TimedOut {
            asked,
            within: ANSWER_TIMEOUT,
        };
    }
    let mut found = String::new();
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(inner) = source {
        found = inner.to_string();
        source = inner.source();
    }
    SourceError::Unreachable { asked, found }
}

fn shown(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .take(SHOWN_CHARS)
        .collect();
    crate::label::tame(text.trim(), SHOWN_CHARS * 4)
}
