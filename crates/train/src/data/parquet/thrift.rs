//! Values in Thrift's compact protocol, in which Parquet describes itself, read without knowing their fields.
//!
//! Bytes never panic, and take memory in proportion to their number.

/// Structs and lists in each other: Parquet needs six.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    /// Integers of any width, and truth values as 0 and 1.
    Int(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    /// By number.
    Struct(Vec<(i64, Value<'a>)>),
    /// What nothing here asks for.
    Skipped,
}

impl<'a> Value<'a> {
    /// A field of a struct.
    pub fn field(&self, number: i64) -> Option<&Self> {
        let Self::Struct(fields) = self else { return None };
        fields.iter().find(|(found, _)| *found == number).map(|(_, value)| value)
    }

    pub fn int(&self, number: i64) -> Option<i64> {
        match self.field(number)? {
            Self::Int(found) => Some(*found),
            _ => None,
        }
    }

    /// A number of things.
    pub fn count(&self, number: i64) -> Option<usize> {
        usize::try_from(self.int(number)?).ok()
    }

    pub fn bytes(&self, number: i64) -> Option<&'a [u8]> {
        match self.field(number)? {
            Self::Bytes(found) => Some(found),
            _ => None,
        }
    }

    pub fn list(&self, number: i64) -> Option<&[Self]> {
        match self.field(number)? {
            Self::List(found) => Some(found),
            _ => None,
        }
    }
}

/// The struct at the front of `bytes`, which are then what follows it; `None` if it is none.
pub(super) fn read<'a>(bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    structure(bytes, DEPTH_MAX)
}

fn structure<'a>(bytes: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    let depth = depth.checked_sub(1)?;
    let (mut fields, mut number) = (Vec::new(), 0_i64);
    loop {
        let head = byte(bytes)?;
        if head == 0 {
            return Some(Value::Struct(fields));
        }
        number = match head >> 4 {
            0 => zigzag(bytes)?,
            more => number.checked_add(more.into())?,
        };
        let value = match head & 15 {
            1 => Value::Int(1),
            2 => Value::Int(0),
            kind => value(bytes, kind, depth)?,
        };
        fields.push((number, value));
    }
}

fn value<'a>(bytes: &mut &'a [u8], kind: u8, depth: usize) -> Option<Value<'a>> {
    Some(match kind {
        // A truth value in a list.
        1 | 2 => Value::Int(i64::from(byte(bytes)? == 1)),
        3 => Value::Int(i64::from(byte(bytes)? as i8)),
        4..=6 => Value::Int(zigzag(bytes)?),
        7 => skip(bytes, 8)?,
        8 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Value::Bytes(take(bytes, length)?)
        }
        9 | 10 => list(bytes, depth)?,
        11 => map(bytes, depth)?,
        12 => structure(bytes, depth)?,
        13 => skip(bytes, 16)?,
        _ => return None,
    })
}

fn list<'a>(bytes: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    let depth = depth.checked_sub(1)?;
    let head = byte(bytes)?;
    let count = match head >> 4 {
        15 => varint(bytes)?,
        count => count.into(),
    };
    // Every element takes a byte at least, so an end is near.
    let elements = (0..count).map(|_| value(bytes, head & 15, depth));
    Some(Value::List(elements.collect::<Option<_>>()?))
}

fn map<'a>(bytes: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    let depth = depth.checked_sub(1)?;
    let count = varint(bytes)?;
    if count > 0 {
        let kinds = byte(bytes)?;
        for _ in 0..count {
            value(bytes, kinds >> 4, depth)?;
            value(bytes, kinds & 15, depth)?;
        }
    }
    Some(Value::Skipped)
}

/// The first `count` of `bytes`, which are then the rest.
pub(super) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn skip<'a>(bytes: &mut &'a [u8], count: usize) -> Option<Value<'a>> {
    take(bytes, count).map(|_| Value::Skipped)
}

pub(super) fn byte(bytes: &mut &[u8]) -> Option<u8> {
    take(bytes, 1).map(|taken| taken[0])
}

/// Seven bits a byte, the lowest first.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(bytes)?;
        number |= u64::from(next & 127) << shift;
        if next < 128 {
            return Some(number);
        }
    }
    None
}

/// 0, -1, 1, -2 and so on.
fn zigzag(bytes: &mut &[u8]) -> Option<i64> {
    let number = varint(bytes)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_read_by_number() {
        let mut bytes: &[u8] = &[
            0x15, 0x03, // 1: -2
            0x11, // 2: true
            0x38, 2, b'h', b'i', // 5: "hi"
            0x19, 0x25, 2, 4, // 6: [1, 2]
            0x0c, 40, 0x15, 2, 0, // 20: a struct with 1: 1
            0, 99,
        ];
        let value = read(&mut bytes).expect("a struct");
        assert_eq!(
            (value.int(1), value.int(2), value.bytes(5)),
            (Some(-2), Some(1), Some(&b"hi"[..]))
        );
        assert_eq!(value.list(6), Some(&[Value::Int(1), Value::Int(2)][..]));
        assert_eq!(value.field(20).and_then(|inner| inner.int(1)), Some(1));
        assert_eq!((value.int(5), value.field(7), bytes), (None, None, &[99][..]));
    }

    #[test]
    fn depth_has_an_end() {
        assert_eq!(read(&mut &[0x1c; 1000][..]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            if read(&mut rest).is_some() {
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
