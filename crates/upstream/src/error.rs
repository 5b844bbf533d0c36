//! Why a service cannot be asked, and why an answer failed.

/// Settings of a service that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ServiceError {
    /// Names stand in headers and on the command line.
    #[error(
        "{found:?} names no upstream, expected 1 to {max} letters, digits, dots, dashes or underscores"
    )]
    Name { found: String, max: usize },
    /// The address is none, or one that cannot be asked.
    #[error(
        "upstream {name} has the address {found:?}: {reason}, expected such as https://api.example.com/v1"
    )]
    Address { name: String, found: String, reason: String },
    /// The key cannot be part of a request.
    #[error(
        "the key of an upstream is empty or has blanks or control characters, expected one line of text"
    )]
    Key,
    /// Everybody on the way could read the key.
    #[error(
        "upstream {name} has a key and the address {found:?}, over which it would travel unprotected: use https"
    )]
    Unprotected { name: String, found: String },
    /// The HTTP client could not be made.
    #[error("no HTTP client: {reason}")]
    Client { reason: String },
}

/// Why a service gave no answer, or why its answer broke off. Messages hold no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum AskError {
    /// No connection, or one that broke.
    #[error("it cannot be reached: {reason}")]
    Unreachable { reason: String },
    /// Status 401 or 403. What it says about the key is not repeated.
    #[error("it refuses the key, or wants one ({status})")]
    Key { status: u16 },
    /// Another status that is no success.
    #[error("it answers {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status { status: u16, message: String },
    /// It wants the question put elsewhere, where the key must not go.
    #[error("it redirects ({status}), expected an answer: give its real address")]
    Redirect { status: u16 },
    /// Nothing came for too long.
    #[error("it said nothing for {seconds} s")]
    Silent { seconds: u64 },
    /// The whole answer takes too long.
    #[error("its answer is not complete after {seconds} s")]
    Slow { seconds: u64 },
    /// The answer ended without saying that this is its end.
    #[error("its answer was cut off")]
    Cut,
    /// A line that no sound answer has.
    #[error("it sends a line of more than {max} bytes")]
    Line { max: usize },
    /// More text than was asked for.
    #[error("it sends more than {max} bytes of text, more than was asked for")]
    Long { max: usize },
    /// Something that is no part of an answer.
    #[error("it sends what is no answer: {reason}")]
    Malformed { reason: String },
    /// It gave up in the middle.
    #[error("it gave up: {message}")]
    Failed { message: String },
}
