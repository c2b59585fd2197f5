//! Sends introspection requests to the provider.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::auth::http_client::{Endpoint, HttpClient, HttpClientError};
use crate::auth::introspection::credentials::{Credentials, form_encode};
use crate::auth::key_source::FetchError;
use crate::auth::members::Members;
use crate::auth::provider::Provider;
use crate::counters::Counter;

/// Timeout of one introspection request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time to wait for the provider's metadata, which names the endpoint. Together with
/// `REQUEST_TIMEOUT`, this is shorter than the time that a client's request waits, so a timeout of
/// the provider is recorded.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(4);
/// After a failed connection or a timeout, prefd sends the provider no introspection request for
/// this long. Without this pause, each client request would wait for another timeout.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Where introspection requests are sent.
pub(crate) enum IntrospectionEndpoint {
    /// Introspection requests are sent to a configured URL.
    Configured(Endpoint),
    /// Introspection requests are sent to the URL in this provider's metadata.
    Discovered(Arc<Provider>),
}

/// Why prefd could not get a valid introspection response.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntrospectionError {
    #[error(
        "the introspection endpoint is unknown: the metadata of the identity provider was not \
         fetched yet, or does not name the endpoint. Set --introspection-url"
    )]
    UnknownEndpoint,
    #[error(transparent)]
    Endpoint(#[from] FetchError),
    #[error(transparent)]
    Request(#[from] HttpClientError),
    #[error("the introspection response cannot be read as a JSON object: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("the introspection response contains a name twice")]
    DuplicateName,
    #[error("the introspection response has no boolean member `active`")]
    MissingActive,
}

impl IntrospectionError {
    /// Whether the next request would probably wait for the same timeout.
    fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::UnknownEndpoint
                | Self::Request(HttpClientError::Connection(_) | HttpClientError::Timeout(_))
        )
    }
}

/// Asks one provider about tokens.
pub(crate) struct IntrospectionClient {
    endpoint: IntrospectionEndpoint,
    credentials: Mutex<Credentials>,
    http_client: HttpClient,
    /// The time at which an introspection request last failed with a timeout or a connection error.
    failed_at: Mutex<Option<Instant>>,
    requests: Counter,
    failed_requests: Counter,
}

impl IntrospectionClient {
    pub(crate) fn new(
        endpoint: IntrospectionEndpoint,
        credentials: Credentials,
        http_client: HttpClient,
    ) -> Self {
        Self {
            endpoint,
            credentials: Mutex::new(credentials),
            http_client,
            failed_at: Mutex::default(),
            requests: Counter::default(),
            failed_requests: Counter::default(),
        }
    }

    /// Asks the provider about a token. Returns the members of the response, or `None` if the
    /// provider reports the token as inactive. Logs and counts a failure.
    pub(super) async fn ask(
        &self,
        token: &str,
    ) -> Result<Option<Map<String, Value>>, IntrospectionError> {
        self.requests.add_one();
        let response = self.request(token).await;
        if let Err(error) = &response {
            self.failed_requests.add_one();
            tracing::warn!(%error, "token introspection failed");
            if error.is_outage() {
                *lock(&self.failed_at) = Some(Instant::now());
            }
        }
        response
    }

    async fn request(&self, token: &str) -> Result<Option<Map<String, Value>>, IntrospectionError> {
        let endpoint = match &self.endpoint {
            IntrospectionEndpoint::Configured(endpoint) => endpoint.clone(),
            IntrospectionEndpoint::Discovered(provider) => {
                if provider.introspection_endpoint().is_none() {
                    let _ = tokio::time::timeout(DISCOVERY_TIMEOUT, provider.refresh()).await;
                }
                provider
                    .introspection_endpoint()
                    .ok_or(IntrospectionError::UnknownEndpoint)??
            }
        };
        let form = format!("token={}&token_type_hint=access_token", form_encode(token));
        let authorization = lock(&self.credentials).header();
        let text = self
            .http_client
            .post(&endpoint, authorization, form, REQUEST_TIMEOUT)
            .await?;
        let members: Members = serde_json::from_slice(&text)?;
        match members.map.get("active") {
            Some(Value::Bool(false)) => Ok(None),
            Some(Value::Bool(true)) if members.has_duplicates => {
                Err(IntrospectionError::DuplicateName)
            }
            Some(Value::Bool(true)) => Ok(Some(members.map)),
            _ => Err(IntrospectionError::MissingActive),
        }
    }

    /// Whether the provider could not be reached within the last [`RETRY_PAUSE`].
    pub(super) fn is_pausing(&self) -> bool {
        lock(&self.failed_at).is_some_and(|at| at.elapsed() < RETRY_PAUSE)
    }

    /// Uses these credentials for all further introspection requests.
    pub(super) fn replace_credentials(&self, credentials: Credentials) {
        *lock(&self.credentials) = credentials;
    }

    /// Number of introspection requests, including failed ones.
    pub(super) fn requests(&self) -> &Counter {
        &self.requests
    }

    pub(super) fn failed_requests(&self) -> &Counter {
        &self.failed_requests
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
