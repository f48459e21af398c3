//! The gRPC front.

/// Connecting to a node, and reading its refusals.
pub mod client;
