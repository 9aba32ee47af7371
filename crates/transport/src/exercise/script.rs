//! A script of bytes, as a fuzz target makes it up, read as what a driver needs next.

use relay_protocol::{encode_control, limits::CONTROL_BODY_BYTES_MAX};

/// A script, read from its beginning; at its end everything is zero.
#[derive(Debug)]
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    /// Nothing is left of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes; fewer at the end.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// The next four bytes.
    pub fn number(&mut self) -> u32 {
        let mut number = [0; 4];
        let taken = self.bytes(4);
        number[..taken.len()].copy_from_slice(taken);
        u32::from_le_bytes(number)
    }

    /// Small numbers mostly, now and then a huge one.
    pub fn count(&mut self) -> u64 {
        match self.byte() {
            0xff => u64::from(self.number()) << 32 | u64::from(self.number()),
            0xfe => self.number().into(),
            small => u64::from(small) << 12,
        }
    }

    /// A control frame with a message whose body the script writes; what is before it is right.
    pub fn control(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte()) * 5 % CONTROL_BODY_BYTES_MAX + 1;
        let body = self.bytes(len);
        let length = u16::try_from(body.len()).expect("a body is short").to_le_bytes();
        let mut frame = Vec::new();
        encode_control(&[&length, body].concat(), &mut frame);
        frame
    }
}
