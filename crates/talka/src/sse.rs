//! Reads server-sent events: the `data:` lines of a stream that arrives in arbitrary pieces.
//!
//! Covers what the OpenAI interface sends: one `data:` line an event, `[DONE]` at the end. Other
//! fields and comments are skipped.

/// The longest line accepted, in bytes: far above one token's event, low enough for any machine.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A line longer than any event of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer has a line of over {LINE_BYTES_MAX} bytes, expected short events")]
pub struct LineTooLong;

/// Collects pieces until lines are complete.
#[derive(Debug, Default)]
pub struct SseReader {
    pending: Vec<u8>,
}

impl SseReader {
    /// Adds a piece and returns the data of every event line it completed.
    ///
    /// # Errors
    /// [`LineTooLong`] if the sender is no node.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<String>, LineTooLong> {
        let mut data = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(part);
            if self.pending.len() > LINE_BYTES_MAX {
                return Err(LineTooLong);
            }
            if self.pending.ends_with(b"\n") {
                data.extend(event_data(&self.pending));
                self.pending.clear();
            }
        }
        Ok(data)
    }
}

fn event_data(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let data = line.trim_end_matches(['\r', '\n']).strip_prefix("data:")?;
    Some(data.strip_prefix(' ').unwrap_or(data).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let stream = ": hello\r\nevent: x\ndata: {\"a\":\"ü\"}\n\ndata:[DONE]\n\n".as_bytes();
        for size in 1..=stream.len() {
            let mut reader = SseReader::default();
            let data: Vec<_> =
                stream.chunks(size).flat_map(|piece| reader.push(piece).expect("short")).collect();
            assert_eq!(data, ["{\"a\":\"ü\"}", "[DONE]"], "pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut reader = SseReader::default();
        assert_eq!(reader.push(&[b'x'; LINE_BYTES_MAX]), Ok(vec![]));
        assert_eq!(reader.push(b"x"), Err(LineTooLong));
    }
}
