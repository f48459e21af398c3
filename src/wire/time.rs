//! Times at the door: whole microseconds, cut before anything is compared or hashed.

use crate::model::Micros;
use prost_types::Timestamp;

/// The end of the year 9999, where `google.protobuf.Timestamp` ends.
const SECONDS_MAX: i64 = 253_402_300_799;

/// `None` before 1970, after 9999, or with nanoseconds that are no fraction of a second.
pub fn micros(time: &Timestamp) -> Option<Micros> {
    let seconds = u64::try_from(time.seconds).ok().filter(|_| time.seconds <= SECONDS_MAX)?;
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Micros(seconds * Micros::SECOND + nanos / 1_000))
}

pub fn timestamp(time: Micros) -> Timestamp {
    Timestamp { seconds: (time.0 / Micros::SECOND) as i64, nanos: (time.0 % Micros::SECOND) as i32 * 1_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_to_microseconds_and_bounded() {
        let check = |seconds, nanos, expected: Option<u64>| {
            assert_eq!(micros(&Timestamp { seconds, nanos }), expected.map(Micros), "{seconds} {nanos}");
        };
        check(0, 0, Some(0));
        check(1, 1_999, Some(1_000_001));
        check(SECONDS_MAX, 999_999_999, Some(253_402_300_799_999_999));
        check(SECONDS_MAX + 1, 0, None);
        check(-1, 999_999_999, None);
        check(0, -1, None);
        check(0, 1_000_000_000, None);
        check(i64::MAX, 0, None);
        let time = Micros(1_709_164_800_000_001);
        assert_eq!(micros(&timestamp(time)), Some(time));
    }
}
