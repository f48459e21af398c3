//! A time as PostgreSQL keeps it.

use crate::model::Micros;
use bytes::{BufMut, BytesMut};
use std::error::Error;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// 2000-01-01, PostgreSQL's epoch, in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;

/// A TIMESTAMPTZ: microseconds since 2000-01-01 on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Timestamp(pub i64);

impl From<Micros> for Timestamp {
    /// What no timestamp can hold becomes one that PostgreSQL refuses as out of range; the largest
    /// number of all would mean infinity.
    fn from(time: Micros) -> Timestamp {
        Timestamp(i64::try_from(time.0).map_or(i64::MAX - 1, |micros| micros - EPOCH))
    }
}

/// The first microsecond that is none of PostgreSQL's (its timestamp.h, END_TIMESTAMP).
const END: i64 = 9_223_371_331_200_000_000;

impl Timestamp {
    /// To compare with, not to keep: what no timestamp can hold lies behind them all (`infinity`).
    pub fn bound(time: Micros) -> Timestamp {
        let micros = Timestamp::from(time);
        if micros.0 < END { micros } else { Timestamp(i64::MAX) }
    }

    /// `None` before 1970: nothing of ours.
    pub fn micros(self) -> Option<Micros> {
        u64::try_from(self.0.checked_add(EPOCH)?).ok().map(Micros)
    }
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Timestamp, Box<dyn Error + Sync + Send>> {
        Ok(Timestamp(i64::from_be_bytes(raw.try_into()?)))
    }
    accepts!(TIMESTAMPTZ);
}

impl ToSql for Timestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(self.0);
        Ok(IsNull::No)
    }
    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        for micros in [0, 1, 946_684_800_000_000, 4_102_444_799_999_999] {
            assert_eq!(Timestamp::from(Micros(micros)).micros(), Some(Micros(micros)));
        }
        assert_ne!(Timestamp::from(Micros(u64::MAX)).0, i64::MAX, "no infinity");
        assert_eq!(Timestamp::bound(Micros(u64::MAX)).0, i64::MAX);
        assert_eq!(Timestamp::bound(Micros(1)), Timestamp::from(Micros(1)));
    }
}
