//! Training text: where it comes from, and the order in which a model sees it.
//!
//! Decides how files become documents, documents one row of tokens, and that row windows of a fixed length, shuffled by
//! a seed. The order depends on the seed and the position alone, so training goes on after a pause with the next window
//! that it would have seen. Never changes a file.

mod order;
mod parquet;

use crate::tokens::TextTokenizer;
use crate::trainer::Batch;
pub use order::Order;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A file of text, and how documents lie in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "lowercase", deny_unknown_fields)]
pub enum TextSource {
    /// All of it is one document.
    Text {
        /// The file.
        path: PathBuf,
    },
    /// One JSON object a line, one document each.
    JsonLines {
        /// The file.
        path: PathBuf,
        /// The object's field with the text.
        field: String,
    },
    /// A table, one document a row.
    Parquet {
        /// The file.
        path: PathBuf,
        /// The column with the text.
        column: String,
    },
}

/// What is wrong with training text, by the name of the file where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum DataError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no text", path.display())]
    Empty { path: PathBuf },
    #[error("{} is not UTF-8 from byte {at} on; convert it, for example with iconv", path.display())]
    NotUtf8 { path: PathBuf, at: usize },
    #[error("{}, line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("{}, column {column:?}: {reason}", path.display())]
    Column { path: PathBuf, column: String, reason: String },
    #[error("a vocabulary of {found} tokens, byte-level BPE needs at least {least}")]
    Vocabulary { found: u32, least: u32 },
    #[error(
        "the character {found:?} is none of the vocabulary's; train the tokenizer on all of the text"
    )]
    Character { found: char },
    #[error("the tokenizer failed: {source}")]
    Tokenizer { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{tokens} tokens of text for {what}, a window of {length} needs at least {}", length + 1)]
    TooShort { what: &'static str, tokens: usize, length: usize },
    #[error("a share of {found} for validation, expected at least 0 and below 1")]
    Share { found: f64 },
}

impl TextSource {
    /// The documents of the file, in order, none of them empty.
    ///
    /// # Errors
    /// The file is missing, empty or not UTF-8, or a line or column is not what was said.
    pub fn documents(&self) -> Result<Vec<String>, DataError> {
        let documents = match self {
            Self::Text { path } => vec![read(path)?],
            Self::JsonLines { path, field } => {
                let text = read(path)?;
                let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
                lines
                    .map(|(at, line)| {
                        document(line, field).map_err(|reason| DataError::Line {
                            path: path.clone(),
                            line: at + 1,
                            reason,
                        })
                    })
                    .collect::<Result<_, _>>()?
            }
            Self::Parquet { path, column } => {
                parquet::texts(&bytes(path)?, column).map_err(|reason| DataError::Column {
                    path: path.clone(),
                    column: column.clone(),
                    reason,
                })?
            }
        };
        let documents: Vec<String> =
            documents.into_iter().filter(|document| !document.is_empty()).collect();
        if documents.is_empty() {
            return Err(DataError::Empty { path: self.path().to_owned() });
        }
        Ok(documents)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Text { path } | Self::JsonLines { path, .. } | Self::Parquet { path, .. } => path,
        }
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(|source| DataError::Read { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<String, DataError> {
    String::from_utf8(bytes(path)?).map_err(|error| DataError::NotUtf8 {
        path: path.to_owned(),
        at: error.utf8_error().valid_up_to(),
    })
}

/// The text of one line of JSON.
fn document(line: &str, field: &str) -> Result<String, String> {
    let value: serde_json::Value =
        serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))?;
    match value.get(field) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("field {field:?} is {other}, expected a string")),
        None => Err(format!("no field {field:?}")),
    }
}

/// Tokens to learn from and tokens to judge by, one row each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSplit {
    /// To learn from.
    pub train: Vec<u32>,
    /// To judge by: the end of the text.
    pub validation: Vec<u32>,
}

/// All documents as tokens, each but the last followed by the end of text where the tokenizer has one, and the last
/// `validation_share` of them set aside.
///
/// # Errors
/// A character is unknown, or the share is not below 1.
pub fn tokenize(
    documents: &[String],
    tokenizer: &TextTokenizer,
    validation_share: f64,
) -> Result<TokenSplit, DataError> {
    if !(0.0..1.0).contains(&validation_share) {
        return Err(DataError::Share { found: validation_share });
    }
    let mut tokens = Vec::new();
    for document in documents {
        if !tokens.is_empty() {
            tokens.extend(tokenizer.end());
        }
        tokens.extend(tokenizer.encode(document)?);
    }
    let cut = tokens.len() - (tokens.len() as f64 * validation_share) as usize;
    let validation = tokens.split_off(cut);
    Ok(TokenSplit { train: tokens, validation })
}

/// Windows of `length + 1` tokens, in a shuffled order that starts anew, elsewhere, when all were seen.
#[derive(Debug, Clone)]
pub struct Windows<'a> {
    tokens: &'a [u32],
    order: Order,
}

impl<'a> Windows<'a> {
    /// Windows of `tokens` in the order of `seed`.
    ///
    /// # Errors
    /// There are too few tokens for one.
    pub fn new(tokens: &'a [u32], length: usize, seed: u64) -> Result<Self, DataError> {
        match Order::new(tokens.len(), length, seed) {
            Some(order) => Ok(Self { tokens, order }),
            None => Err(DataError::TooShort { what: "training", tokens: tokens.len(), length }),
        }
    }

    /// The window at `position` of the endless order.
    pub fn at(&self, position: u64) -> &'a [u32] {
        &self.tokens[self.order.window(position)]
    }

    /// `rows` windows from `position` on; the next batch begins at `position + rows`.
    pub fn batch(&self, position: u64, rows: usize) -> Batch {
        let positions = position..position + rows as u64;
        Batch { tokens: positions.flat_map(|at| self.at(at)).copied().collect(), rows }
    }

    /// Windows until every token was seen once.
    pub fn per_epoch(&self) -> u64 {
        self.order.per_epoch()
    }
}

/// Batches that cover `tokens` once, in their order, for judging a model.
///
/// # Errors
/// There are too few tokens for one window.
pub fn validation_batches(
    tokens: &[u32],
    length: usize,
    rows: usize,
) -> Result<Vec<Batch>, DataError> {
    if tokens.len() <= length {
        return Err(DataError::TooShort { what: "validation", tokens: tokens.len(), length });
    }
    let windows: Vec<&[u32]> = tokens.windows(length + 1).step_by(length).collect();
    let batch = |windows: &[&[u32]]| Batch { tokens: windows.concat(), rows: windows.len() };
    Ok(windows.chunks(rows.max(1)).map(batch).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(contents: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), contents).expect("written");
        file
    }

    fn lines(path: &Path) -> TextSource {
        TextSource::JsonLines { path: path.to_owned(), field: "text".to_owned() }
    }

    /// The message names the file and says `reason`.
    fn refused(source: &TextSource, reason: &str) {
        let message = source.documents().expect_err(reason).to_string();
        assert!(message.contains(reason), "{message}");
        assert!(message.contains(&*source.path().to_string_lossy()), "{message}");
    }

    #[test]
    fn documents_are_read_in_order() {
        let text = file("eins\nzwei".as_bytes());
        let source = TextSource::Text { path: text.path().to_owned() };
        assert_eq!(source.documents().expect("read"), ["eins\nzwei"]);
        let json =
            file(b"{\"text\": \"eins\", \"id\": 1}\n\n{\"text\": \"\"}\n{\"text\": \"zwei\"}\n");
        assert_eq!(lines(json.path()).documents().expect("read"), ["eins", "zwei"]);
    }

    #[test]
    fn bad_files_are_named_with_the_reason() {
        let missing = TextSource::Text { path: "/nowhere/text.txt".into() };
        refused(&missing, "cannot be read");
        let text = |contents: &[u8]| {
            let file = file(contents);
            (TextSource::Text { path: file.path().to_owned() }, file)
        };
        let (empty, _file) = text(b"");
        refused(&empty, "holds no text");
        let (latin, _file) = text(b"f\xfcr");
        refused(&latin, "not UTF-8 from byte 1");
        for (contents, reason) in [
            ("{\"text\": \"a\"}\nnonsense", "line 2: not a JSON object"),
            ("{\"body\": \"a\"}", "line 1: no field \"text\""),
            ("{\"text\": 3}", "line 1: field \"text\" is 3"),
            ("\n", "holds no text"),
        ] {
            let json = file(contents.as_bytes());
            refused(&lines(json.path()), reason);
        }
        let (path, column) = (latin.path().to_owned(), "text".to_owned());
        refused(&TextSource::Parquet { path, column }, "column \"text\": not a Parquet file");
    }

    #[test]
    fn the_end_of_the_text_is_set_aside() {
        let tokenizer = TextTokenizer::characters(["abc"]);
        let split = tokenize(&["abcabcabca".to_owned()], &tokenizer, 0.2).expect("known");
        assert_eq!((split.train.len(), split.validation), (8, vec![2, 0]));
        assert!(tokenize(&[], &tokenizer, 1.0).is_err());
    }

    #[test]
    fn validation_asks_for_every_token_once() {
        let tokens: Vec<u32> = (0..10).collect();
        let batches = validation_batches(&tokens, 3, 2).expect("enough");
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0].tokens, [0, 1, 2, 3, 3, 4, 5, 6]);
        assert_eq!(batches[1].tokens, [6, 7, 8, 9]);
        assert!(validation_batches(&tokens, 10, 1).is_err());
    }
}
