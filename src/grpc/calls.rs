//! Counts how calls end: by method, and by the code that the client was sent.
//!
//! A unary answer's code stands in its head, or is OK. A stream's comes with its trailers: its body is
//! looked through as it passes. What ends before that was left by the client: CANCELLED. (A stream upwards
//! whose client goes away reads as one that it closed, and may end with OK first.)

use super::Facts;
use crate::metrics::{METHODS, Method};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::body::Body;
use tonic::{Code, Status};

/// The method of this name, without the service's.
pub(super) fn method_of(name: &str) -> Option<Method> {
    METHODS.iter().position(|method| *method == name).map(|number| Method::ALL[number])
}

const fn streams_down(method: Method) -> bool {
    use Method::*;
    matches!(method, WatchApprovalUpdates | StreamPendingApprovals | BidirectionalApprovalStream | StreamMetrics)
}

const fn streams_up(method: Method) -> bool {
    matches!(method, Method::BatchSubmitResponses | Method::BidirectionalApprovalStream)
}

/// A call that has not ended yet.
pub(super) struct Call {
    method: Method,
    facts: Arc<dyn Facts>,
    code: Code,
}

impl Call {
    pub fn new(method: Method, facts: Arc<dyn Facts>) -> Call {
        if streams_up(method) {
            facts.stream_is_open(true);
        }
        Call { method, facts, code: Code::Cancelled }
    }

    /// Its head is here; a stream's call goes on with its body.
    pub fn answered(mut self, answer: http::Response<Body>) -> http::Response<Body> {
        match Status::from_header_map(answer.headers()) {
            Some(status) => self.code = status.code(),
            None if streams_down(self.method) => return answer.map(|body| Body::new(Counted { body, call: self })),
            None => self.code = Code::Ok,
        }
        answer
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.facts.call_ended(self.method, self.code as u32);
        if streams_up(self.method) {
            self.facts.stream_is_open(false);
        }
    }
}

/// A stream's body, which ends its call.
struct Counted {
    body: Body,
    call: Call,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.call.code = status.code();
                }
            }
            Some(Err(status)) => self.call.code = status.code(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_name() {
        for (number, name) in METHODS.iter().enumerate() {
            assert_eq!(method_of(name).map(|method| format!("{method:?}")), Some(METHODS[number].to_string()));
        }
        assert_eq!(method_of("Unknown"), None);
    }
}
