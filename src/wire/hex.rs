//! Hexadecimal and UUIDs, eight digits a step within one machine word.
//!
//! Plain words were as fast as SSE in the experiment, need no `unsafe`, and the compiler turns the
//! four words of a UUID into vector code by itself.

const HIGH: u64 = 0x8080_8080_8080_8080;

const fn every(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
}

/// Nibbles of eight digits, one a byte, and non-zero in the second when one of them was no digit.
#[inline(always)]
fn nibbles(digits: u64) -> (u64, u64) {
    let seven = digits & !HIGH;
    let lower = seven | every(0x20);
    // Bit 7 of each byte of a sum says whether the byte reached a bound; no sum carries over.
    let digit = (seven + every(0x80 - b'0')) & !(seven + every(0x80 - b'9' - 1));
    let letter = (lower + every(0x80 - b'a')) & !(lower + every(0x80 - b'f' - 1));
    let bad = (!(digit | letter) | digits) & HIGH;
    let nibble = (seven & every(0x0F)) + ((seven >> 6) & every(1)) * 9;
    (nibble, bad)
}

/// Four bytes from eight nibbles.
#[inline(always)]
fn pack(nibbles: u64) -> [u8; 4] {
    let pairs = (nibbles << 4 | nibbles >> 8) & 0x00FF_00FF_00FF_00FF;
    let halves = (pairs | pairs >> 8) & 0x0000_FFFF_0000_FFFF;
    ((halves | halves >> 16) as u32).to_le_bytes()
}

#[inline(always)]
fn word(text: &[u8; 36], at: usize) -> u64 {
    u64::from_le_bytes(text[at..at + 8].try_into().expect("eight bytes"))
}

#[inline(always)]
fn half(text: &[u8; 36], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(text[at..at + 4].try_into().expect("four bytes")))
}

#[inline(always)]
fn uuid_from_words(words: [u64; 4]) -> Option<[u8; 16]> {
    let mut uuid = [0u8; 16];
    let mut wrong = 0;
    for (into, digits) in uuid.chunks_exact_mut(4).zip(words) {
        let (nibbles, bad) = nibbles(digits);
        into.copy_from_slice(&pack(nibbles));
        wrong |= bad;
    }
    (wrong == 0).then_some(uuid)
}

/// A hyphenated UUID in either case.
#[inline(always)]
pub(super) fn parse_hyphenated(text: &[u8; 36]) -> Option<[u8; 16]> {
    let hyphens = [text[8], text[13], text[18], text[23]] == *b"----";
    let words =
        [word(text, 0), half(text, 9) | half(text, 14) << 32, half(text, 19) | half(text, 24) << 32, word(text, 28)];
    uuid_from_words(words).filter(|_| hyphens)
}

/// A UUID in any of its usual spellings: hyphenated, simple, in braces, or as `urn:uuid:`.
#[inline]
pub fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    match text.try_into() {
        Ok(hyphenated) => parse_hyphenated(hyphenated),
        Err(_) => parse_unusual(text),
    }
}

#[cold]
fn parse_unusual(text: &[u8]) -> Option<[u8; 16]> {
    let bare = match text {
        [b'{', inside @ .., b'}'] => inside,
        [prefix @ .., _] if prefix.len() > 9 && prefix[..9].eq_ignore_ascii_case(b"urn:uuid:") => &text[9..],
        _ => text,
    };
    if let Ok(hyphenated) = bare.try_into() {
        return parse_hyphenated(hyphenated);
    }
    let simple: &[u8; 32] = bare.try_into().ok()?;
    let mut uuid = [0u8; 16];
    parse_hex(simple, &mut uuid).then_some(uuid)
}

/// Fills `into` from twice as many digits; false when one of them is none.
pub(super) fn parse_hex(digits: &[u8], into: &mut [u8]) -> bool {
    assert!(digits.len() == into.len() * 2 && into.len().is_multiple_of(4), "whole words of digits");
    let mut wrong = 0;
    for (word, into) in digits.chunks_exact(8).zip(into.chunks_exact_mut(4)) {
        let (nibbles, bad) = nibbles(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        into.copy_from_slice(&pack(nibbles));
        wrong |= bad;
    }
    wrong == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_spellings_are_one_uuid() {
        let expected = uuid::uuid!("01890a5d-ac96-774b-bcce-b302099a8057").into_bytes();
        for text in [
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "01890A5D-AC96-774B-BCCE-B302099A8057",
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
            "{01890a5dac96774bbcceb302099a8057}",
            "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
            "URN:UUID:01890A5D-AC96-774B-BCCE-B302099A8057",
        ] {
            assert_eq!(parse_uuid(text.as_bytes()), Some(expected), "{text}");
        }
        for text in [
            "",
            "x",
            "urn:uuid:",
            "{}",
            "01890a5d-ac96-774b-bcce-b302099a805",
            "01890a5d-ac96-774b-bcce-b302099a80577",
            "01890a5d-ac96-774b-bcce_b302099a8057",
            "01890a5d-ac96-774b-bcceb-302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057",
            "01890a5g-ac96-774b-bcce-b302099a8057",
            " 1890a5d-ac96-774b-bcce-b302099a8057",
        ] {
            assert_eq!(parse_uuid(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn every_byte_at_every_place_is_judged_as_by_the_uuid_crate() {
        let good = *b"01890a5d-ac96-774b-bcce-b302099a8057";
        for at in 0..36 {
            for byte in 0..=255u8 {
                let mut text = good;
                text[at] = byte;
                let theirs = std::str::from_utf8(&text).ok().and_then(|text| uuid::Uuid::try_parse(text).ok());
                assert_eq!(parse_uuid(&text), theirs.map(uuid::Uuid::into_bytes), "byte {byte} at {at}");
            }
        }
    }
}
