//! What an answer consists of: text, and calls of functions, one after the other.
//!
//! Decides where a block begins and ends, for dialects that tell it. A block begins with the first thing said in it;
//! an answer that said nothing is one empty text. Log-probabilities are text's: tokens that came before any text wait
//! for it, and those of calls are told nowhere.

use std::mem;
use talka_node::api::{Piece, TokenReport};

/// A part of an answer that is of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// What it says.
    Text {
        /// All of it.
        text: String,
        /// Its tokens, if they were asked for.
        tokens: Vec<TokenReport>,
    },
    /// What it calls.
    Call {
        /// Which call of the answer this is.
        number: u32,
        /// The function.
        name: String,
        /// JSON.
        arguments: String,
    },
}

/// What happened to the block at a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It begins; nothing is in it yet.
    Opens(usize),
    /// More text.
    Text(usize, String, Vec<TokenReport>),
    /// More of a call's arguments.
    Arguments(usize, String),
    /// It is complete.
    Closes(usize),
}

/// An answer as far as it went.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: Vec<Block>,
    /// Whether more may come to the last block.
    is_open: bool,
    /// Tokens whose text did not come yet.
    waiting: Vec<TokenReport>,
}

impl Blocks {
    /// An answer of which `pieces` are all.
    pub fn whole(pieces: Vec<Piece>) -> Self {
        let mut blocks = Self::default();
        for piece in pieces {
            blocks.add(piece);
        }
        blocks.end();
        blocks
    }

    /// In the order in which they were said.
    pub fn all(&self) -> &[Block] {
        &self.blocks
    }

    /// Adds what comes next.
    pub fn add(&mut self, piece: Piece) -> Vec<Step> {
        let Piece { text, calls, tokens, .. } = piece;
        let mut steps = Vec::new();
        self.waiting.extend(tokens);
        let goes_on = self.is_open && matches!(self.blocks.last(), Some(Block::Text { .. }));
        if !text.is_empty() || goes_on && calls.is_empty() && !self.waiting.is_empty() {
            self.say(text, &mut steps);
        }
        for part in calls {
            self.waiting.clear();
            if let Some(name) = part.name {
                let call = Block::Call { number: part.index, name, arguments: String::new() };
                self.open(call, &mut steps);
            }
            if let Some(Block::Call { arguments, .. }) = self.blocks.last_mut()
                && !part.arguments.is_empty()
            {
                arguments.push_str(&part.arguments);
                steps.push(Step::Arguments(self.blocks.len() - 1, part.arguments));
            }
        }
        steps
    }

    /// Closes what is open.
    pub fn end(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.blocks.is_empty() {
            self.say(String::new(), &mut steps);
        }
        self.close(&mut steps);
        steps
    }

    fn say(&mut self, more: String, steps: &mut Vec<Step>) {
        if !self.is_open || !matches!(self.blocks.last(), Some(Block::Text { .. })) {
            self.open(Block::Text { text: String::new(), tokens: Vec::new() }, steps);
        }
        let at = self.blocks.len() - 1;
        let news = mem::take(&mut self.waiting);
        if let Some(Block::Text { text, tokens }) = self.blocks.last_mut() {
            text.push_str(&more);
            tokens.extend_from_slice(&news);
            if !more.is_empty() || !news.is_empty() {
                steps.push(Step::Text(at, more, news));
            }
        }
    }

    fn open(&mut self, block: Block, steps: &mut Vec<Step>) {
        self.close(steps);
        self.is_open = true;
        steps.push(Step::Opens(self.blocks.len()));
        self.blocks.push(block);
    }

    fn close(&mut self, steps: &mut Vec<Step>) {
        if mem::take(&mut self.is_open) {
            steps.push(Step::Closes(self.blocks.len() - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_generation::{called, scored_piece};
    use proptest::prelude::*;

    fn text(text: &str) -> Piece {
        Piece { text: text.into(), ..Piece::default() }
    }

    #[test]
    fn text_and_calls_follow_each_other() {
        let mut blocks = Blocks::default();
        let begun = [Step::Opens(0), Step::Text(0, "So".into(), vec![])];
        assert_eq!(blocks.add(text("So")), begun);
        assert_eq!(blocks.add(called(0, Some("roll"), "")), [Step::Closes(0), Step::Opens(1)]);
        assert_eq!(blocks.add(called(0, None, "{}")), [Step::Arguments(1, "{}".into())]);
        let second = [Step::Closes(1), Step::Opens(2), Step::Arguments(2, "{".into())];
        assert_eq!(blocks.add(called(1, Some("now"), "{")), second);
        let after = [Step::Closes(2), Step::Opens(3), Step::Text(3, "!".into(), vec![])];
        assert_eq!(blocks.add(text("!")), after);
        assert_eq!(blocks.end(), [Step::Closes(3)]);
        assert_eq!(blocks.end(), []);
    }

    #[test]
    fn an_answer_without_words_is_an_empty_text() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.end(), [Step::Opens(0), Step::Closes(0)]);
        assert_eq!(blocks.all(), [Block::Text { text: String::new(), tokens: vec![] }]);
    }

    #[test]
    fn tokens_wait_for_their_text_and_those_of_calls_are_not_told() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.add(scored_piece("", -1.0)), []);
        let Piece { tokens, .. } = scored_piece("", -1.0);
        let [opens, said] = &blocks.add(text("a"))[..] else { panic!("two steps") };
        assert_eq!((opens, said), (&Step::Opens(0), &Step::Text(0, "a".into(), tokens)));
        let mut calling = called(0, Some("roll"), "{}");
        calling.tokens = scored_piece("", -1.0).tokens;
        blocks.add(scored_piece("", -2.0));
        blocks.add(calling);
        let told = blocks.all().iter().filter_map(|block| match block {
            Block::Text { tokens, .. } => Some(tokens.len()),
            Block::Call { .. } => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [2]);
    }

    proptest! {
        /// Whatever is said, blocks open and close in turn, and the steps make the blocks.
        #[test]
        fn steps_make_the_blocks(parts in prop::collection::vec((any::<bool>(), any::<bool>(), "[a-c]{0,3}"), 0..12)) {
            let mut blocks = Blocks::default();
            let mut steps = Vec::new();
            let mut number = 0;
            for (is_call, begins, said) in parts {
                // A call goes on only after it began.
                let begins = begins || number == 0;
                let piece = if is_call { called(number, begins.then_some("f"), &said) } else { text(&said) };
                number += u32::from(is_call && begins);
                steps.extend(blocks.add(piece));
            }
            steps.extend(blocks.end());
            let mut told: Vec<String> = Vec::new();
            let mut open = None;
            for step in steps {
                match step {
                    Step::Opens(at) => {
                        prop_assert_eq!((open, at), (None, told.len()));
                        open = Some(at);
                        told.push(String::new());
                    }
                    Step::Text(at, more, _) | Step::Arguments(at, more) => {
                        prop_assert_eq!(open, Some(at));
                        told[at] += &more;
                    }
                    Step::Closes(at) => prop_assert_eq!(open.take(), Some(at)),
                }
            }
            prop_assert_eq!(open, None);
            let held = blocks.all().iter().map(|block| match block {
                Block::Text { text, .. } => text.clone(),
                Block::Call { arguments, .. } => arguments.clone(),
            });
            prop_assert_eq!(held.collect::<Vec<_>>(), told);
        }
    }
}
