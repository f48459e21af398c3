//! `--fail-if 'p99_us>5000'`: a comparison of one number of the report.

use serde_json::Value;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Where the number is: `votes_per_second`, `latency_us.p99`, or `p99_us` for the latter.
    name: String,
    operator: Operator,
    bound: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Operator {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Equal,
    NotEqual,
}

const OPERATORS: [(&str, Operator); 6] = [
    // The longer ones first: `<=` is not `<`.
    ("<=", Operator::LessOrEqual),
    (">=", Operator::MoreOrEqual),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<", Operator::Less),
    (">", Operator::More),
];

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let usage = || format!("`{text}` is not a comparison: expected for example p99_us>5000 or votes_per_second<2e6");
        let found = OPERATORS.iter().filter_map(|(sign, operator)| Some((text.find(sign)?, *sign, *operator)));
        // The leftmost, and of those at one place the longest.
        let (at, sign, operator) = found.min_by_key(|(at, sign, _)| (*at, 2 - sign.len())).ok_or_else(usage)?;
        let name = text[..at].trim();
        let bound: f64 = text[at + sign.len()..].trim().parse().map_err(|_| usage())?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(legal) || bound.is_nan() {
            return Err(usage());
        }
        Ok(Condition { name: name.to_owned(), operator, bound })
    }
}

impl Condition {
    /// The number in a report; `None`: there is none of this name.
    pub fn find(&self, report: &Value) -> Option<f64> {
        let at = |path: &str| path.split('.').try_fold(report, |value, step| value.get(step));
        let short = self.name.strip_suffix("_us").map(|name| format!("latency_us.{name}"));
        match at(&self.name).or_else(|| at(&short?))? {
            Value::Number(number) => number.as_f64(),
            Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
            _ => None,
        }
    }

    /// Whether it holds: the run failed.
    pub fn holds(&self, value: f64) -> bool {
        match self.operator {
            Operator::Less => value < self.bound,
            Operator::LessOrEqual => value <= self.bound,
            Operator::More => value > self.bound,
            Operator::MoreOrEqual => value >= self.bound,
            Operator::Equal => value == self.bound,
            Operator::NotEqual => value != self.bound,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().find(|(_, operator)| *operator == self.operator).map_or("", |(sign, _)| sign);
        write!(f, "{}{sign}{}", self.name, self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, fails: Option<bool>) {
        let report = json!({
            "votes_per_second": 1_000.5, "latency_us": {"p50": 3, "p99": 5_000}, "ledger": {"balances": true},
            "votes_refused": {"APPROVAL_DECIDED": 7}, "mode": "rows",
        });
        let condition: Condition = text.parse().expect("a legal condition");
        assert_eq!(condition.find(&report).map(|value| condition.holds(value)), fails, "{text}");
    }

    #[test]
    fn compares_numbers_of_the_report() {
        check("p99_us>5000", Some(false));
        check("p99_us >= 5000", Some(true));
        check("latency_us.p50<=3", Some(true));
        check("votes_per_second<1e3", Some(false));
        check("votes_per_second!=1000.5", Some(false));
        check("ledger.balances==0", Some(false));
        check("votes_refused.APPROVAL_DECIDED>6", Some(true));
        check("p12_us>1", None);
        check("mode==1", None);
    }

    #[test]
    fn refuses_what_is_not_a_comparison() {
        for wrong in ["", "p99_us", ">5", "p99_us>", "p99_us>x", "p99_us=>5", "a b>1", "p99_us>NaN"] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
        assert_eq!("p99_us >= 5e3".parse::<Condition>().expect("legal").to_string(), "p99_us>=5000");
    }
}
