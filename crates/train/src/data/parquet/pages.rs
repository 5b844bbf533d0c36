//! The texts of a column's pages: unpacked, with what is absent left out.

use super::thrift::{byte, take, varint};
use std::io::Read;

/// A page unpacks to so much at most; writers make pages of about a megabyte.
const PAGE_BYTES_MAX: usize = 1 << 30;

/// The bytes of a page, unpacked.
pub(super) fn unpack(codec: i64, packed: &[u8], length: usize) -> Result<Vec<u8>, String> {
    if length > PAGE_BYTES_MAX {
        return Err(format!("a page of {length} bytes, expected {PAGE_BYTES_MAX} at most"));
    }
    let wrong = |error: &dyn std::fmt::Display| format!("a page cannot be unpacked: {error}");
    let all = |reader: &mut dyn Read| -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        // One more than expected, so that too much is seen.
        let read = reader.take(length as u64 + 1).read_to_end(&mut out);
        read.map(|_| out).map_err(|error| wrong(&error))
    };
    let out = match codec {
        0 => packed.to_vec(),
        1 => {
            let said = snap::raw::decompress_len(packed).map_err(|error| wrong(&error))?;
            if said != length {
                return Err(format!("a page of {said} bytes, expected {length}"));
            }
            snap::raw::Decoder::new().decompress_vec(packed).map_err(|error| wrong(&error))?
        }
        2 => all(&mut flate2::read::GzDecoder::new(packed))?,
        6 => {
            let mut packed = packed;
            let reader = ruzstd::decoding::StreamingDecoder::new(&mut packed);
            all(&mut reader.map_err(|error| wrong(&error))?)?
        }
        other => {
            let name = ["", "", "", "LZO", "Brotli", "LZ4", "", "LZ4"].get(other as usize);
            let name = name.unwrap_or(&"a newer format");
            return Err(format!("packed with {name}, expected none, Snappy, gzip or zstd"));
        }
    };
    if out.len() == length {
        Ok(out)
    } else {
        Err(format!("a page of {} bytes, expected {length}", out.len()))
    }
}

/// How many of `count` values are there, by levels of 0 and 1.
pub(super) fn present(levels: &[u8], count: usize) -> Result<usize, String> {
    let mut found = 0;
    runs(levels, 1, count, |level, times| {
        found += level as usize * times;
        Ok(())
    })?;
    Ok(found)
}

/// `count` texts, each after its length (PLAIN).
pub(super) fn plain(mut bytes: &[u8], count: usize) -> Result<Vec<&[u8]>, String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(counted(&mut bytes).ok_or("a page ends early")?);
    }
    Ok(texts)
}

/// What a length of four bytes stands before.
pub(super) fn counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(bytes, 4)?.first_chunk().map(|length| u32::from_le_bytes(*length))?;
    take(bytes, usize::try_from(length).ok()?)
}

/// `count` texts by their places in a dictionary.
pub(super) fn by_place<'a>(
    mut bytes: &[u8],
    count: usize,
    dictionary: &'a [Vec<u8>],
) -> Result<Vec<&'a [u8]>, String> {
    let mut texts = Vec::new();
    if count > 0 {
        let bits = byte(&mut bytes).ok_or("a page ends early")?;
        runs(bytes, bits, count, |place, times| {
            let text = dictionary.get(place as usize).ok_or("a place out of the dictionary")?;
            texts.extend(std::iter::repeat_n(&text[..], times));
            Ok(())
        })?;
    }
    Ok(texts)
}

/// Numbers of `bits` bits in runs of equal ones and in groups of eight (RLE and bit-packed); `each` gets a number and how often
/// it comes.
fn runs(
    mut bytes: &[u8],
    bits: u8,
    count: usize,
    mut each: impl FnMut(u64, usize) -> Result<(), String>,
) -> Result<(), String> {
    if bits > 32 {
        return Err(format!("numbers of {bits} bits, expected 32 at most"));
    }
    let bits = usize::from(bits);
    let early = "a page ends early";
    let mut left = count;
    while left > 0 {
        let head = varint(&mut bytes).ok_or(early)?;
        let size = usize::try_from(head >> 1).map_err(|_| early)?;
        if head & 1 == 0 {
            let number = take(&mut bytes, bits.div_ceil(8)).ok_or(early)?;
            let number = number.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let times = size.min(left);
            if times == 0 {
                return Err("a run of nothing".into());
            }
            each(number, times)?;
            left -= times;
        } else {
            let length = size.checked_mul(bits).ok_or(early)?;
            let group = take(&mut bytes, length).ok_or(early)?;
            let here = size.saturating_mul(8).min(left);
            if here == 0 {
                return Err("a group of nothing".into());
            }
            for at in 0..here {
                each(number_at(group, at * bits, bits), 1)?;
            }
            left -= here;
        }
    }
    Ok(())
}

/// The number of `bits` bits from bit `from` on, the lowest first.
fn number_at(bytes: &[u8], from: usize, bits: usize) -> u64 {
    let bit = |at: usize| u64::from(bytes[at / 8] >> (at % 8) & 1);
    (0..bits).fold(0, |number, at| number | bit(from + at) << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_groups_are_read() {
        let found = |bytes: &[u8], bits, count| {
            let mut all = Vec::new();
            runs(bytes, bits, count, |number, times| {
                all.extend(std::iter::repeat_n(number, times));
                Ok(())
            })
            .map(|()| all)
        };
        // The format's own example: 0 to 7 in three bits.
        assert_eq!(found(&[3, 0x88, 0xc6, 0xfa], 3, 8), Ok((0..8).collect()));
        assert_eq!(found(&[8, 5, 4, 1], 3, 6), Ok(vec![5, 5, 5, 5, 1, 1]));
        assert_eq!(found(&[4, 0x34, 0x12], 16, 2), Ok(vec![0x1234; 2]));
        for wrong in [&[][..], &[0, 1], &[3, 0x88], &[1]] {
            assert!(found(wrong, 3, 2).is_err(), "{wrong:?}");
        }
        assert!(found(&[2, 0], 33, 1).is_err());
    }

    #[test]
    fn what_is_absent_is_not_counted() {
        assert_eq!(present(&[3, 0b0000_1011], 5), Ok(3));
    }
}
