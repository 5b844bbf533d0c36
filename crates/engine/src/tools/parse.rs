//! Text of an answer to text and calls, as it comes.
//!
//! Decides when a call is certain: once its JSON names a function of the request and its arguments begin, or
//! where the parts come in another order, once it is whole. From then on its arguments are handed on as they
//! come, and what else the model says of the call is dropped. Until then everything is held; what turns out
//! to be no call is text, letter by letter. Blanks beside calls belong to nobody.
//!
//! A pure machine, fed letter by letter: how its input is cut changes nothing. It never judges arguments beyond
//! where they end; a model that is not held to a grammar may break their JSON.

use super::ToolFormat;
use serde_json::Value;
use std::mem;

/// How much of a call's JSON is read in search of the beginning of its arguments; what has a longer one is
/// read when it is whole. Names have 64 bytes at most.
const HEAD_BYTES_MAX: usize = 256;

/// How many blanks are held in front of what may be a call; more are said.
const BLANKS_MAX: usize = 256;

/// A part of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallPart {
    /// Counts the calls of an answer from 0.
    pub index: u32,
    /// The function, in the first part of a call.
    pub name: Option<String>,
    /// More of the JSON of its arguments.
    pub arguments: String,
}

/// What some text of an answer is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// What the model says to people.
    pub text: String,
    /// What it calls.
    pub calls: Vec<CallPart>,
}

impl Parsed {
    /// Adds what comes after it.
    pub fn extend(&mut self, later: Self) {
        self.text += &later.text;
        for part in later.calls {
            match self.calls.last_mut() {
                Some(last) if part.name.is_none() && last.index == part.index => {
                    last.arguments += &part.arguments;
                }
                _ => self.calls.push(part),
            }
        }
    }

    fn argument(&mut self, index: u32, text: &str) {
        let part = CallPart { index, name: None, arguments: text.into() };
        self.extend(Self { text: String::new(), calls: vec![part] });
    }
}

/// Reads one answer.
#[derive(Debug, Clone)]
pub struct ToolParser {
    format: ToolFormat,
    names: Vec<String>,
    state: State,
    /// Read but not handed on.
    held: String,
    /// Calls that are certain.
    calls: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// In text. A bare call may come only before any.
    Text { said: bool },
    /// Behind the opening mark.
    Opened { listed: bool },
    /// In JSON that may be a call; it starts at `start` of what is held.
    Object { listed: bool, start: usize, nesting: Nesting, readable: bool },
    /// In the arguments of the last call.
    Arguments { listed: bool, nesting: Nesting },
    /// In what the last call's object holds behind its arguments.
    Rest { listed: bool, nesting: Nesting },
    /// Behind a call.
    Called { listed: bool },
}

impl ToolParser {
    /// For an answer in `format` that may call the functions `names`.
    pub fn new(format: ToolFormat, names: Vec<String>) -> Self {
        Self { format, names, state: State::Text { said: false }, held: String::new(), calls: 0 }
    }

    /// How many calls are certain.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Takes in more of the answer.
    pub fn push(&mut self, text: &str) -> Parsed {
        let mut out = Parsed::default();
        text.chars().for_each(|letter| self.step(letter, &mut out));
        out
    }

    /// What was still held, when nothing follows.
    pub fn finish(&mut self) -> Parsed {
        let held = mem::take(&mut self.held);
        let is_text = match mem::replace(&mut self.state, State::Text { said: true }) {
            State::Text { .. } => self.calls == 0 || !held.trim().is_empty(),
            State::Opened { .. } | State::Object { .. } => true,
            State::Arguments { .. } | State::Rest { .. } | State::Called { .. } => false,
        };
        Parsed { text: if is_text { held } else { String::new() }, calls: Vec::new() }
    }

    fn step(&mut self, letter: char, out: &mut Parsed) {
        match self.state {
            State::Text { said } => self.text(letter, said, out),
            State::Opened { listed } => self.opened(letter, listed, out),
            State::Object { .. } => self.object(letter, out),
            State::Arguments { listed, mut nesting } => {
                out.argument(self.calls - 1, letter.encode_utf8(&mut [0; 4]));
                self.state = match nesting.closes(letter) {
                    true => State::Rest { listed, nesting: Nesting::inside() },
                    false => State::Arguments { listed, nesting },
                };
            }
            State::Rest { listed, nesting } => self.rest(letter, listed, nesting, out),
            State::Called { listed } => self.called(letter, listed, out),
        }
    }

    fn text(&mut self, letter: char, said: bool, out: &mut Parsed) {
        self.held.push(letter);
        if letter == '{' && !said && self.format.is_bare() && self.held.trim_start() == "{" {
            return self.begin(false);
        }
        let mark = self.format.opening().unwrap_or_default();
        if !mark.is_empty() && self.held.ends_with(mark) {
            self.state = State::Opened { listed: false };
            return;
        }
        let begun = (1..mark.len()).rev().find(|end| self.held.ends_with(&mark[..*end]));
        let before = &self.held[..self.held.len() - begun.unwrap_or(0)];
        let certain = match before.len() {
            0..=BLANKS_MAX => before.trim_end().len(),
            all => all,
        };
        if certain > 0 {
            out.text.extend(self.held.drain(..certain));
            self.state = State::Text { said: true };
        }
    }

    /// The last letter held opens JSON.
    fn begin(&mut self, listed: bool) {
        let (start, nesting) = (self.held.len() - 1, Nesting::inside());
        self.state = State::Object { listed, start, nesting, readable: true };
    }

    fn opened(&mut self, letter: char, listed: bool, out: &mut Parsed) {
        self.held.push(letter);
        match letter {
            '{' => self.begin(listed),
            '[' if self.format == ToolFormat::Mistral && !listed => {
                self.state = State::Opened { listed: true };
            }
            letter if letter.is_whitespace() => {}
            _ => self.give_up(out),
        }
    }

    fn object(&mut self, letter: char, out: &mut Parsed) {
        let State::Object { listed, start, mut nesting, mut readable } = self.state else { return };
        self.held.push(letter);
        let closed = nesting.closes(letter);
        let object = &self.held[start..];
        if readable {
            match head(object) {
                Head::Arguments(name) if self.names.iter().any(|known| known == name) => {
                    let name = name.to_owned();
                    self.call(name, "{", out);
                    self.state = State::Arguments { listed, nesting: Nesting::inside() };
                    return;
                }
                Head::Short => {}
                Head::Arguments(_) | Head::Other => readable = false,
            }
        }
        self.state = State::Object { listed, start, nesting, readable };
        if !closed {
            return;
        }
        match whole(object).filter(|(name, _)| self.names.contains(name)) {
            Some((name, arguments)) => {
                self.call(name, &arguments, out);
                self.state = State::Called { listed };
            }
            None => self.give_up(out),
        }
    }

    fn call(&mut self, name: String, arguments: &str, out: &mut Parsed) {
        let arguments = arguments.to_owned();
        out.calls.push(CallPart { index: self.calls, name: Some(name), arguments });
        self.calls += 1;
        self.held.clear();
    }

    fn rest(&mut self, letter: char, listed: bool, mut nesting: Nesting, out: &mut Parsed) {
        let is_json =
            |c: char| c.is_alphanumeric() || c.is_whitespace() || "{}[]\":,.+-".contains(c);
        if !nesting.in_string && !is_json(letter) {
            // A brace is missing.
            self.state = State::Called { listed };
            return self.called(letter, listed, out);
        }
        self.state = match nesting.closes(letter) {
            true => State::Called { listed },
            false => State::Rest { listed, nesting },
        };
    }

    fn called(&mut self, letter: char, listed: bool, out: &mut Parsed) {
        self.held.push(letter);
        let (held, is_long) = (self.held.trim(), self.held.len() > BLANKS_MAX);
        let (opening, closing) = (self.format.opening(), self.format.closing());
        let begins = |mark: Option<&str>| mark.is_some_and(|mark| mark.starts_with(held));
        if listed && held == "]" || closing == Some(held) {
            self.held.clear();
            self.state = State::Text { said: true };
        } else if closing.is_none() && opening == Some(held) {
            self.state = State::Opened { listed: false };
        } else if closing.is_none() && letter == '{' && separates(held) {
            self.begin(listed);
        } else {
            let separated = closing.is_none() && matches!(held, "" | "," | ";");
            if is_long || !separated && !begins(closing.or(opening)) {
                self.give_up(out);
            }
        }
    }

    /// What is held is text, but its last letter may begin something.
    fn give_up(&mut self, out: &mut Parsed) {
        self.state = State::Text { said: true };
        if let Some(last) = self.held.pop() {
            out.text += &mem::take(&mut self.held);
            self.text(last, true, out);
        }
    }
}

/// Whether `held` is at most one separator and the brace of the next call.
fn separates(held: &str) -> bool {
    let before = held.strip_suffix('{').unwrap_or(held).trim_end();
    matches!(before, "" | "," | ";")
}

/// How deep a letter of JSON stands.
#[derive(Debug, Clone, Copy)]
struct Nesting {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Behind the brace that opens an object.
    fn inside() -> Self {
        Self { depth: 1, in_string: false, escaped: false }
    }

    /// Whether `letter` closes what was open first.
    fn closes(&mut self, letter: char) -> bool {
        if self.in_string {
            let ends = letter == '"' && !self.escaped;
            self.escaped = letter == '\\' && !self.escaped;
            self.in_string = !ends;
            return false;
        }
        match letter {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth == 0
    }
}

/// What the beginning of a call's JSON says.
#[derive(Debug, PartialEq)]
enum Head<'a> {
    /// Nothing yet.
    Short,
    /// The function; its arguments begin with the last letter.
    Arguments(&'a str),
    /// The usual parts do not come in the usual order.
    Other,
}

/// Reads `{"name": "…", "arguments": {`, with blanks anywhere.
fn head(object: &str) -> Head<'_> {
    if object.len() > HEAD_BYTES_MAX {
        return Head::Other;
    }
    name(object).map_or_else(|head| head, Head::Arguments)
}

/// The function, if its arguments have begun.
fn name(object: &str) -> Result<&str, Head<'_>> {
    let name = after(after(after(after(object, "{")?, "\"name\"")?, ":")?, "\"")?;
    let end = name.find(['"', '\\']).ok_or(Head::Short)?;
    let (name, rest) = name.split_at(end);
    let rest = after(after(rest, "\"")?, ",")?;
    let rest = match after(rest, "\"arguments\"") {
        Err(Head::Other) => after(rest, "\"parameters\"")?,
        read => read?,
    };
    after(after(rest, ":")?, "{")?;
    Ok(name)
}

/// What follows `expected`, before which blanks may stand.
fn after<'a>(text: &'a str, expected: &str) -> Result<&'a str, Head<'a>> {
    let text = text.trim_start();
    match text.strip_prefix(expected) {
        Some(rest) => Ok(rest),
        None if expected.starts_with(text) => Err(Head::Short),
        None => Err(Head::Other),
    }
}

/// Function and arguments of a call that is whole, whatever the order of its parts. Some models write arguments as
/// text that holds the object.
fn whole(object: &str) -> Option<(String, String)> {
    let call: Value = serde_json::from_str(object).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = match call.get("arguments").or_else(|| call.get("parameters")) {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(object @ Value::Object(_)) => object.to_string(),
        Some(Value::String(text)) => {
            serde_json::from_str::<serde_json::Map<String, Value>>(text).ok()?;
            text.clone()
        }
        Some(_) => return None,
    };
    Some((name, arguments))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
