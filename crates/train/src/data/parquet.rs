//! One column of text of a Parquet file.
//!
//! Reads what the usual writers make of a column of strings: data pages of both versions, plain or by a dictionary, packed by
//! Snappy, gzip or zstd or not at all. Whatever else a file has is refused by its name. Written here, since the one library
//! for Parquet brings twenty times as much. Bytes never panic.

mod pages;
mod thrift;

use pages::{by_place, counted, plain, present, unpack};
use thrift::{Value, take};

/// At both ends of a file.
const MAGIC: &[u8] = b"PAR1";
/// A page has so many values at most; writers put some ten thousand into one. A few bytes may say that one comes often.
const PAGE_VALUES_MAX: usize = 1 << 24;
/// The physical type of text.
const BYTE_ARRAY: i64 = 6;

/// The texts of a column, in order; rows without one are left out.
pub(super) fn texts(file: &[u8], column: &str) -> Result<Vec<String>, String> {
    let footer = footer(file).ok_or("not a Parquet file, or cut")?;
    let optional = kind(&footer, column)?;
    let mut texts = Vec::new();
    for group in footer.list(4).unwrap_or_default() {
        let chunk = group.list(1).unwrap_or_default().iter().find_map(|chunk| {
            let meta = chunk.field(3)?;
            let [Value::Bytes(name)] = meta.list(3)? else { return None };
            (*name == column.as_bytes()).then_some(meta)
        });
        let chunk = Chunk::of(chunk.ok_or("a group of rows lacks it")?, file, optional);
        chunk.ok_or("its place in the file is wrong")?.read(&mut texts)?;
    }
    Ok(texts)
}

/// What the end of a file says of it.
fn footer(file: &[u8]) -> Option<Value<'_>> {
    let body = file.strip_prefix(MAGIC)?.strip_suffix(MAGIC)?;
    let (body, length) = body.split_last_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    thrift::read(&mut &body[body.len().checked_sub(length)?..])
}

/// Whether rows may lack a value of the column, which has to be one of text.
fn kind(footer: &Value<'_>, column: &str) -> Result<bool, String> {
    let schema = footer.list(2).unwrap_or_default();
    // The first element is the root. Elements below another one do not stand at the top.
    let mut below = 0;
    let mut names = Vec::new();
    for element in schema.iter().skip(1) {
        let name = String::from_utf8_lossy(element.bytes(4).unwrap_or_default()).into_owned();
        let children = element.count(5).unwrap_or_default();
        if below > 0 {
            below = (below - 1_usize).saturating_add(children);
            continue;
        }
        below = children;
        if name == column {
            let is_text = element.int(1) == Some(BYTE_ARRAY) && children == 0;
            return match (is_text, element.int(3)) {
                (true, Some(0)) => Ok(false),
                (true, Some(1)) => Ok(true),
                _ => Err("no column of single texts".into()),
            };
        }
        names.push(name);
    }
    Err(format!("there is none of this name, only {}", names.join(", ")))
}

/// The pages of the column in one group of rows.
struct Chunk<'a> {
    pages: &'a [u8],
    codec: i64,
    /// Values that they hold, absent ones too.
    values: usize,
    optional: bool,
}

impl<'a> Chunk<'a> {
    fn of(meta: &Value<'_>, file: &'a [u8], optional: bool) -> Option<Self> {
        let data = meta.count(9)?;
        // Some writers say 0 where there is no dictionary.
        let start = meta.count(11).filter(|at| (1..data).contains(at)).unwrap_or(data);
        let pages = file.get(start..start.checked_add(meta.count(7)?)?)?;
        Some(Self { pages, codec: meta.int(4)?, values: meta.count(5)?, optional })
    }

    fn read(self, texts: &mut Vec<String>) -> Result<(), String> {
        let (mut rest, mut left) = (self.pages, self.values);
        let mut dictionary: Vec<Vec<u8>> = Vec::new();
        while left > 0 {
            let head = thrift::read(&mut rest).ok_or("a page has no head")?;
            let sizes = head.count(2).zip(head.count(3));
            let (length, packed) = sizes.ok_or("a page has no size")?;
            let body = take(&mut rest, packed).ok_or("a page ends early")?;
            match head.int(1) {
                Some(0) => {
                    let head = head.field(5).ok_or("a page has no head")?;
                    let page = unpack(self.codec, body, length)?;
                    left = take_off(left, head.count(1))?;
                    self.values(head.count(1), head.int(2), &page, None, &dictionary, texts)?;
                }
                Some(2) => {
                    let head = head.field(7).ok_or("a page has no head")?;
                    let page = unpack(self.codec, body, length)?;
                    let count = head.count(1).ok_or("a dictionary has no size")?;
                    dictionary = plain(&page, count)?.into_iter().map(<[u8]>::to_vec).collect();
                }
                Some(3) => {
                    let head = head.field(8).ok_or("a page has no head")?;
                    left = take_off(left, head.count(1))?;
                    self.second(head, body, length, &dictionary, texts)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A page of version 2, whose levels stand in front and are never packed.
    fn second(
        &self,
        head: &Value<'_>,
        mut body: &[u8],
        length: usize,
        dictionary: &[Vec<u8>],
        texts: &mut Vec<String>,
    ) -> Result<(), String> {
        let sizes = head.count(6).zip(head.count(5)).ok_or("a page has no levels")?;
        let early = "a page ends early";
        take(&mut body, sizes.0).ok_or(early)?;
        let levels = take(&mut body, sizes.1).ok_or(early)?;
        let length = length.checked_sub(sizes.0 + sizes.1).ok_or(early)?;
        let codec = if head.int(7) == Some(0) { 0 } else { self.codec };
        let page = unpack(codec, body, length)?;
        self.values(head.count(1), head.int(4), &page, Some(levels), dictionary, texts)
    }

    /// The texts of an unpacked page. `levels` are known or stand in front.
    fn values(
        &self,
        count: Option<usize>,
        encoding: Option<i64>,
        mut page: &[u8],
        levels: Option<&[u8]>,
        dictionary: &[Vec<u8>],
        texts: &mut Vec<String>,
    ) -> Result<(), String> {
        let mut count = count.ok_or("a page does not say how many values it has")?;
        if count > PAGE_VALUES_MAX {
            return Err(format!("a page of {count} values, expected {PAGE_VALUES_MAX} at most"));
        }
        if self.optional {
            let levels = match levels {
                Some(levels) => levels,
                None => counted(&mut page).ok_or("a page ends early")?,
            };
            count = present(levels, count)?;
        }
        let found = match encoding {
            Some(0) => plain(page, count)?,
            Some(2 | 8) => by_place(page, count, dictionary)?,
            Some(5..=7) => {
                return Err("written with DELTA encoding, expected PLAIN or a dictionary".into());
            }
            _ => return Err("an encoding that text does not have".into()),
        };
        for text in found {
            let row = texts.len() + 1;
            let text = str::from_utf8(text).map_err(|_| format!("text {row} is not UTF-8"))?;
            texts.push(text.to_owned());
        }
        Ok(())
    }
}

/// The values that are left after a page.
fn take_off(left: usize, count: Option<usize>) -> Result<usize, String> {
    let left = count.filter(|count| *count > 0).and_then(|count| left.checked_sub(count));
    left.ok_or_else(|| "pages have more or fewer values than said".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    /// Written by Arrow: see `fixtures/parquet/make.py`.
    fn file(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parquet");
        std::fs::read(folder.join(name)).expect("the repository has the file")
    }

    const FILES: [&str; 6] = [
        "none-1.parquet",
        "snappy-1.parquet",
        "gzip-1.parquet",
        "zstd-1.parquet",
        "snappy-2.parquet",
        "zstd-2.parquet",
    ];

    #[test]
    fn what_arrow_wrote_is_read() {
        let expected: Vec<String> = (0..500)
            .filter(|row| row % 7 != 3)
            .map(|row| format!("Row {}: “more” than {}.", row % 90, row * row % 11))
            .collect();
        for name in FILES {
            assert_eq!(texts(&file(name), "text"), Ok(expected.clone()), "{name}");
            let plain = texts(&file(name), "always").expect("read");
            assert_eq!((plain.len(), plain[499].as_str()), (500, "499"), "{name}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused_by_name() {
        let refused = |column: &str, reason: &str| {
            let found = texts(&file(FILES[1]), column).expect_err(reason);
            assert!(found.contains(reason), "{found}");
        };
        refused("body", "only text, number, words, always");
        refused("number", "no column of single texts");
        refused("words", "no column of single texts");
        refused("element", "only text");
        let refused = |bytes: &[u8], reason: &str| {
            let found = texts(bytes, "text").expect_err(reason);
            assert!(found.contains(reason), "{found}");
        };
        refused(b"PAR1", "not a Parquet file");
        refused(b"a text", "not a Parquet file");
        refused(&file("brotli.parquet"), "packed with Brotli");
        refused(&file("delta.parquet"), "DELTA");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn damaged_files_never_panic(which in 0..FILES.len(), at: proptest::sample::Index, bits: u8) {
            let mut bytes = file(FILES[which]);
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            let _ = texts(&bytes, "text");
            let _ = texts(&bytes[..at], "text");
        }
    }
}
