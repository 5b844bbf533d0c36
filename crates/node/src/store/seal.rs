//! A digest before each value, over its key and itself: altered bytes and swapped values show. And rows of such values in a
//! file, each with its length before it.

/// Bytes of the digest.
const DIGEST_BYTES: usize = 32;

/// Digest, then `bytes`.
pub fn seal(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    [digest(key, bytes).as_slice(), bytes].concat()
}

/// What was sealed under `key`, or `None` if this is not it.
pub fn open<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (found, bytes) = sealed.split_at_checked(DIGEST_BYTES)?;
    (digest(key, bytes).as_slice() == found).then_some(bytes)
}

/// A record of a row: the length of what follows (4 bytes, little endian), then `bytes` sealed under `key`.
pub fn record(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let sealed = seal(key, bytes);
    [(sealed.len() as u32).to_le_bytes().as_slice(), &sealed].concat()
}

/// What the record at the start of `rest` holds, which then begins after it; `None` if it is torn or altered.
pub fn next<'a>(key: &[u8], rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (sealed, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    open(key, sealed)
}

/// The key's length goes first, so that no byte can move between key and value.
fn digest(key: &[u8], bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(bytes);
    hasher.finalize().into()
}
