//! Events as proto-JSON, one a line: what a dump prints and files hold.

use super::{DESCRIPTOR, v1};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use std::io::{self, Write};

/// Writes `ApprovalEvent`s by their description in the contract.
pub struct EventJson {
    shape: MessageDescriptor,
}

impl Default for EventJson {
    fn default() -> EventJson {
        let pool = DescriptorPool::decode(DESCRIPTOR).expect("the build wrote it");
        let shape = pool.get_message_by_name("aurigraph.approvals.v1.ApprovalEvent").expect("the contract has it");
        EventJson { shape }
    }
}

impl EventJson {
    /// The event and the line's end.
    pub fn write_line(&self, event: &v1::ApprovalEvent, out: &mut impl Write) -> io::Result<()> {
        let event = DynamicMessage::decode(self.shape.clone(), event.encode_to_vec().as_slice());
        serde_json::to_writer(&mut *out, &event.expect("encoded a moment ago")).map_err(io::Error::from)?;
        out.write_all(b"\n")
    }
}
