//! Server-sent events, line by line: bytes in, data out, bounded.

use crate::error::AskError;

/// The longest line. A piece is a token or a few; whole answers in one event are still far shorter.
pub(crate) const LINE_BYTES_MAX: usize = 256 << 10;

/// Cuts a stream of bytes into the data of its events.
///
/// Departs from the specification where services do: data of several lines is one event a line, and
/// every other field is ignored.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
    /// Where in `pending` no line end was found yet.
    searched: usize,
}

impl Lines {
    /// Takes in `bytes`.
    ///
    /// # Errors
    /// [`AskError::Line`] once a line is too long, whether it has ended or not.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), AskError> {
        self.pending.extend_from_slice(bytes);
        let open = self.pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if self.pending.len() - open > LINE_BYTES_MAX {
            return Err(AskError::Line { max: LINE_BYTES_MAX });
        }
        Ok(())
    }

    /// The next event's data, without the blanks around it. Nothing, if no further line is complete.
    ///
    /// # Errors
    /// [`AskError::Line`], or [`AskError::Malformed`] if it is no text.
    pub fn next(&mut self) -> Result<Option<String>, AskError> {
        while let Some(end) = self.pending[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..self.searched + end + 1).collect();
            self.searched = 0;
            if line.len() > LINE_BYTES_MAX {
                return Err(AskError::Line { max: LINE_BYTES_MAX });
            }
            let line = std::str::from_utf8(&line)
                .map_err(|_| AskError::Malformed { reason: "a line that is no text".into() })?;
            if let Some(data) = line.strip_prefix("data:").map(str::trim).filter(|d| !d.is_empty())
            {
                return Ok(Some(data.to_owned()));
            }
        }
        self.searched = self.pending.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, AskError> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece)?;
            while let Some(data) = lines.next()? {
                found.push(data);
            }
        }
        Ok(found)
    }

    #[test]
    fn data_is_found_among_comments_and_other_fields() {
        let text =
            b": hello\n\nevent: x\r\ndata: {\"a\":1}\r\n\ndata:[DONE]\n\ndata:\nid: 3\ndata: cut";
        assert_eq!(read(&[text]), Ok(vec!["{\"a\":1}".into(), "[DONE]".into()]));
    }

    #[test]
    fn a_line_is_bounded_whether_it_ends_or_not() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        let expected = Err(AskError::Line { max: LINE_BYTES_MAX });
        assert_eq!(read(&[&long]), expected);
        assert_eq!(read(&[&[&long[..], b"\n"].concat()]), expected);
        assert_eq!(read(&[b"data: a\n", &long]), expected);
        assert!(matches!(read(&[b"data: \xff\n"]), Err(AskError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn cuts_between_pieces_change_nothing(
            text in "(data: ?[a-z]{0,9}\r?\n|: [a-z]*\n|\n){0,20}", cuts in prop::collection::vec(1usize..9, 0..99),
        ) {
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = left;
            }
            pieces.push(rest);
            prop_assert_eq!(read(&pieces), read(&[text.as_bytes()]));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = read(&[&bytes]);
        }
    }
}
