//! What checkHealth and streamMetrics say, from the same instruments as /metrics.

use crate::grpc::Facts;
use crate::health::{Health, State};
use crate::metrics::{Method, Metrics, REASONS};
use crate::model::{Micros, Reason};
use crate::wire::{timestamp, v1};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct NodeFacts {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    deployment: [u8; 16],
}

impl NodeFacts {
    pub fn new(metrics: Arc<Metrics>, health: Arc<Health>, deployment: [u8; 16]) -> NodeFacts {
        NodeFacts { metrics, health, deployment }
    }
}

fn state(state: State) -> i32 {
    state as i32
}

impl Facts for NodeFacts {
    fn health(&self) -> v1::HealthCheckResponse {
        let components = self.health.components().into_iter().map(|component| v1::ComponentHealth {
            name: component.name,
            state: state(component.state),
            message: component.message,
        });
        let identity = &self.metrics.identity;
        v1::HealthCheckResponse {
            state: state(self.health.state()),
            version: identity.version.into(),
            durability: identity.durability.into(),
            shards: identity.shards as u32,
            components: components.collect(),
            metrics: Some(self.metrics()),
            deployment_id: uuid::Uuid::from_bytes(self.deployment).to_string(),
            started_at: Some(timestamp(Micros((identity.started_at_seconds * 1e6) as u64))),
        }
    }

    fn metrics(&self) -> v1::ServiceMetrics {
        let totals = self.metrics.totals();
        let counted = (1..REASONS.len()).filter(|reason| totals.refused[*reason] > 0);
        v1::ServiceMetrics {
            total_requests_submitted: totals.requests_submitted,
            total_responses_received: totals.responses_received,
            total_events_emitted: totals.events_emitted,
            active_approvals: totals.active_approvals,
            average_latency_ms: totals.average_latency_ms,
            total_approved: totals.approved,
            total_rejected: totals.rejected,
            total_expired: totals.expired,
            refused_by_reason: counted
                .map(|reason| v1::RefusalCount { reason: reason as i32, count: totals.refused[reason] })
                .collect(),
            total_repeats: totals.repeats,
            approvals_in_memory: totals.approvals_in_memory,
            validators_known: totals.validators_known,
            watchers: totals.watchers,
            journal_bytes: totals.journal_bytes,
            rss_bytes: totals.process.rss_bytes,
            cpu_seconds: totals.process.cpu_seconds,
            uptime_seconds: totals.uptime_seconds,
        }
    }

    fn answered(&self, elapsed: Duration) {
        self.metrics.front.unary_seconds.record(elapsed.as_nanos() as u64);
    }

    fn request_refused(&self, reason: Reason) {
        self.metrics.front.requests_refused.add(reason.number(), 1);
    }

    fn vote_refused(&self, reason: Reason) {
        self.metrics.front.votes_refused.add(reason.number(), 1);
    }

    fn request_repeated(&self) {
        self.metrics.front.request_repeats.increment();
    }

    fn vote_repeated(&self) {
        self.metrics.front.vote_repeats.increment();
    }

    fn looked_up(&self) {
        self.metrics.front.look_ups.increment();
    }

    fn call_ended(&self, method: Method, code: u32) {
        self.metrics.front.call_ended(method, code);
    }

    fn stream_is_open(&self, open: bool) {
        let streams = &self.metrics.front.streams;
        if open { streams.add(1) } else { streams.subtract(1) }
    }
}
