//! JSON as Python writes it: what templates were made with, and models trained on.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use std::io::{self, Write};

/// A blank behind colons and commas.
struct Spaced(CompactFormatter);

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)?;
        out.write_all(b" ")
    }
}

/// `value` on one line, or indented by so many blanks. No letter is escaped that JSON does not want escaped.
///
/// # Errors
/// Whatever keeps `value` from being JSON.
pub(crate) fn written(
    value: &impl Serialize,
    indent: Option<usize>,
) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    match indent {
        None => {
            let spaced = Spaced(CompactFormatter);
            value.serialize(&mut Serializer::with_formatter(&mut out, spaced))?;
        }
        Some(blanks) => {
            // More than any template asks for; one may come from a stranger.
            let blanks = vec![b' '; blanks.min(16)];
            let pretty = PrettyFormatter::with_indent(&blanks);
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty))?;
        }
    }
    Ok(String::from_utf8(out).expect("JSON is UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_written_as_by_python() {
        let value = json!({"b": [1, "é<\n", {}], "a": null});
        let line = "{\"b\": [1, \"é<\\n\", {}], \"a\": null}";
        assert_eq!(written(&value, None).expect("JSON"), line);
        let lines = "{\n  \"b\": [\n    1,\n    \"é<\\n\",\n    {}\n  ],\n  \"a\": null\n}";
        assert_eq!(written(&value, Some(2)).expect("JSON"), lines);
    }
}
