//! The two topics: made when they are not there, looked at when they are.

use super::failure::{failure, failure_of};
use super::listener::Listener;
use super::options::{KafkaOptions, PARTITIONS_WHEN_MADE, RECORD_BYTES_MAX};
use crate::sinks::Error;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::future::Future;
use std::time::{Duration, Instant};

/// Segments of the topic of positions: compaction leaves the newest one alone, and a start reads it.
const CURSOR_SEGMENT_BYTES: &str = "16777216";
/// A topic that was just made is known to every broker soon.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An operator's hands on the cluster. Every call takes `answer_timeout` at most.
pub struct Topics {
    admin: AdminClient<Listener>,
    answer_timeout: Duration,
}

impl Topics {
    pub fn connect(options: &KafkaOptions) -> Result<Topics, Error> {
        // Watermarks then tell the end as written, not as committed.
        let mut config = options.client();
        config.set("isolation.level", "read_uncommitted");
        let admin = config
            .create_with_context(Listener::default())
            .map_err(|error| failure(&format!("connect to {}", options.brokers), &error, None))?;
        Ok(Topics { admin, answer_timeout: options.answer_timeout })
    }

    /// Makes what is missing, checks what is there; how many partitions the topic of events has.
    pub fn ensure(&self, options: &KafkaOptions) -> Result<u32, Error> {
        let (events, cursor) = (options.events_topic(), options.cursor_topic());
        let replication = || TopicReplication::Fixed(options.replication.map_or(-1, |copies| copies as i32));
        let record_bytes_max = RECORD_BYTES_MAX.to_string();
        let partitions = match self.partitions(&events)? {
            Some(partitions) => {
                self.check_record_size(&events)?;
                partitions
            }
            None => {
                let partitions = options.partitions.unwrap_or(PARTITIONS_WHEN_MADE);
                let topic = NewTopic::new(&events, partitions as i32, replication());
                self.create(topic.set("max.message.bytes", &record_bytes_max), &events)?
            }
        };
        match self.partitions(&cursor)? {
            Some(1) => self.check_compacted(&cursor)?,
            Some(count) => {
                return Err(Error::Stopped(format!("{cursor} must have one partition, and has {count}: make it anew")));
            }
            None => {
                let topic = NewTopic::new(&cursor, 1, replication())
                    .set("cleanup.policy", "compact")
                    .set("segment.bytes", CURSOR_SEGMENT_BYTES)
                    .set("min.cleanable.dirty.ratio", "0.1");
                self.create(topic, &cursor)?;
            }
        }
        Ok(partitions)
    }

    /// None: there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<Option<u32>, Error> {
        let doing = format!("look at {topic}");
        // Of all topics: asking for one by name would make it, on brokers that make topics by themselves.
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(None, self.answer_timeout)
            .map_err(|error| failure(&doing, &error, self.said()))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        match found.error().map(Code::from) {
            None => Ok(Some(found.partitions().len() as u32)),
            Some(Code::UnknownTopicOrPartition) => Ok(None),
            Some(code) => Err(failure_of(&doing, code, &code.to_string(), self.said())),
        }
    }

    /// The first offset held and the one behind the last, of what is written, committed or not.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        let doing = format!("look for the end of {topic}");
        let found = self.admin.inner().fetch_watermarks(topic, partition, self.answer_timeout);
        found.map_err(|error| failure(&doing, &error, self.said()))
    }

    /// Adds partitions up to this many.
    pub fn add_partitions(&self, topic: &str, count: u32) -> Result<(), Error> {
        let doing = format!("add partitions to {topic}");
        let wanted = NewPartitions::new(topic, count as usize);
        let answer = self.wait(&doing, self.admin.create_partitions([&wanted], &self.request()))?;
        for answer in answer {
            answer.map_err(|(_, code)| failure_of(&doing, code, &code.to_string(), self.said()))?;
        }
        self.wait_for(topic, |found| found == Some(count)).map(drop)
    }

    fn create(&self, topic: NewTopic<'_>, name: &str) -> Result<u32, Error> {
        let doing = format!("make the topic {name}");
        for answer in self.wait(&doing, self.admin.create_topics([&topic], &self.request()))? {
            match answer {
                // Somebody else was faster: what is there is looked at like any other.
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failure_of(&doing, code, &code.to_string(), self.said())),
            }
        }
        self.wait_for(name, |found| found.is_some_and(|count| count > 0))
    }

    fn wait_for(&self, topic: &str, reached: impl Fn(Option<u32>) -> bool) -> Result<u32, Error> {
        let deadline = Instant::now() + self.answer_timeout;
        loop {
            let found = self.partitions(topic)?;
            if reached(found) {
                return Ok(found.unwrap_or_default());
            }
            if Instant::now() >= deadline {
                return Err(Error::Unavailable(format!("{topic} was made, and is not to be seen yet")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn check_compacted(&self, topic: &str) -> Result<(), Error> {
        match self.config(topic, "cleanup.policy")?.as_deref() {
            Some("compact") => Ok(()),
            policy => Err(Error::Stopped(format!(
                "{topic} must have cleanup.policy=compact, and has {}: positions in it would be deleted; set it with \
                 kafka-configs.sh",
                policy.unwrap_or("none")
            ))),
        }
    }

    fn check_record_size(&self, topic: &str) -> Result<(), Error> {
        let limit = self.config(topic, "max.message.bytes")?.and_then(|text| text.parse::<usize>().ok());
        if let Some(limit) = limit.filter(|limit| *limit < RECORD_BYTES_MAX) {
            // Most events are far smaller; one that is not stops the sink, and nothing is lost.
            tracing::warn!(
                "{topic} takes records of {limit} bytes at most (max.message.bytes): an opening with more content or \
                 validators would stop this sink; {RECORD_BYTES_MAX} holds every event"
            );
        }
        Ok(())
    }

    fn config(&self, topic: &str, name: &str) -> Result<Option<String>, Error> {
        let doing = format!("look at the configuration of {topic}");
        let asked = ResourceSpecifier::Topic(topic);
        let answers = self.wait(&doing, self.admin.describe_configs([&asked], &self.request()))?;
        let mut found = None;
        for answer in answers {
            let resource = answer.map_err(|code| failure_of(&doing, code, &code.to_string(), self.said()))?;
            found = resource.get(name).and_then(|entry| entry.value.clone());
        }
        Ok(found)
    }

    fn request(&self) -> AdminOptions {
        let timeout = Some(self.answer_timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }

    /// librdkafka ends every request by itself at its timeout.
    fn wait<T>(&self, doing: &str, answer: impl Future<Output = rdkafka::error::KafkaResult<T>>) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| Error::Unavailable(format!("{doing}: {error}")))?;
        runtime.block_on(answer).map_err(|error| failure(doing, &error, self.said()))
    }

    fn said(&self) -> Option<String> {
        self.admin.inner().context().said()
    }
}
