//! How far each log got, as Kafka says: the compacted topic of positions.
//!
//!     key           value                              written
//!     `log/ID`      last sequence published, decimal   with each transaction, for each of its logs
//!     `partitions`  partitions of the topic of events  once at first use, and by `repartition`
//!
//! Each record has the header `deployment`; one of another deployment is an error that names both.
//! One partition, compacted: after a newer record of its key an older one means nothing.

use super::failure::failure;
use super::listener::Listener;
use super::options::KafkaOptions;
use super::topics::Topics;
use crate::model::{LogId, Position};
use crate::sinks::Error;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PARTITIONS_KEY: &str = "partitions";
const LOG_KEY_PREFIX: &str = "log/";
const DEPLOYMENT_HEADER: &str = "deployment";
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl ConsumerContext for Listener {}

/// What the topic of positions says.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Cursor {
    /// Each log that was ever published, sealed ones too.
    pub positions: Vec<Position>,
    /// For how many partitions records were placed; None: nothing was ever published.
    pub partitions: Option<u32>,
}

/// A record of the cursor topic, before it is one.
pub struct CursorRecord {
    pub key: String,
    pub value: String,
}

impl CursorRecord {
    pub fn position(position: Position) -> CursorRecord {
        CursorRecord { key: format!("{LOG_KEY_PREFIX}{}", position.log.0), value: position.sequence.to_string() }
    }

    pub fn partitions(count: u32) -> CursorRecord {
        CursorRecord { key: PARTITIONS_KEY.into(), value: count.to_string() }
    }

    pub fn to<'a>(&'a self, topic: &'a str, deployment: &str) -> BaseRecord<'a, str, str> {
        let headers = OwnedHeaders::new().insert(Header { key: DEPLOYMENT_HEADER, value: Some(deployment) });
        BaseRecord::to(topic).partition(0).key(self.key.as_str()).payload(self.value.as_str()).headers(headers)
    }
}

/// Reads the topic from its beginning to its end, as transactions left it. Call after this sink's own
/// transaction is settled (`init_transactions`, or an abort).
///
/// Takes as long as `answer_timeout` for it to settle, and as long again to be read.
pub fn read(options: &KafkaOptions, topics: &Topics) -> Result<Cursor, Error> {
    let topic = options.cursor_topic();
    let mut config = options.client();
    config
        .set("group.id", options.transactional_id())
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed");
    let doing = format!("read the position from {topic}");
    let consumer: BaseConsumer<Listener> =
        config.create_with_context(Listener::default()).map_err(|error| failure(&doing, &error, None))?;
    let fail = |error: &KafkaError| failure(&doing, error, consumer.context().said());
    settled(options, topics, &consumer, &topic)?;

    let mut places = TopicPartitionList::new();
    places.add_partition_offset(&topic, 0, Offset::Beginning).map_err(|error| fail(&error))?;
    consumer.assign(&places).map_err(|error| fail(&error))?;
    let deadline = Instant::now() + options.answer_timeout;
    let (mut logs, mut partitions) = (BTreeMap::new(), None);
    while Instant::now() < deadline {
        match consumer.poll(LOOK_EVERY) {
            None => {}
            Some(Ok(record)) => note(options, &topic, &record, &mut logs, &mut partitions)?,
            Some(Err(KafkaError::PartitionEOF(_))) => {
                let position = |(log, sequence)| Position { log: LogId(log), sequence };
                return Ok(Cursor { positions: logs.into_iter().map(position).collect(), partitions });
            }
            Some(Err(error)) => return Err(fail(&error)),
        }
    }
    let said = consumer.context().said().map(|said| format!(" ({said})")).unwrap_or_default();
    Err(Error::Unavailable(format!("{doing}: not at its end after {:?}{said}", options.answer_timeout)))
}

/// Waits until no transaction is open on the topic: before that a committed position may be hidden
/// behind the beginning of somebody else's, and an old one would be taken for the newest.
fn settled(
    options: &KafkaOptions,
    topics: &Topics,
    consumer: &BaseConsumer<Listener>,
    topic: &str,
) -> Result<(), Error> {
    let doing = format!("look for the end of {topic}");
    let deadline = Instant::now() + options.answer_timeout;
    loop {
        let (_, written) = topics.watermarks(topic, 0)?;
        let (_, stable) = consumer
            .fetch_watermarks(topic, 0, options.answer_timeout)
            .map_err(|error| failure(&doing, &error, consumer.context().said()))?;
        if stable >= written {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::Unavailable(format!(
                "a transaction of somebody else is open on {topic} since offset {stable}: the position cannot be \
                 known before it ends"
            )));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn note(
    options: &KafkaOptions,
    topic: &str,
    record: &BorrowedMessage<'_>,
    logs: &mut BTreeMap<u64, u64>,
    partitions: &mut Option<u32>,
) -> Result<(), Error> {
    let ours = options.deployment_text();
    let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
    let theirs = headers.filter(|header| header.key == DEPLOYMENT_HEADER).find_map(|header| header.value);
    let theirs = theirs.map_or_else(|| "no deployment".into(), |value| String::from_utf8_lossy(value).into_owned());
    if theirs != ours {
        return Err(Error::Stopped(format!(
            "{topic} holds a position of deployment {theirs}, and this node is deployment {ours}: give each its own \
             kafka.topic_prefix"
        )));
    }
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let (key, value) = (text(record.key()), text(record.payload()));
    let unknown = || {
        Error::Stopped(format!(
            "{topic} holds at offset {} a record that is no position (key {key:?}, value {value:?}): who wrote it?",
            record.offset()
        ))
    };
    match key.strip_prefix(LOG_KEY_PREFIX) {
        Some(log) => {
            let (Ok(log), Ok(sequence)) = (log.parse(), value.parse()) else { return Err(unknown()) };
            logs.insert(log, sequence);
        }
        None if key == PARTITIONS_KEY => *partitions = Some(value.parse().map_err(|_| unknown())?),
        None => return Err(unknown()),
    }
    Ok(())
}
