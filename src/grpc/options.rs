//! What the front may take: limits of messages and streams, and the connection's settings.

use crate::model::CONTENT_BYTES_CEILING;
use std::time::Duration;
use tonic::transport::Server;

/// Bounds on what one call may ask for. The names are those of the settings.
#[derive(Clone, Debug)]
pub struct Limits {
    pub content_bytes_max: usize,
    /// Votes in one batch.
    pub batch_items_max: usize,
    /// Items of one stream that are not acknowledged; beyond that the server stops reading.
    pub unacknowledged_max: u64,
    /// Bytes of messages of one stream that are not acknowledged: content is held until it is on disk.
    pub unacknowledged_bytes_max: usize,
    /// One message, decompressed.
    pub message_bytes_max: usize,
    pub subscriptions_per_stream_max: usize,
    /// `streamPendingApprovals` at a time.
    pub pending_streams_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            content_bytes_max: 64 << 10,
            batch_items_max: 16_384,
            unacknowledged_max: 262_144,
            unacknowledged_bytes_max: 64 << 20,
            message_bytes_max: 4 << 20,
            subscriptions_per_stream_max: 16,
            pending_streams_max: 64,
        }
    }
}

const _: () = assert!(CONTENT_BYTES_CEILING < 4 << 20, "the largest content fits the default message");

/// Of each connection.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    pub frame_bytes: u32,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// Calls at a time on one connection.
    pub streams_per_connection_max: u32,
    /// Calls that were reset before they were taken up; beyond that the connection is closed.
    pub pending_resets_max: usize,
    pub header_bytes_max: u32,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 8 << 20,
            frame_bytes: 1 << 20,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            streams_per_connection_max: 1_024,
            pending_resets_max: 1_000,
            header_bytes_max: 16 << 10,
        }
    }
}

impl ServerOptions {
    /// A server with these settings, to serve [`super::routes`] with `serve_with_incoming_shutdown`.
    pub fn server(&self) -> Server {
        Server::builder()
            .initial_stream_window_size(self.stream_window_bytes)
            .initial_connection_window_size(self.connection_window_bytes)
            .max_frame_size(self.frame_bytes)
            .max_concurrent_streams(self.streams_per_connection_max)
            .http2_keepalive_interval(Some(self.keepalive_interval))
            .http2_keepalive_timeout(Some(self.keepalive_timeout))
            .http2_max_pending_accept_reset_streams(Some(self.pending_resets_max))
            .http2_max_header_list_size(self.header_bytes_max)
            .tcp_nodelay(true)
    }
}
