//! The slot of one answer. Dropped unanswered (a shard that died), it tells the one who waits.

use super::Wait;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// Where the answer goes; used once.
pub struct ReplySlot<T>(oneshot::Sender<T>);

/// Who waits for it.
pub struct Reply<T>(oneshot::Receiver<T>);

pub fn reply<T>() -> (ReplySlot<T>, Reply<T>) {
    let (sender, receiver) = oneshot::channel();
    (ReplySlot(sender), Reply(receiver))
}

impl<T> ReplySlot<T> {
    /// The asker may have gone (deadline, lost connection): then the answer is dropped, and it asks again.
    pub fn answer(self, answer: T) {
        let _asker_gone = self.0.send(answer);
    }

    pub fn is_asker_gone(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T> Reply<T> {
    /// `None`: the shard went away without an answer; what was asked is unknown.
    pub async fn wait(self) -> Option<T> {
        self.0.await.ok()
    }

    /// The same, for an answer that may come soon.
    pub async fn wait_awake(mut self, wait: Wait) -> Option<T> {
        poll_fn(|context| {
            if !wait.looks_again(context) {
                return Pin::new(&mut self.0).poll(context).map(Result::ok);
            }
            // Looked at without leaving a waker: who is awake needs no wake-up, which is most of what answering costs.
            match self.0.try_recv() {
                Ok(answer) => Poll::Ready(Some(answer)),
                Err(TryRecvError::Closed) => Poll::Ready(None),
                Err(TryRecvError::Empty) => Poll::Pending,
            }
        })
        .await
    }
}
