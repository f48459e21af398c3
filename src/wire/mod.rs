//! The protos: generated messages, their conversion from and to the model, the hot decoder.

/// The generated messages, client and server of `proto/approvals.proto`.
pub mod v1 {
    tonic::include_proto!("aurigraph.approvals.v1");
}

/// The protos' own description, as a serialized `FileDescriptorSet`.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/assent.descriptor"));
