//! Protobuf's bytes, field by field, with the strictness of the generated code: what this accepts
//! prost accepts, and the other way round.

use std::ops::Range;

/// Not protobuf: a varint without end, a length past the end, a group that is not closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Broken;

/// One field's value; ranges are offsets into what is scanned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Value {
    Varint(u64),
    Bytes(Range<usize>),
    /// Fixed-width or a group: no field of ours has this type.
    Other,
}

impl Value {
    /// A length-delimited value, or not protobuf: the generated code refuses a field of another type.
    #[inline(always)]
    pub fn bytes(self) -> Result<Range<usize>, Broken> {
        match self {
            Value::Bytes(range) => Ok(range),
            _ => Err(Broken),
        }
    }

    #[inline(always)]
    pub fn varint(self) -> Result<u64, Broken> {
        match self {
            Value::Varint(number) => Ok(number),
            _ => Err(Broken),
        }
    }
}

pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

const GROUPS_DEEP_MAX: u32 = 100;

impl<'a> Scan<'a> {
    #[inline(always)]
    pub fn new(bytes: &'a [u8]) -> Scan<'a> {
        Scan { bytes, at: 0 }
    }

    #[inline(always)]
    pub fn from(bytes: &'a [u8], at: usize) -> Scan<'a> {
        Scan { bytes, at }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    /// The next field's number and value; `None` at the end.
    #[inline(always)]
    pub fn field(&mut self) -> Result<Option<(u32, Value)>, Broken> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let (number, kind) = self.key()?;
        Ok(Some((number, self.value(number, kind, 0)?)))
    }

    #[inline(always)]
    fn key(&mut self) -> Result<(u32, u8), Broken> {
        let key = u32::try_from(self.varint()?).map_err(|_| Broken)?;
        let (number, kind) = (key >> 3, (key & 7) as u8);
        if number == 0 { Err(Broken) } else { Ok((number, kind)) }
    }

    #[inline(always)]
    fn value(&mut self, number: u32, kind: u8, depth: u32) -> Result<Value, Broken> {
        match kind {
            0 => self.varint().map(Value::Varint),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken)?;
                self.take(length).map(Value::Bytes)
            }
            _ => self.unusual(number, kind, depth),
        }
    }

    #[cold]
    fn unusual(&mut self, number: u32, kind: u8, depth: u32) -> Result<Value, Broken> {
        match kind {
            1 => self.take(8)?,
            5 => self.take(4)?,
            3 if depth < GROUPS_DEEP_MAX => loop {
                match self.key()? {
                    (end, 4) if end == number => break 0..0,
                    (_, 4) => return Err(Broken),
                    (inner, kind) => self.value(inner, kind, depth + 1)?,
                };
            },
            _ => return Err(Broken),
        };
        Ok(Value::Other)
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<Range<usize>, Broken> {
        if length > self.bytes.len() - self.at {
            return Err(Broken);
        }
        let range = self.at..self.at + length;
        self.at = range.end;
        Ok(range)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Broken> {
        let first = *self.bytes.get(self.at).ok_or(Broken)?;
        if first < 0x80 {
            self.at += 1;
            return Ok(u64::from(first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Broken> {
        let mut number = 0u64;
        for step in 0..10 {
            let byte = *self.bytes.get(self.at).ok_or(Broken)?;
            self.at += 1;
            number |= u64::from(byte & 0x7F) << (7 * step);
            if byte < 0x80 {
                return if step == 9 && byte > 1 { Err(Broken) } else { Ok(number) };
            }
        }
        Err(Broken)
    }
}

/// The last value of a field counts; that the ones before it must be UTF-8 too is prost's strictness.
/// The last one is judged by who reads it.
#[inline(always)]
pub(super) fn replace_text<'a>(field: &mut &'a [u8], value: &'a [u8]) -> Result<(), Broken> {
    if !field.is_empty() && std::str::from_utf8(field).is_err() {
        return Err(Broken);
    }
    *field = value;
    Ok(())
}

/// Appends a varint.
#[inline]
pub(super) fn put_varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    fn scan_all(bytes: &[u8]) -> Result<(), Broken> {
        let mut scan = Scan::new(bytes);
        while scan.field()?.is_some() {}
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

        // The empty message knows no field, so the generated code only frames: it must agree.
        #[test]
        fn frames_as_prost_does(bytes in proptest::collection::vec(prop_oneof![3 => 0u8..32, 1 => any::<u8>()], 0..24)) {
            let theirs = crate::wire::v1::HealthCheckRequest::decode(&bytes[..]);
            prop_assert_eq!(scan_all(&bytes).is_ok(), theirs.is_ok(), "{:?} {:?}", bytes, theirs);
        }
    }
}
