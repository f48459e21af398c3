//! Acknowledgements of a stream, straight to bytes: one message a wake-up, however many votes.

use bytes::BufMut;

/// A refused item below `acked_through`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AckRefusal {
    pub index: u64,
    /// A google.rpc.Code.
    pub code: u8,
    /// A RefusalReason.
    pub reason: u8,
}

/// An ApprovalStreamResponse with `acked_through` and these refusals (ascending).
pub fn encode_ack(into: &mut Vec<u8>, acked_through: u64, refusals: &[AckRefusal]) {
    into.reserve(11 + refusals.len() * 17);
    if acked_through != 0 {
        into.put_u8(0x08);
        put_varint(into, acked_through);
    }
    for refusal in refusals {
        debug_assert!(refusal.code < 0x80 && refusal.reason < 0x80 && refusal.index < acked_through);
        let index_bytes = varint_length(refusal.index);
        let length = if refusal.index == 0 { 4 } else { 5 + index_bytes };
        into.put_slice(&[0x12, length as u8]);
        if refusal.index != 0 {
            into.put_u8(0x08);
            put_varint(into, refusal.index);
        }
        into.put_slice(&[0x10, refusal.code, 0x18, refusal.reason]);
    }
}

use super::scan::put_varint;

fn varint_length(number: u64) -> usize {
    (70 - (number | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;
    use prost::Message;

    #[test]
    fn the_generated_code_reads_what_was_written() {
        let indexes = [0, 1, 127, 128, 16_383, 16_384, u32::MAX as u64, u64::MAX - 2];
        let refusals: Vec<_> = indexes.iter().map(|index| AckRefusal { index: *index, code: 5, reason: 2 }).collect();
        for through in [0, 1, 300, u64::MAX] {
            let refusals: &[AckRefusal] = if through == u64::MAX { &refusals } else { &[] };
            let mut bytes = Vec::new();
            encode_ack(&mut bytes, through, refusals);
            let read = v1::ApprovalStreamResponse::decode(&bytes[..]).expect("a message");
            assert_eq!(read.acked_through, through);
            let read: Vec<_> = read.refusals.iter().map(|r| (r.index, r.code, r.reason)).collect();
            let wrote: Vec<_> = refusals.iter().map(|r| (r.index, u32::from(r.code), i32::from(r.reason))).collect();
            assert_eq!(read, wrote);
        }
    }
}
