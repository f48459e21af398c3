//! The end, announced: streams acknowledge what is in flight and end, new calls are refused.

use crate::model::Refusal;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::watch;
use tonic::Status;

/// Held by the server.
pub struct Stopper(watch::Sender<bool>);

/// Held by every call.
#[derive(Clone)]
pub struct Stopping(watch::Receiver<bool>);

pub fn stopping() -> (Stopper, Stopping) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stopping(receiver))
}

impl Stopper {
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stopping {
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for it; a stopper that was dropped never comes.
    pub async fn wait(mut self) {
        if self.0.wait_for(|set| *set).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub fn status() -> Status {
        super::status::status(&Refusal::Stopping)
    }
}

/// When a call's own time is up, or the node's.
pub(super) struct Ends {
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    deadline: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// Why a stream ends early.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Stopping,
    Deadline,
}

impl Ends {
    pub fn new(stopping: &Stopping, deadline: Option<super::Deadline>) -> Ends {
        Ends {
            stop: Some(Box::pin(stopping.clone().wait())),
            deadline: deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline.0.into()))),
        }
    }

    /// Ready once for each reason.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.deadline = None;
            return Poll::Ready(End::Deadline);
        }
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(context).is_ready()
        {
            self.stop = None;
            return Poll::Ready(End::Stopping);
        }
        Poll::Pending
    }
}
