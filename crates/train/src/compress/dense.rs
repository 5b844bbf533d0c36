//! Every value in 4 bits.
//!
//! A group of 256 values: its scale (f32), then a nibble for each value, 8 plus a number of -7 to 7, the first of two in the low half of
//! a byte. The largest magnitude of the group is 7 times the scale.

use super::UpdateError;

/// Values that share a scale: 4.125 bits a value.
const GROUP: usize = 256;
/// The largest number.
const LEVELS: f32 = 7.0;

/// The length of `len` values.
pub const fn bytes(len: usize) -> usize {
    len / GROUP * group_bytes(GROUP)
        + if len.is_multiple_of(GROUP) { 0 } else { group_bytes(len % GROUP) }
}

const fn group_bytes(len: usize) -> usize {
    4 + len.div_ceil(2)
}

/// Appends `values`, all of them finite.
pub fn write(values: &[f32], out: &mut Vec<u8>) {
    for group in values.chunks(GROUP) {
        let largest = group.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = largest / LEVELS;
        out.extend(scale.to_le_bytes());
        let nibble = |value: f32| {
            let number = if scale == 0.0 { 0.0 } else { (value / scale).round_ties_even() };
            (number.clamp(-LEVELS, LEVELS) as i8 + 8) as u8
        };
        // A last value without a partner has a nibble of zero beside it, which is no number.
        out.extend(
            group
                .chunks(2)
                .map(|pair| nibble(pair[0]) | pair.get(1).map_or(0, |&value| nibble(value)) << 4),
        );
    }
}

/// The `len` values that `body`, whose length was checked, says.
pub fn read(len: usize, mut body: &[u8]) -> Result<Vec<f32>, UpdateError> {
    let mut values = Vec::with_capacity(len);
    for (block, start) in (0..len).step_by(GROUP).enumerate() {
        let count = GROUP.min(len - start);
        let (bytes, rest) = body.split_at(group_bytes(count));
        let malformed = |reason| UpdateError::Malformed { block, reason };
        let (scale, nibbles) = bytes.split_at(4);
        let scale = f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]);
        if !scale.is_finite() || scale.is_sign_negative() {
            return Err(malformed("a scale is not a finite number of at least zero"));
        }
        for index in 0..count {
            let nibble = nibbles[index / 2] >> (index % 2 * 4) & 15;
            if nibble == 0 {
                return Err(malformed("a number below -7"));
            }
            values.push(f32::from(nibble as i8 - 8) * scale);
        }
        if count % 2 == 1 && nibbles[count / 2] >> 4 != 0 {
            return Err(malformed("bits after the end"));
        }
        body = rest;
    }
    Ok(values)
}
