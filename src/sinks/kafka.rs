//! Into Kafka: every event as a record of `approval-events`, exactly once for read_committed consumers.
//!
//! A batch and the position behind each of its runs (a record a log in the compacted topic
//! `approval-events-cursor`) are one transaction, under one `transactional.id` a data folder.
//! [`KafkaSink::resume`] takes that id (`init_transactions`): what an earlier life left open is
//! aborted, what it had committed is finished, and it is fenced from then on. The position is then
//! read back as transactions left it, so that nothing rests on what a lost answer said.
//!
//! The idempotent producer alone is not enough: requests of a killed process may land late, and its
//! state is gone with it. Left to others: reading the journal, retries, backoff (the pump).

mod cursor;
mod failure;
mod listener;
mod options;
mod record;
mod repartition;
mod topics;

pub use options::{KafkaOptions, PARTITIONS_WHEN_MADE, RECORD_BYTES_MAX, decided_by};
pub use record::{CONTENT_TYPE, SCHEMA_VERSION};
pub use repartition::{Repartitioned, repartition};

use super::{Batch, BatchLimits, Error, Sink};
use crate::model::Position;
use cursor::CursorRecord;
use failure::{failure, failure_of, is_fenced};
use listener::Listener;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use record::RecordWriter;
use std::time::{Duration, Instant};
use topics::Topics;

/// A full queue is looked at again this soon, and so is one that must become empty.
const QUEUE_POLL: Duration = Duration::from_millis(1);
/// Records between two looks at what failed.
const RECORDS_A_POLL: usize = 4_096;
/// Errors that a client has queued before it is asked why something took too long.
const ERRORS_QUEUED_MAX: usize = 16;

/// One destination: the topics of one deployment.
pub struct KafkaSink {
    options: KafkaOptions,
    events_topic: String,
    cursor_topic: String,
    /// Holds the transactional id; none before the first [`Sink::resume`] and after what it cannot recover from.
    producer: Option<BaseProducer<Listener>>,
    writer: RecordWriter,
}

impl KafkaSink {
    /// Connects to nothing yet.
    pub fn new(options: KafkaOptions) -> KafkaSink {
        KafkaSink {
            events_topic: options.events_topic(),
            cursor_topic: options.cursor_topic(),
            writer: RecordWriter::new(options.deployment_text()),
            producer: None,
            options,
        }
    }

    /// Takes the transactional id: whoever had it is fenced, and what it left open is settled.
    fn take_over(&self) -> Result<BaseProducer<Listener>, Error> {
        let doing = format!("take {} over", self.options.transactional_id());
        let producer: BaseProducer<Listener> = (self.options.producer())
            .create_with_context(Listener::default())
            .map_err(|error| failure("set the Kafka client up", &error, None))?;
        let deadline = Instant::now() + self.options.answer_timeout;
        while let Err(error) = producer.init_transactions(deadline.saturating_duration_since(Instant::now())) {
            let retriable = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
            if !retriable || Instant::now() >= deadline {
                return Err(failure(&doing, &error, said(&producer)));
            }
            pause(&producer);
        }
        Ok(producer)
    }

    /// Refuses what would break order or mix deployments.
    fn check_partitions(&self, topics: &Topics, found: u32, recorded: Option<u32>) -> Result<(), Error> {
        let topic = &self.events_topic;
        if let Some(recorded) = recorded.filter(|recorded| *recorded != found) {
            return Err(Error::Stopped(format!(
                "{topic} has {found} partitions, and its records were placed for {recorded}: `assent kafka repartition` \
                 accepts that; the order of an approval's events breaks there"
            )));
        }
        if let Some(wanted) = self.options.partitions.filter(|wanted| *wanted != found) {
            return Err(Error::Stopped(format!(
                "{topic} has {found} partitions, and kafka.partitions says {wanted}: set it to {found}, or change the \
                 topic with `assent kafka repartition`"
            )));
        }
        if recorded.is_none() {
            for partition in 0..found {
                let (_, end) = topics.watermarks(topic, partition as i32)?;
                if end > 0 {
                    return Err(Error::Stopped(format!(
                        "{topic} holds records, and {} says nothing of how far they go: another deployment's, or the \
                         positions were deleted; choose another kafka.topic_prefix, or delete {topic}",
                        self.cursor_topic
                    )));
                }
            }
        }
        Ok(())
    }

    /// One transaction. What it leaves behind when it fails, [`KafkaSink::settle`] sees to.
    fn transact(&mut self, batch: &Batch, partitions: Option<u32>, deadline: Instant) -> Result<(), KafkaError> {
        let producer = self.producer.as_ref().expect("the caller looked");
        let writer = &mut self.writer;
        let deployment = self.options.deployment_text();
        producer.begin_transaction()?;
        let mut sent = 0;
        for run in &batch.runs {
            writer.begin(run.log);
            for event in &run.events {
                let (key, value, headers) = writer.write(event, run.log);
                let record = BaseRecord::to(&self.events_topic).key(key).payload(value).headers(headers);
                send(producer, record, deadline)?;
                sent += 1;
                if sent % RECORDS_A_POLL == 0 {
                    producer.poll(Duration::ZERO);
                }
            }
        }
        let positions = batch.runs.iter().map(|run| CursorRecord::position(run.after()));
        for record in positions.chain(partitions.map(CursorRecord::partitions)) {
            send(producer, record.to(&self.cursor_topic, &deployment), deadline)?;
        }
        commit(producer, deadline)
    }

    /// Ends the transaction that failed, keeps the producer if it still can work, and says what it means.
    fn settle(&mut self, error: &KafkaError, began: Instant) -> Error {
        let producer = self.producer.take().expect("it just failed");
        let said = said(&producer);
        let fatal = producer.client().fatal_error();
        let code = fatal.as_ref().map(|(code, _)| *code).or_else(|| error.rdkafka_error_code());
        if code.is_some_and(is_fenced) {
            let id = self.options.transactional_id();
            // A broker that gave the transaction up fences its producer too: the id is then still ours to take.
            return match began.elapsed() < self.options.transaction_timeout {
                true => Error::Stopped(format!(
                    "another process took {id} over: a copy of this data folder runs elsewhere; stop one of them"
                )),
                false => Error::Unavailable(format!("the broker gave the transaction of {id} up: it took too long")),
            };
        }
        let lost = producer.context().lost();
        if fatal.is_none() && producer.abort_transaction(self.options.answer_timeout).is_ok() {
            self.producer = Some(producer);
        }
        match (lost, fatal) {
            (Some((code, topic)), _) => failure_of(&format!("write to {topic}"), code, &code.to_string(), said),
            (None, Some((code, text))) => failure_of("commit to Kafka", code, &text, said),
            (None, None) => failure("commit to Kafka", error, said),
        }
    }

    fn deliver_with(&mut self, batch: &Batch, partitions: Option<u32>) -> Result<(), Error> {
        let Some(producer) = &self.producer else {
            return Err(Error::Unavailable("not connected to Kafka".into()));
        };
        // What an earlier transaction lost says nothing of this one.
        let _earlier = producer.context().lost();
        let began = Instant::now();
        let deadline = began + self.options.transaction_timeout;
        self.transact(batch, partitions, deadline).map_err(|error| self.settle(&error, began))
    }
}

impl Sink for KafkaSink {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits {
            events_max: self.options.transaction_events_max,
            // The rest of the queue is room for keys and headers.
            bytes_max: self.options.queue_bytes_max / 2,
            linger: self.options.linger,
        }
    }

    /// Blocks for a few times `answer_timeout` at most.
    fn resume(&mut self) -> Result<Vec<Position>, Error> {
        let topics = Topics::connect(&self.options)?;
        let partitions = topics.ensure(&self.options)?;
        if self.producer.is_none() {
            self.producer = Some(self.take_over()?);
        }
        let found = cursor::read(&self.options, &topics)?;
        self.check_partitions(&topics, partitions, found.partitions)?;
        if found.partitions.is_none() {
            self.deliver_with(&Batch::default(), Some(partitions))?;
        }
        Ok(found.positions)
    }

    /// Blocks for `transaction_timeout` at most, and for `answer_timeout` more when it has to be aborted.
    fn deliver(&mut self, batch: &Batch) -> Result<(), Error> {
        self.deliver_with(batch, None)
    }
}

/// Lets the client's own threads work. Its `poll` cannot wait as short as this: below a millisecond it asks again and
/// again, and takes a core from the threads that it waits for.
fn pause(producer: &BaseProducer<Listener>) {
    producer.poll(Duration::ZERO);
    std::thread::sleep(QUEUE_POLL);
}

/// Hands a record to the client; a full queue is waited for.
fn send<K, V>(
    producer: &BaseProducer<Listener>,
    mut record: BaseRecord<'_, K, V>,
    deadline: Instant,
) -> Result<(), KafkaError>
where
    K: rdkafka::message::ToBytes + ?Sized,
    V: rdkafka::message::ToBytes + ?Sized,
{
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if Instant::now() < deadline => {
                pause(producer);
                record = back;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Waits until every record is with the broker, and commits.
///
/// `commit_transaction` would wait too, but looks every 100 ms only: an idle node's commit would take that long.
fn commit(producer: &BaseProducer<Listener>, deadline: Instant) -> Result<(), KafkaError> {
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        pause(producer);
    }
    loop {
        match producer.commit_transaction(deadline.saturating_duration_since(Instant::now())) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                pause(producer);
            }
            other => return other,
        }
    }
}

/// The newest sentence of the client about its brokers.
fn said(producer: &BaseProducer<Listener>) -> Option<String> {
    for _ in 0..ERRORS_QUEUED_MAX {
        producer.poll(Duration::ZERO);
    }
    producer.context().said()
}
