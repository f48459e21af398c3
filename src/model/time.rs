//! Time as the journal knows it: whole microseconds since 1970 UTC, always an argument, never read here.

use std::fmt;

/// Microseconds since the Unix epoch. Fits PostgreSQL's timestamptz and SQLite's INTEGER.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Micros(pub u64);

impl Micros {
    pub const SECOND: u64 = 1_000_000;

    pub const fn from_secs(seconds: u64) -> Micros {
        Micros(seconds * Micros::SECOND)
    }

    pub const fn plus(self, micros: u64) -> Micros {
        Micros(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to here; 0 when `earlier` is later.
    pub const fn since(self, earlier: Micros) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Micros {
    /// RFC 3339, UTC, microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0 / 86_400_000_000, self.0 % 86_400_000_000);
        // Civil date from days since 1970 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
        let z = days as i64 + 719_468;
        let era = z / 146_097;
        let doe = z - era * 146_097;
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Micros;

    #[test]
    fn shows_rfc_3339() {
        assert_eq!(Micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Micros(1_709_164_800_000_001).to_string(), "2024-02-29T00:00:00.000001Z");
        assert_eq!(Micros(4_102_444_799_999_999).to_string(), "2099-12-31T23:59:59.999999Z");
    }
}
