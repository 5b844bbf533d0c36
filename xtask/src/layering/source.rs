//! The words of a Rust source file: identifiers and numbers, without comments, strings and characters.
//!
//! Enough of Rust's lexer to say whether a file uses a word. It never fails: what rustc would refuse
//! gives some words or others, and rustc refuses it.

/// An identifier, keyword or number literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<'a> {
    /// From 1.
    pub line: usize,
    /// As written.
    pub text: &'a str,
}

impl Word<'_> {
    /// Whether this is a floating-point literal: `1.5`, `2.`, `1e9` or `3f32`.
    pub fn is_float(&self) -> bool {
        if !self.text.starts_with(|c: char| c.is_ascii_digit()) || self.text.starts_with("0x") {
            return false;
        }
        let mantissa = self.text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
        mantissa.starts_with(['.', 'e', 'E']) || mantissa == "f32" || mantissa == "f64"
    }
}

/// All words of `source`, in order.
pub fn words(source: &str) -> Vec<Word<'_>> {
    let mut scanner = Scanner { source, at: 0 };
    let mut words = Vec::new();
    let (mut line, mut counted) = (1, 0);
    while let Some(text) = scanner.next_word() {
        let start = scanner.at - text.len();
        line += source[counted..start].matches('\n').count();
        counted = start;
        words.push(Word { line, text });
    }
    words
}

struct Scanner<'a> {
    source: &'a str,
    /// Byte offset of what is read next, always between characters.
    at: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Skips to behind the next `end`, or to the end of the file.
    fn skip_past(&mut self, end: &str) {
        self.at = self.rest().find(end).map_or(self.source.len(), |n| self.at + n + end.len());
    }

    fn next_word(&mut self) -> Option<&'a str> {
        while let Some(first) = self.rest().chars().next() {
            match first {
                '/' if self.rest().starts_with("//") => self.skip_past("\n"),
                '/' if self.rest().starts_with("/*") => self.skip_block_comment(),
                '"' => self.skip_string(),
                '\'' => self.skip_quote(),
                '0'..='9' => return Some(self.number()),
                _ if is_word(first) => {
                    let word = self.take_while(is_word);
                    if !self.skip_raw_string(word) {
                        return Some(word);
                    }
                }
                _ => self.at += first.len_utf8(),
            }
        }
        None
    }

    fn take_while(&mut self, wanted: fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        loop {
            let rest = self.rest();
            match (rest.get(..2), rest.chars().next()) {
                (Some("/*"), _) => (depth, self.at) = (depth + 1, self.at + 2),
                (Some("*/"), _) => (depth, self.at) = (depth - 1, self.at + 2),
                (_, Some(other)) => self.at += other.len_utf8(),
                (_, None) => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// At a `"`: skips the string that it opens.
    fn skip_string(&mut self) {
        self.at += 1;
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    self.at += offset + 1;
                    return;
                }
                _ => {}
            }
        }
        self.at = self.source.len();
    }

    /// Behind `prefix`: skips the raw string it opens, if it does. `r#name` opens none.
    fn skip_raw_string(&mut self, prefix: &str) -> bool {
        if !matches!(prefix, "r" | "br" | "cr") {
            return false;
        }
        let hashes = self.rest().bytes().take_while(|&b| b == b'#').count();
        if !self.rest()[hashes..].starts_with('"') {
            return false;
        }
        self.at += hashes + 1;
        self.skip_past(&format!("\"{}", "#".repeat(hashes)));
        true
    }

    /// At a `'`: skips a character, or only the quote of a lifetime.
    fn skip_quote(&mut self) {
        self.at += 1;
        let mut rest = self.rest().chars();
        match (rest.next(), rest.next()) {
            (Some('\\'), Some(escaped)) => {
                self.at += 1 + escaped.len_utf8();
                self.skip_past("'");
            }
            (Some(c), Some('\'')) => self.at += c.len_utf8() + 1,
            _ => {}
        }
    }

    /// At a digit: the number, with its fraction unless it is a range or the field of a tuple.
    fn number(&mut self) -> &'a str {
        let start = self.at;
        let before = &self.source[..start];
        let is_field = before.ends_with('.') && !before.ends_with("..");
        self.take_while(is_word);
        let fraction = self.rest().strip_prefix('.').filter(|after| {
            let next = after.chars().next();
            !next.is_some_and(|c| c == '.' || c == '_' || c.is_alphabetic())
        });
        if fraction.is_some() && !is_field {
            self.at += 1;
            self.take_while(is_word);
        }
        &self.source[start..self.at]
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &[&str]) {
        let found: Vec<&str> = words(source).iter().map(|word| word.text).collect();
        assert_eq!(found, expected, "{source}");
    }

    #[test]
    fn comments_strings_and_characters_hold_no_words() {
        check("a // b\nc", &["a", "c"]);
        check("a /* b /* c */ d */ e", &["a", "e"]);
        check("//! unsafe\n/// unsafe", &[]);
        check(r#"a "b \" c" d"#, &["a", "d"]);
        check(r##"a r#"b " c"# d br"e\" f"##, &["a", "d", "f"]);
        check(r"'a' 'é' '\'' '\u{41}' b'\n' x", &["b", "x"]);
        check("fn f<'a>(x: &'a str)", &["fn", "f", "a", "x", "a", "str"]);
        check("r#type", &["r", "type"]);
        check("\"never closed", &[]);
        check("/* never closed é", &[]);
        check("'", &[]);
    }

    #[test]
    fn floats_are_told_from_integers_ranges_and_fields() {
        let float = |source| words(source).iter().any(Word::is_float);
        for source in ["1.5", "2.", "1e9", "1e-9", "3f32", "4_f64", "0..1.5", "x(1.0)"] {
            assert!(float(source), "{source}");
        }
        for source in ["15", "0..15", "x.0.1", "0xe5", "0xf32", "7usize", "1.max(2)", "f32"] {
            assert!(!float(source), "{source}");
        }
    }

    #[test]
    fn words_know_their_line() {
        let found = words("a\n\"x\ny\"\nb");
        assert_eq!(found, [Word { line: 1, text: "a" }, Word { line: 4, text: "b" }]);
    }
}
