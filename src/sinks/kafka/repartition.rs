//! An operator's word that the topic of events has another number of partitions from here on.

use super::cursor::{self, CursorRecord};
use super::failure::{failure, failure_of};
use super::listener::Listener;
use super::options::KafkaOptions;
use super::topics::Topics;
use crate::sinks::Error;
use rdkafka::producer::{BaseProducer, Producer};
use std::fmt;

/// What [`repartition`] found and did.
#[derive(Debug, Eq, PartialEq)]
pub struct Repartitioned {
    pub topic: String,
    /// For how many partitions records were placed before; None: none ever were.
    pub before: Option<u32>,
    pub now: u32,
}

impl fmt::Display for Repartitioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.before {
            Some(before) if before != self.now => write!(
                f,
                "{}: {} partitions from here on ({before} before). The order of an approval's events breaks here: later \
                 ones may lie in another partition than earlier ones, and a consumer may see them first",
                self.topic, self.now
            ),
            _ => write!(f, "{}: {} partitions, as before; nothing changes", self.topic, self.now),
        }
    }
}

/// Brings the topic to `options.partitions` where that is more than it has, and accepts what it has then.
///
/// Takes no transactional id: a node that runs is not fenced, and goes on at its next start or retry.
pub fn repartition(options: &KafkaOptions) -> Result<Repartitioned, Error> {
    let topic = options.events_topic();
    let topics = Topics::connect(options)?;
    if topics.partitions(&topic)?.is_none() || topics.partitions(&options.cursor_topic())?.is_none() {
        return Err(Error::Stopped(format!("{topic} or its positions are not there: a node makes them at its start")));
    }
    let before = cursor::read(options, &topics)?.partitions;
    let mut now = topics.ensure(options)?;
    if let Some(wanted) = options.partitions {
        if wanted < now {
            return Err(Error::Stopped(format!(
                "{topic} has {now} partitions and kafka.partitions says {wanted}: Kafka takes none away; set it to {now} \
                 or more"
            )));
        }
        if wanted > now {
            topics.add_partitions(&topic, wanted)?;
            now = wanted;
        }
    }
    if before != Some(now) {
        record(options, now)?;
    }
    Ok(Repartitioned { topic, before, now })
}

fn record(options: &KafkaOptions, count: u32) -> Result<(), Error> {
    let topic = options.cursor_topic();
    let doing = format!("write to {topic}");
    let mut config = options.client();
    options.writing(&mut config);
    config.set("message.timeout.ms", options.answer_timeout.as_millis().to_string());
    let producer: BaseProducer<Listener> =
        config.create_with_context(Listener::default()).map_err(|error| failure(&doing, &error, None))?;
    let record = CursorRecord::partitions(count);
    producer
        .send(record.to(&topic, &options.deployment_text()))
        .map_err(|(error, _)| failure(&doing, &error, producer.context().said()))?;
    let flushed = producer.flush(options.answer_timeout);
    let listener = producer.context();
    if let Some((code, _)) = listener.lost() {
        return Err(failure_of(&doing, code, &code.to_string(), listener.said()));
    }
    flushed.map_err(|error| failure(&doing, &error, listener.said()))
}
