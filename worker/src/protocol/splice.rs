//! Output that is a slice of the input as long as nothing was changed, and a copy from the first change on.

use std::ops::Range;

/// Collects what goes out. Ranges of the input are passed in ascending order.
pub(crate) struct Splice<'a> {
    input: &'a [u8],
    run: Range<usize>,
    scratch: &'a mut Vec<u8>,
}

impl<'a> Splice<'a> {
    /// Nothing yet; `scratch` is emptied.
    pub(crate) fn new(input: &'a [u8], scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        Self { input, run: 0..0, scratch }
    }

    /// Input bytes that go out unchanged.
    #[inline]
    pub(crate) fn pass(&mut self, range: Range<usize>) {
        if self.run.end == range.start && !self.run.is_empty() {
            self.run.end = range.end;
        } else {
            self.flush();
            self.run = range;
        }
    }

    /// A buffer to write bytes of ours into, after all that was passed so far.
    pub(crate) fn edit(&mut self) -> &mut Vec<u8> {
        self.flush();
        self.scratch
    }

    /// Bytes in the copy so far.
    #[inline]
    pub(crate) fn copied(&self) -> usize {
        self.scratch.len()
    }

    /// All of it, in order.
    pub(crate) fn finish(mut self) -> &'a [u8] {
        if self.scratch.is_empty() {
            &self.input[self.run]
        } else {
            self.flush();
            self.scratch
        }
    }

    fn flush(&mut self) {
        self.scratch.extend_from_slice(&self.input[self.run.clone()]);
        self.run = 0..0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_input_is_not_copied() {
        let (input, mut scratch) = (b"abcdef".as_slice(), Vec::new());
        let mut s = Splice::new(input, &mut scratch);
        s.pass(1..3);
        s.pass(3..5);
        let out = s.finish();
        assert_eq!(out, b"bcde");
        assert_eq!(out.as_ptr(), input[1..].as_ptr());
    }

    #[test]
    fn gaps_and_insertions_keep_the_order() {
        let mut scratch = Vec::new();
        let mut s = Splice::new(b"abcdef", &mut scratch);
        s.pass(0..2);
        s.edit().push(b'-');
        s.pass(3..4);
        s.pass(5..6);
        assert_eq!(s.finish(), b"ab-df");
    }
}
