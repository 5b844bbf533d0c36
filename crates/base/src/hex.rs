//! Lower-case hexadecimal, the one way ids and signatures are shown and typed.

use data_encoding::HEXLOWER_PERMISSIVE;

/// Why text is not the hexadecimal form of `N` bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, found {found:?}")]
pub struct HexError {
    /// Digits expected.
    pub expected: usize,
    /// The text found, cut to a printable length.
    pub found: String,
}

/// `2 * bytes.len()` lower-case digits.
pub fn show(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Exactly `N` bytes from `2 * N` digits of either case.
///
/// # Errors
/// [`HexError`] if the length or a digit is wrong.
pub fn parse<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| HexError { expected: 2 * N, found: text.chars().take(80).collect() })
}
