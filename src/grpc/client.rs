//! The client's side: connecting to a node, and reading what its refusals say. Used by the command
//! line and the load generator; an outside client needs nothing of it.

use crate::wire::v1;
use crate::wire::v1::approval_grpc_service_client::ApprovalGrpcServiceClient;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Response, Status, Streaming};
use tonic_types::StatusExt;

/// Where a node listens unless told otherwise.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:9004";

/// HTTP/2 windows: a stream keeps megabytes of votes in flight.
const WINDOW_BYTES: u32 = 8 << 20;
const FRAME_BYTES: u32 = 1 << 20;
/// The answer to one approval with the largest content, and some.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Which node, and how it and we prove who we are.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// `http://host:port`, or `https://host:port` for TLS; without a scheme: http, with TLS files https.
    pub endpoint: String,
    /// PEM file of the authority that signed the node's certificate.
    pub tls_ca: Option<PathBuf>,
    /// PEM files of our own certificate and key, where the node asks for one.
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's mistake.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers there, or not in a way that we accept.
    #[error("cannot reach {endpoint}: {cause}")]
    Unreachable { endpoint: String, cause: String },
}

impl Target {
    pub fn plain(endpoint: impl Into<String>) -> Target {
        Target { endpoint: endpoint.into(), ..Target::default() }
    }

    /// The endpoint with its windows and TLS, not connected yet.
    pub fn endpoint(&self) -> Result<Endpoint, Error> {
        let has_tls_files = self.tls_ca.is_some() || self.tls_cert.is_some() || self.tls_key.is_some();
        let uri = match self.endpoint.split_once("://") {
            Some(("http" | "https", _)) => self.endpoint.clone(),
            Some((scheme, _)) => {
                return Err(Error::Usage(format!("--endpoint: scheme `{scheme}` is neither http nor https")));
            }
            None if has_tls_files => format!("https://{}", self.endpoint),
            None => format!("http://{}", self.endpoint),
        };
        let tls = uri.starts_with("https://");
        if has_tls_files && !tls {
            return Err(Error::Usage(format!("--endpoint: {uri} has no TLS, but --tls-… is given: use https://")));
        }
        let endpoint = Endpoint::from_shared(uri.clone())
            .map_err(|error| Error::Usage(format!("--endpoint: {uri} is not an address: {error}")))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true);
        if !tls {
            return Ok(endpoint);
        }
        let mut config = ClientTlsConfig::new();
        match &self.tls_ca {
            Some(path) => config = config.ca_certificate(Certificate::from_pem(read_pem("--tls-ca", path)?)),
            None => {
                return Err(Error::Usage(format!(
                    "--endpoint {uri} needs --tls-ca: the PEM file of the authority that signed the node's certificate"
                )));
            }
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                let identity = Identity::from_pem(read_pem("--tls-cert", cert)?, read_pem("--tls-key", key)?);
                config = config.identity(identity);
            }
            (None, None) => {}
            _ => return Err(Error::Usage("--tls-cert and --tls-key go together".into())),
        }
        endpoint.tls_config(config).map_err(|error| Error::Usage(format!("TLS files: {}", causes(&error))))
    }

    pub async fn connect(&self) -> Result<Channel, Error> {
        let endpoint = self.endpoint()?;
        endpoint
            .connect()
            .await
            .map_err(|error| Error::Unreachable { endpoint: self.endpoint.clone(), cause: causes(&error) })
    }
}

fn read_pem(flag: &str, path: &PathBuf) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Usage(format!("{flag} {}: {error}", path.display())))
}

/// An error with what caused it, on one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some repeat their cause in their own text.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// One method a command of the command line; refusals read.
#[derive(Clone, Debug)]
pub struct Client(ApprovalGrpcServiceClient<Channel>);

/// What a stream of states gives, until it ends.
#[derive(Debug)]
pub struct Updates(Streaming<v1::ApprovalStatusMessage>);

impl Client {
    pub async fn connect(target: &Target) -> Result<Client, Error> {
        let client = ApprovalGrpcServiceClient::new(target.connect().await?);
        Ok(Client(client.max_decoding_message_size(ANSWER_BYTES_MAX).max_encoding_message_size(ANSWER_BYTES_MAX)))
    }

    pub async fn submit(&mut self, request: v1::ApprovalRequest) -> Result<v1::ApprovalStatusMessage, Refused> {
        answer(self.0.submit_approval_request(request).await)
    }

    pub async fn vote(&mut self, vote: v1::ApprovalResponse) -> Result<v1::ApprovalStatusMessage, Refused> {
        answer(self.0.submit_validator_response(vote).await)
    }

    pub async fn list(&mut self, request: v1::ListApprovalsRequest) -> Result<v1::ListApprovalsResponse, Refused> {
        answer(self.0.list_approvals(request).await)
    }

    pub async fn status(
        &mut self,
        request: v1::GetApprovalStatusRequest,
    ) -> Result<v1::ApprovalStatusMessage, Refused> {
        answer(self.0.get_approval_status(request).await)
    }

    pub async fn health(&mut self) -> Result<v1::HealthCheckResponse, Refused> {
        answer(self.0.check_health(v1::HealthCheckRequest {}).await)
    }

    pub async fn watch(&mut self, filter: v1::ApprovalRequest) -> Result<Updates, Refused> {
        answer(self.0.watch_approval_updates(filter).await).map(Updates)
    }

    pub async fn pending(&mut self, request: v1::StreamPendingApprovalsRequest) -> Result<Updates, Refused> {
        answer(self.0.stream_pending_approvals(request).await).map(Updates)
    }
}

impl Updates {
    /// The next state; `None` when the stream ended well.
    pub async fn next(&mut self) -> Result<Option<v1::ApprovalStatusMessage>, Refused> {
        self.0.message().await.map_err(|status| Refused::from(&status))
    }
}

fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, Refused> {
    answer.map(Response::into_inner).map_err(|status| Refused::from(&status))
}

/// A status that is not OK, read with its google.rpc details.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    pub code: Code,
    pub message: String,
    /// From ErrorInfo: `APPROVAL_DECIDED`, …
    pub reason: Option<String>,
    /// From BadRequest: field and what is wrong with it.
    pub fields: Vec<(String, String)>,
    /// From RetryInfo.
    pub retry_after: Option<Duration>,
    /// From ErrorInfo: `outcome`, `standing_decision`, `resume_token` (base64), …
    pub facts: BTreeMap<String, String>,
}

impl From<&Status> for Refused {
    fn from(status: &Status) -> Refused {
        let details = status.get_error_details();
        let fields = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations.iter().map(|bad| (bad.field.clone(), bad.description.clone())).collect()
        });
        Refused {
            code: status.code(),
            message: status.message().to_owned(),
            reason: details.error_info().map(|info| info.reason.clone()).filter(|reason| !reason.is_empty()),
            fields,
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            facts: details.error_info().map_or_else(BTreeMap::new, |info| info.metadata.clone().into_iter().collect()),
        }
    }
}

impl Refused {
    /// The node did not answer, as opposed to: it said no. What was asked may have happened.
    pub fn is_unanswered(&self) -> bool {
        let says_why = self.reason.is_some() || !self.fields.is_empty();
        match self.code {
            Code::Unavailable => !says_why,
            Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded | Code::DataLoss => true,
            _ => false,
        }
    }

    /// As proto names write it: `FAILED_PRECONDITION`.
    pub fn code_name(&self) -> &'static str {
        match self.code {
            Code::Ok => "OK",
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// `FAILED_PRECONDITION (APPROVAL_DECIDED): …; field content: …; try again in 50 ms`.
impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code_name())?;
        if let Some(reason) = &self.reason {
            write!(f, " ({reason})")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        for (field, what) in &self.fields {
            write!(f, "; field {field}: {what}")?;
        }
        if let Some(delay) = self.retry_after {
            write!(f, "; try again in {} ms", delay.as_millis())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn refusals_name_reason_field_and_delay() {
        let mut details = ErrorDetails::with_error_info("OVERLOADED", "assent", std::collections::HashMap::new());
        details.set_retry_info(Some(Duration::from_millis(50)));
        let status = Status::with_error_details(Code::ResourceExhausted, "shard 0 is full", details);
        assert_eq!(
            Refused::from(&status).to_string(),
            "RESOURCE_EXHAUSTED (OVERLOADED): shard 0 is full; try again in 50 ms"
        );
        let details = ErrorDetails::with_bad_request_violation("content_hash", "64 hex digits");
        let status = Status::with_error_details(Code::InvalidArgument, "the request is not legal", details);
        let refused = Refused::from(&status);
        assert_eq!(refused.fields, [("content_hash".to_owned(), "64 hex digits".to_owned())]);
        assert!(!refused.is_unanswered());
        assert!(Refused::from(&Status::unavailable("connection reset")).is_unanswered());
    }

    #[test]
    fn endpoints_are_checked() {
        assert_eq!(
            Target::plain("localhost:9004").endpoint().expect("legal").uri().to_string(),
            "http://localhost:9004/"
        );
        for wrong in ["ftp://localhost", "http://", "https://localhost:9004"] {
            assert!(matches!(Target::plain(wrong).endpoint(), Err(Error::Usage(_))), "{wrong}");
        }
    }
}
