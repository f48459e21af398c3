//! What an error of the client means: try again, or call an operator.

use crate::sinks::Error;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// The pump's word for an error while `doing` something; `said` is what the client said beside it.
pub fn failure(doing: &str, error: &KafkaError, said: Option<String>) -> Error {
    match error.rdkafka_error_code() {
        Some(code) => failure_of(doing, code, &error.to_string(), said),
        None => stopped_or(matches!(error, KafkaError::ClientConfig(..)), format!("{doing}: {error}")),
    }
}

/// The same for a bare code.
pub fn failure_of(doing: &str, code: Code, text: &str, said: Option<String>) -> Error {
    let beside = said.map(|said| format!(" ({said})")).unwrap_or_default();
    let advice = advice(code);
    stopped_or(advice.is_some(), format!("{doing}: {text}{beside}{}", advice.unwrap_or_default()))
}

fn stopped_or(stopped: bool, message: String) -> Error {
    if stopped { Error::Stopped(message) } else { Error::Unavailable(message) }
}

/// Whether a newer producer took the transactional id over.
pub fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// What no retry mends, and what to do about it; None: trying again may help.
fn advice(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => {
            ": allow this user to create, describe, read and write the topics, and to use the transactional id"
        }
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
            ": check kafka.sasl_username, kafka.sasl_password_file and kafka.sasl_mechanism"
        }
        Code::SSL => ": check kafka.security and kafka.tls_ca",
        Code::MessageSizeTooLarge => {
            ": the topic takes smaller records only; set its max.message.bytes to 4194304 or more"
        }
        Code::InvalidTransactionTimeout => {
            ": kafka.transaction_timeout_seconds is above the broker's transaction.max.timeout.ms"
        }
        Code::InvalidReplicationFactor => ": set kafka.replication to at most the number of brokers",
        Code::PolicyViolation | Code::InvalidConfig | Code::InvalidPartitions => {
            ": the cluster refuses to make the topic so; make it by hand, or change the settings"
        }
        Code::UnsupportedFeature | Code::UnsupportedVersion => {
            ": this broker has no transactions; Kafka 2.5 or newer is needed"
        }
        Code::InvalidTopic => ": kafka.topic_prefix makes no legal name",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_retry_mends_stops_and_says_what_to_do() {
        let check = |code, stops: bool| {
            let stopped = matches!(failure_of("commit", code, "text", None), Error::Stopped(_));
            assert_eq!(stopped, stops, "{code:?}");
        };
        check(Code::BrokerTransportFailure, false);
        check(Code::OperationTimedOut, false);
        check(Code::CoordinatorNotAvailable, false);
        check(Code::NotEnoughReplicas, false);
        check(Code::TopicAuthorizationFailed, true);
        check(Code::MessageSizeTooLarge, true);
        check(Code::InvalidTransactionTimeout, true);
        let said = failure_of("commit", Code::AllBrokersDown, "down", Some("refused".into()));
        assert_eq!(said, Error::Unavailable("commit: down (refused)".into()));
    }
}
