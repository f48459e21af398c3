//! What librdkafka says on its own: kept until somebody who handles an error asks for it.

use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message};
use std::sync::{Mutex, PoisonError};

/// The newest sentence about a broker, and the first record that was not taken.
#[derive(Default)]
pub struct Listener {
    said: Mutex<Option<String>>,
    lost: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Listener {
    /// What was said since somebody asked last.
    pub fn said(&self) -> Option<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why the first record since somebody asked last was not taken, and its topic.
    pub fn lost(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Listener {
    /// Its lines are for those who look for them: what matters comes back as an error, and is logged there.
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("librdkafka: {facility} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {error}: {reason}");
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, record)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.get_or_insert_with(|| (code, record.topic().to_string()));
        }
    }
}
