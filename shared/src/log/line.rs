//! One line, composed on the stack.

use super::stamp::Stamp;
use std::fmt::{self, Write};

/// The most bytes of a message, as PgBouncer's buffer holds.
pub(super) const MAX_MESSAGE: usize = 2047;

/// Room for the time, zone, process id and level before the message, and the newline after it.
const AROUND: usize = 128;

/// A line being written; what does not fit is cut off.
pub(super) struct Line {
    bytes: [u8; AROUND + MAX_MESSAGE],
    length: usize,
    /// Where the message begins.
    message: usize,
    /// Where it must end.
    limit: usize,
    broken: bool,
}

impl Line {
    /// Composes the line of `message` with `prefix` before it.
    pub(super) fn new(
        stamp: &Stamp,
        milliseconds: u32,
        level: &str,
        prefix: fmt::Arguments<'_>,
        message: fmt::Arguments<'_>,
    ) -> Self {
        let mut line = Self { bytes: [0; AROUND + MAX_MESSAGE], length: 0, message: 0, limit: AROUND - 1, broken: false };
        // Writing fails only when a Display of the caller's does; what it has written by then stands.
        let _ = write!(line, "{}.{milliseconds:03} {} [{}] {level} ", stamp.date_time, stamp.zone, std::process::id());
        line.message = line.length;
        line.limit = line.length + MAX_MESSAGE;
        line.broken = false;
        let _ = line.write_fmt(prefix);
        let _ = line.write_fmt(message);
        line.finish();
        line
    }

    fn finish(&mut self) {
        if self.broken {
            while self.length > self.message && self.bytes[self.length - 1].is_ascii_whitespace() {
                self.length -= 1;
            }
        }
        // One byte is left of AROUND: the head's limit keeps it free.
        self.bytes[self.length] = b'\n';
    }

    /// The line with its newline.
    pub(super) fn whole(&self) -> &[u8] {
        &self.bytes[..=self.length]
    }

    /// The message alone.
    pub(super) fn message(&self) -> &[u8] {
        &self.bytes[self.message..self.length]
    }

    /// Appends what fits, whole characters only; nothing after the first that did not.
    fn push(&mut self, text: &str) {
        let room = self.limit - self.length;
        let mut end = text.len().min(room);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.length..self.length + end].copy_from_slice(&text.as_bytes()[..end]);
        self.length += end;
        if end < text.len() {
            self.limit = self.length;
        }
    }
}

/// A newline is followed by a tab, so that no text from outside can pass for a line of its own. Other control characters are written out: they would be
/// orders to the terminal on which the log is read.
impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(is_order) {
            let order = piece.chars().next_back().filter(|last| is_order(*last));
            self.push(&piece[..piece.len() - order.map_or(0, char::len_utf8)]);
            match order {
                None => {}
                Some('\n') => {
                    self.broken = true;
                    self.push("\n\t");
                }
                Some(order) => order.escape_default().for_each(|c| self.push(c.encode_utf8(&mut [0; 4]))),
            }
        }
        Ok(())
    }
}

fn is_order(character: char) -> bool {
    character.is_control() && character != '\t'
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::log::stamp;

    fn line(message: &str) -> Line {
        stamp::now(|stamp, _| Line::new(stamp, 7, "LOG", format_args!(""), format_args!("{message}")))
    }

    #[test]
    fn has_pgbouncers_form() {
        let line = line("process up");
        let text = std::str::from_utf8(line.whole()).unwrap();
        let (time, rest) = text.split_at(19);
        assert!(time.bytes().zip(b"0000-00-00 00:00:00").all(|(a, b)| a == *b || a.is_ascii_digit() && *b == b'0'), "{text}");
        assert!(rest.starts_with(".007 "), "{text}");
        assert!(rest.ends_with(&format!(" [{}] LOG process up\n", std::process::id())), "{text}");
        assert_eq!(line.message(), b"process up");
    }

    #[test]
    fn newlines_get_a_tab_and_do_not_end_the_message() {
        assert_eq!(line("one\ntwo\n\nthree\n").message(), b"one\n\ttwo\n\t\n\tthree");
        assert_eq!(line("trailing ").message(), b"trailing ", "only a broken message is trimmed");
        assert_eq!(line("").message(), b"");
        assert_eq!(line("\n").message(), b"");
    }

    #[test]
    fn orders_to_a_terminal_are_written_out() {
        assert_eq!(line("a\r2026 LOG b\x1b[2J\tc\u{9b}\0").message(), b"a\\r2026 LOG b\\u{1b}[2J\tc\\u{9b}\\u{0}");
        assert_eq!(line("a\r\nb").message(), b"a\\r\n\tb");
    }

    #[test]
    fn is_cut_at_a_whole_character() {
        assert_eq!(line(&"x".repeat(2047)).message().len(), 2047);
        assert_eq!(line(&"x".repeat(9000)).message().len(), 2047);
        let text = "é".repeat(2000);
        assert_eq!(std::str::from_utf8(line(&text).message()).unwrap().chars().count(), 1023);
        let whole = line(&format!("{}\n{}", "x".repeat(2046), "y"));
        assert_eq!(whole.message().len(), 2046, "half a line break is none");
        assert_eq!(whole.whole().last(), Some(&b'\n'));
    }

    #[test]
    fn nothing_follows_what_was_cut() {
        struct Pieces;
        impl fmt::Display for Pieces {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&"x".repeat(2046))?;
                f.write_str("é")?;
                f.write_str("y")
            }
        }
        let line = stamp::now(|stamp, _| Line::new(stamp, 0, "LOG", format_args!(""), format_args!("{Pieces}")));
        assert_eq!(line.message().len(), 2046);
    }
}
