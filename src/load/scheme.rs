//! What the generator sends, as pure functions of (seed, instance, number): ids, orders, decisions
//! and contents. Nothing here needs a table a vote, and everything can be derived again from a
//! ledger's header: that is what lets a ledger of a hundred million votes be a few kilobytes.

/// Length of every validator's name: rows then have one size, known at compile time.
pub const VALIDATOR_BYTES: usize = 15;
/// Approvals are numbered below this: 16 bits block (one a connection where approvals are opened as
/// the run goes), 32 bits offset.
pub const NUMBER_BITS: u32 = 48;
/// In mode mixed one approval of these expires, this many seconds (and up to one less) after it is opened.
const EXPIRING_ONE_IN: u64 = 32;
pub const EXPIRY_SECONDS: u64 = 3;
/// The pad that contents are cut from.
const PAD_BYTES: usize = 64 << 10;

/// An approval's UUID in two words (big-endian halves), and 64 mixed bits of its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Id {
    pub high: u64,
    pub low: u64,
    /// Feeds decisions: differs for every number.
    pub mixed: u64,
}

impl Id {
    #[inline(always)]
    pub fn bytes(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes()
    }

    /// The hyphenated spelling.
    #[inline(always)]
    pub fn text(self) -> [u8; 36] {
        let mut text = *b"........-....-....-....-............";
        let (a, b) = (hex((self.high >> 32) as u32), hex(self.high as u32));
        let (c, d) = (hex((self.low >> 32) as u32), hex(self.low as u32));
        text[0..8].copy_from_slice(&a);
        text[9..13].copy_from_slice(&b[..4]);
        text[14..18].copy_from_slice(&b[4..]);
        text[19..23].copy_from_slice(&c[..4]);
        text[24..28].copy_from_slice(&c[4..]);
        text[28..36].copy_from_slice(&d);
        text
    }
}

/// Eight hex digits at once in one register: a look-up a digit costs twice as much.
#[inline(always)]
fn hex(value: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut x = u64::from(value.swap_bytes());
    x = (x | x << 16) & 0x0000_FFFF_0000_FFFF;
    x = (x | x << 8) & 0x00FF_00FF_00FF_00FF;
    let nibbles = (x >> 4 & 0x000F_000F_000F_000F) | (x & 0x000F_000F_000F_000F) << 8;
    let letters = (nibbles + 6 * ONES) >> 4 & ONES;
    (nibbles + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'9' - 1)).to_le_bytes()
}

/// The finaliser of splitmix64: a bijection of 64 bits.
#[inline(always)]
pub const fn mixed_bits(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

/// Ids of one (seed, instance): no two numbers or instances of a seed share one.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    base: u64,
    key: u64,
    low_key: u64,
}

impl Ids {
    pub fn new(seed: u64, instance: u16) -> Ids {
        Ids {
            base: u64::from(instance) << NUMBER_BITS,
            key: mixed_bits(seed ^ 0xA55E_4700),
            low_key: mixed_bits(!seed),
        }
    }

    /// A random-looking UUIDv4: all 64 bits of a bijection of the number are in it, the other bits
    /// are a second mix.
    #[inline(always)]
    pub fn id(&self, number: u64) -> Id {
        let mixed = mixed_bits((self.base | number) ^ self.key);
        let second = mixed_bits(mixed ^ self.low_key);
        let top = mixed >> 4;
        let high = (top >> 12) << 16 | 0x4000 | top & 0xFFF;
        let low = 0b10 << 62 | (mixed & 0xF) << 58 | second >> 6;
        Id { high, low, mixed }
    }
}

/// A bijection of `0..count`, a different one for each key: the order in which a validator goes
/// through the approvals. Rounds of multiply and xor-shift on the next power of two, walked until
/// the result is below `count`: no table, and invertible.
#[derive(Clone, Copy, Debug)]
pub struct Shuffle {
    count: u64,
    mask: u64,
    shift: u32,
    multipliers: [u64; 2],
    inverses: [u64; 2],
    addends: [u64; 2],
}

impl Shuffle {
    pub fn new(count: u64, key: u64) -> Shuffle {
        assert!((1..=1 << 40).contains(&count), "shuffles 1 to 2^40 items");
        let bits = (64 - (count - 1).leading_zeros()).max(2);
        let multipliers = [mixed_bits(key) | 1, mixed_bits(key ^ 0x5851) | 1];
        let addends = [mixed_bits(key ^ 0xF42D), mixed_bits(key ^ 0x4C95)];
        Shuffle {
            count,
            mask: (1 << bits) - 1,
            shift: bits.div_ceil(2),
            multipliers,
            inverses: multipliers.map(inverse),
            addends,
        }
    }

    /// The item at `position`.
    #[inline(always)]
    pub fn at(&self, position: u64) -> u64 {
        let mut x = position;
        loop {
            x = x.wrapping_mul(self.multipliers[0]).wrapping_add(self.addends[0]) & self.mask;
            x ^= x >> self.shift;
            x = x.wrapping_mul(self.multipliers[1]).wrapping_add(self.addends[1]) & self.mask;
            x ^= x >> self.shift;
            if x < self.count {
                return x;
            }
        }
    }

    /// The position of `item`.
    pub fn position(&self, item: u64) -> u64 {
        let mut x = item;
        loop {
            // The shift is at least half of the bits: applying it again undoes it.
            x ^= x >> self.shift;
            x = x.wrapping_sub(self.addends[1]).wrapping_mul(self.inverses[1]) & self.mask;
            x ^= x >> self.shift;
            x = x.wrapping_sub(self.addends[0]).wrapping_mul(self.inverses[0]) & self.mask;
            if x < self.count {
                return x;
            }
        }
    }
}

/// Inverse of an odd number modulo 2^64 (Newton: each step doubles the right bits).
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut step = 0;
    while step < 5 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}

/// Shares of decisions in percent: approve, reject, abstain.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Mix {
    pub approve: u8,
    pub reject: u8,
    pub abstain: u8,
}

impl Mix {
    pub const DEFAULT: Mix = Mix { approve: 96, reject: 2, abstain: 2 };
}

impl std::str::FromStr for Mix {
    type Err = String;

    /// `96/2/2`: approve, reject, abstain; together 100.
    fn from_str(text: &str) -> Result<Mix, String> {
        let shares: Vec<u8> = text.split('/').map_while(|share| share.trim().parse().ok()).collect();
        match shares[..] {
            [approve, reject, abstain]
                if text.split('/').count() == 3
                    && u32::from(approve) + u32::from(reject) + u32::from(abstain) == 100 =>
            {
                Ok(Mix { approve, reject, abstain })
            }
            _ => Err("expected approve/reject/abstain in percent, together 100: 96/2/2".into()),
        }
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.approve, self.reject, self.abstain)
    }
}

/// All that follows from a seed.
#[derive(Debug)]
pub struct Scheme {
    pub ids: Ids,
    pub validators: Vec<Validator>,
    pub required: u16,
    pub requester: [u8; 36],
    pub content_bytes: usize,
    pad: Vec<u8>,
    /// A share of the approvals expires within seconds (mode mixed).
    pub expiring: bool,
    /// A decision's 16 bits below the first: approve; below the second: reject; else abstain.
    thresholds: [u32; 2],
}

#[derive(Clone, Debug)]
pub struct Validator {
    pub name: [u8; VALIDATOR_BYTES],
    pub shuffle: Shuffle,
    key: u64,
}

impl Scheme {
    /// `approvals`: how many the shuffled orders go over (block 0).
    pub fn new(
        seed: u64,
        instance: u16,
        approvals: u64,
        validators: u16,
        required: u16,
        content_bytes: usize,
        decisions: Mix,
    ) -> Scheme {
        let validator = |number: u16| {
            let key = mixed_bits(seed ^ u64::from(number) << 20 ^ u64::from(instance) << 40 ^ 0x7A11D);
            let mut name = [0; VALIDATOR_BYTES];
            name.copy_from_slice(format!("validator-{number:05}").as_bytes());
            Validator { name, shuffle: Shuffle::new(approvals.max(1), key), key }
        };
        let pad =
            (0..(PAD_BYTES + content_bytes) as u64 / 8 + 1).flat_map(|at| mixed_bits(seed ^ at << 8).to_le_bytes());
        let percent = |share: u8| u32::from(share) * 65_536 / 100;
        let approve = percent(decisions.approve);
        Scheme {
            ids: Ids::new(seed, instance),
            validators: (0..validators).map(validator).collect(),
            required,
            requester: Ids::new(seed ^ 0x4E0, instance).id(0).text(),
            content_bytes,
            pad: pad.collect(),
            expiring: false,
            thresholds: [approve, if decisions.abstain == 0 { 65_536 } else { approve + percent(decisions.reject) }],
        }
    }

    /// With approvals that expire within seconds, or without.
    pub fn with_expiries(self, expiring: bool) -> Scheme {
        Scheme { expiring, ..self }
    }

    /// N.
    pub fn total(&self) -> u16 {
        self.validators.len() as u16
    }

    /// What a validator says of an approval: the number of its ValidatorDecision.
    #[inline(always)]
    pub fn decision(&self, validator: &Validator, id: Id) -> u8 {
        let draw = ((id.mixed ^ validator.key).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u32;
        1 + u8::from(draw >= self.thresholds[0]) + u8::from(draw >= self.thresholds[1])
    }

    /// Whether an approval is opened to expire within `EXPIRY_SECONDS`, without a vote.
    #[inline(always)]
    pub fn expires(&self, id: Id) -> bool {
        self.expiring && (id.mixed >> 20).is_multiple_of(EXPIRING_ONE_IN)
    }

    /// An approval's content: different for every id as far as its length allows.
    #[inline(always)]
    pub fn content(&self, id: Id) -> (&[u8], [u8; 16]) {
        let start = id.mixed as usize % PAD_BYTES;
        (&self.pad[start..start + self.content_bytes], id.bytes())
    }

    /// The number of the approval at a validator's `position` in block 0.
    #[inline(always)]
    pub fn shuffled(&self, validator: u16, position: u64) -> u64 {
        self.validators[usize::from(validator)].shuffle.at(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn shuffles_are_bijections(count in 1u64..3_000, key: u64) {
            let shuffle = Shuffle::new(count, key);
            let items: HashSet<u64> = (0..count).map(|position| shuffle.at(position)).collect();
            prop_assert_eq!(items.len() as u64, count);
            prop_assert!(items.iter().all(|item| *item < count));
            for position in 0..count {
                prop_assert_eq!(shuffle.position(shuffle.at(position)), position);
            }
        }

        #[test]
        fn shuffles_of_many_invert(count in 1u64..1 << 40, key: u64, position: u64) {
            let (shuffle, position) = (Shuffle::new(count, key), position % count);
            prop_assert_eq!(shuffle.position(shuffle.at(position)), position);
        }

        #[test]
        fn ids_are_spelled_as_uuids(seed: u64, instance: u16, number in 0u64..1 << NUMBER_BITS) {
            let id = Ids::new(seed, instance).id(number);
            let uuid = uuid::Uuid::from_bytes(id.bytes());
            prop_assert_eq!(uuid.hyphenated().to_string(), String::from_utf8(id.text().to_vec()).expect("ASCII"));
            prop_assert_eq!(uuid.get_version_num(), 4);
        }
    }

    #[test]
    fn ids_differ_between_numbers_and_instances() {
        let mut seen = HashSet::new();
        for instance in 0..4 {
            let ids = Ids::new(7, instance);
            assert!((0..50_000).all(|number| seen.insert(ids.id(number).bytes())));
        }
    }

    #[test]
    fn orders_of_two_validators_differ() {
        let scheme = Scheme::new(1, 0, 1_000, 2, 1, 0, Mix::DEFAULT);
        let same = (0..1_000).filter(|p| scheme.shuffled(0, *p) == scheme.shuffled(1, *p)).count();
        assert!(same < 10, "{same} of 1,000 positions are the same");
    }

    #[test]
    fn decisions_have_their_shares() {
        let scheme = Scheme::new(1, 0, 1, 3, 2, 0, "80/15/5".parse().expect("a legal mix"));
        let mut counts = [0; 4];
        for number in 0..100_000 {
            counts[usize::from(scheme.decision(&scheme.validators[2], scheme.ids.id(number)))] += 1;
        }
        assert!((79_000..81_000).contains(&counts[1]), "{counts:?}");
        assert!((14_000..16_000).contains(&counts[2]), "{counts:?}");
        assert!((4_500..5_500).contains(&counts[3]), "{counts:?}");
        let scheme = Scheme::new(1, 0, 1, 1, 1, 0, "100/0/0".parse().expect("a legal mix"));
        assert!((0..100_000).all(|number| scheme.decision(&scheme.validators[0], scheme.ids.id(number)) == 1));
    }

    #[test]
    fn a_mix_is_three_shares_of_a_hundred() {
        assert_eq!("90/6/4".parse(), Ok(Mix { approve: 90, reject: 6, abstain: 4 }));
        for wrong in ["", "100", "90/6", "90/6/5", "90/6/4/0", "a/b/c", "-1/100/1"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
