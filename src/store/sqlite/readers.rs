//! Connections that read, each on a thread of its own behind one bounded queue.
//!
//! SQLite blocks, the fronts must not. Each read gets a deadline when it is asked for: one still
//! waiting then is answered without being begun, one under way is stopped by SQLite's progress handler.

use super::error::{at_open, of};
use super::{Options, connect_reader};
use crate::store::Error;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Steps of SQLite's machine between two looks at the clock: some 20 µs.
const STEPS_PER_LOOK: i32 = 2_000;

/// Reads and answers; `None`: its time is up.
type Run = dyn FnOnce(Option<&Connection>) + Send;

/// A read on its way to a connection.
struct Read {
    deadline: Instant,
    run: Box<Run>,
}

/// The threads. Dropped, it stops what they do and waits for them.
pub struct Readers {
    queue: Option<Sender<Read>>,
    timeout: Duration,
    closing: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub fn start(options: &Options) -> Result<Readers, Error> {
        let (queue, reads) = bounded(options.reads_waiting_max);
        let closing = Arc::new(AtomicBool::new(false));
        // From here on whatever fails ends the threads that are there.
        let mut readers = Readers {
            queue: Some(queue),
            timeout: options.read_timeout,
            closing: closing.clone(),
            threads: Vec::new(),
        };
        for number in 0..options.readers.max(1) {
            let connection = connect_reader(options)?;
            let (reads, closing) = (reads.clone(), closing.clone());
            let thread = thread::Builder::new().name(format!("archive-read-{number}"));
            let thread = thread.spawn(move || serve(&connection, &reads, &closing));
            readers.threads.push(thread.map_err(|error| Error::Stopped(format!("no thread for reads: {error}")))?);
        }
        Ok(readers)
    }

    /// Runs this on one of the connections, in a snapshot of its own.
    pub fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Error>> {
        let (answer, answered) = oneshot::channel();
        let run = move |connection: Option<&Connection>| {
            // Whoever asked has gone: nobody needs it.
            if !answer.is_closed() {
                let _ = answer.send(connection.map_or_else(|| Err(late()), |connection| in_snapshot(connection, read)));
            }
        };
        let sent = match &self.queue {
            Some(queue) => queue.try_send(Read { deadline: Instant::now() + self.timeout, run: Box::new(run) }),
            None => return Box::pin(async { Err(closed()) }),
        };
        Box::pin(async move {
            match sent {
                Ok(()) => answered.await.unwrap_or_else(|_| Err(closed())),
                Err(TrySendError::Full(_)) => Err(Error::Unavailable("too many reads are waiting: try again".into())),
                Err(TrySendError::Disconnected(_)) => Err(closed()),
            }
        })
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(connection: &Connection, reads: &Receiver<Read>, closing: &Arc<AtomicBool>) {
    for read in reads {
        if closing.load(Ordering::Relaxed) {
            continue;
        }
        let (deadline, closing) = (read.deadline, closing.clone());
        let stop = move || Instant::now() >= deadline || closing.load(Ordering::Relaxed);
        let watched = !stop() && connection.progress_handler(STEPS_PER_LOOK, Some(stop)).is_ok();
        (read.run)(watched.then_some(connection));
    }
}

/// All that one read sees is of one moment.
fn in_snapshot<T>(connection: &Connection, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
    let snapshot = connection.unchecked_transaction().map_err(at_open)?;
    let found = read(&snapshot);
    snapshot.finish().map_err(|error| of(&error))?;
    found
}

fn late() -> Error {
    Error::Unavailable("the read waited too long for its turn: try again".into())
}

fn closed() -> Error {
    Error::Unavailable("the archive is closing".into())
}
