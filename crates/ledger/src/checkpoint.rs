//! The text of a checkpoint: which log, how many entries, which root (C2SP tlog-checkpoint).
//!
//! Any log's checkpoint is read, so that tools of other logs and ours fit together; what the
//! further lines of ours mean is [`Block`](crate::Block)'s affair. One checkpoint has one spelling.

use data_encoding::BASE64;
use std::{fmt, str::FromStr};
use talka_base::TreeHash;

/// A log's name, size and root, and lines for whoever knows what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name; not empty.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// The root of the tree over them.
    pub root: TreeHash,
    /// Further lines, none empty.
    pub extension: Vec<String>,
}

/// Text that is no checkpoint, or not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the checkpoint: expected {expected}")]
pub struct CheckpointError {
    /// Counted from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: &'static str,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, base64(&self.root))?;
        self.extension.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let fault = |line, expected| CheckpointError { line, expected };
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        if let Some(at) = lines.iter().position(|line| line.is_empty()) {
            return Err(fault(at + 1, "no empty line"));
        }
        let [origin, size, root, extension @ ..] = lines.as_slice() else {
            return Err(fault(lines.len() + 1, "at least three lines"));
        };
        if !text.ends_with('\n') {
            return Err(fault(lines.len(), "a newline at its end"));
        }
        Ok(Self {
            origin: (*origin).into(),
            size: number(size).ok_or(fault(2, "a number without leading zeros"))?,
            root: hash(root).ok_or(fault(3, "32 bytes in base64"))?,
            extension: extension.iter().map(|&line| line.into()).collect(),
        })
    }
}

/// A hash as checkpoints and proofs spell it.
pub(crate) fn base64(hash: &TreeHash) -> String {
    BASE64.encode(&hash.0)
}

/// Reads what [`base64`] wrote.
pub(crate) fn hash(text: &str) -> Option<TreeHash> {
    // Checked first, so that nothing long is decoded.
    let bytes = (text.len() == 44).then(|| from_base64(text))?;
    Some(TreeHash(bytes?.try_into().ok()?))
}

/// Bytes from base64, if it is written in the one way in which it is written here: the library takes padding in the middle too, as of
/// texts that were put together.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let is_padded_within = text.trim_end_matches('=').contains('=');
    if is_padded_within { None } else { BASE64.decode(text.as_bytes()).ok() }
}

/// A number in decimal, without sign or leading zeros.
pub(crate) fn number(text: &str) -> Option<u64> {
    let number = text.parse::<u64>().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::SignedNote;

    /// The example of C2SP tlog-checkpoint and, with the second line, of tlog-cosignature.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Z\
        hcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJ\
        sX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

    #[test]
    fn the_published_example_is_read_and_written_alike() {
        let note = SignedNote::parse(EXAMPLE.as_bytes()).expect("a note");
        let checkpoint: Checkpoint = note.text().parse().expect("a checkpoint");
        assert_eq!(checkpoint.origin, "example.com/behind-the-sofa");
        assert_eq!(checkpoint.size, 20_852_163);
        assert!(checkpoint.extension.is_empty());
        assert_eq!(checkpoint.to_string(), note.text());
        assert_eq!(note.to_string(), EXAMPLE);
    }

    #[test]
    fn what_is_no_checkpoint_is_refused_with_its_line() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        let check = |text: String, line: usize| {
            let error = text.parse::<Checkpoint>().expect_err("no checkpoint");
            assert_eq!(error.line, line, "{text:?}: {error}");
        };
        check(String::new(), 1);
        check("o\n1\n".into(), 3);
        check(format!("o\n1\n{root}"), 3);
        check(format!("\n1\n{root}\n"), 1);
        for number in ["01", "+1", "-1", "1 ", "18446744073709551616", "x"] {
            check(format!("o\n{number}\n{root}\n"), 2);
        }
        for root in [&root[4..], "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=", "x"] {
            check(format!("o\n1\n{root}\n"), 3);
        }
        check(format!("o\n1\n{root}\nmore\n\nmore\n"), 5);
    }
}
