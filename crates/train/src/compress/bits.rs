//! Numbers of any width, one after the other: the lowest bit of a number first, into the lowest free bit of a byte.

/// Appends numbers to bytes.
pub struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl<'a> BitWriter<'a> {
    pub const fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, pending: 0, pending_bits: 0 }
    }

    /// `width` is at most 32, and `number` has no bit beyond it.
    pub fn write(&mut self, number: u32, width: u32) {
        self.pending |= u64::from(number) << self.pending_bits;
        self.pending_bits += width;
        while self.pending_bits >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.pending_bits -= 8;
        }
    }

    /// Fills the last byte with zeros.
    pub fn finish(self) {
        if self.pending_bits > 0 {
            self.bytes.push(self.pending as u8);
        }
    }
}

/// Takes numbers from bytes; beyond their end all bits are zero.
pub struct BitReader<'a> {
    bytes: std::slice::Iter<'a, u8>,
    pending: u64,
    pending_bits: u32,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter(), pending: 0, pending_bits: 0 }
    }

    /// `width` is at most 32.
    pub fn read(&mut self, width: u32) -> u32 {
        while self.pending_bits < width {
            let byte = self.bytes.next().copied().unwrap_or_default();
            self.pending |= u64::from(byte) << self.pending_bits;
            self.pending_bits += 8;
        }
        let number = self.pending & ((1 << width) - 1);
        self.pending >>= width;
        self.pending_bits -= width;
        number as u32
    }

    /// Whether all that follows is zero.
    pub fn rest_is_zero(self) -> bool {
        self.pending == 0 && self.bytes.into_iter().all(|&byte| byte == 0)
    }
}
