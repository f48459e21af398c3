//! The slot of one answer. Dropped unanswered (a shard that died), it tells the one who waits.

use tokio::sync::oneshot;

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
}
