//! A token that two processes share and one of them gets: who has something that travels between workers whose memories differ.
//!
//! Where both map the same region a word there decides. Here an eventfd does, which the sender keeps and the message carries: it holds one, and whoever
//! reads it has the thing. There is no third outcome, whichever of the two dies.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// See the module.
#[derive(Debug)]
pub struct Token(OwnedFd);

impl Token {
    /// One that nobody has taken.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_SEMAPHORE;
        Ok(Self(EventFd::from_value_and_flags(1, flags)?.into()))
    }

    /// Takes it: of all who try exactly one succeeds.
    pub fn take(&self) -> bool {
        loop {
            match nix::unistd::read(&self.0, &mut [0; 8]) {
                Ok(read) => return read == 8,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Whether nobody has taken it yet.
    pub fn is_there(&self) -> bool {
        let mut query = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        while poll(&mut query, PollTimeout::ZERO) == Err(Errno::EINTR) {}
        query[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
    }
}

/// One that came with a message.
impl From<OwnedFd> for Token {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Token {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_of_many_gets_it() {
        for _ in 0..100 {
            let token = Token::new().unwrap();
            let copies: Vec<Token> = (0..4).map(|_| token.0.try_clone().unwrap().into()).collect();
            assert!(token.is_there() && copies[3].is_there(), "looking does not take it");
            let got: Vec<bool> = std::thread::scope(|scope| {
                let threads: Vec<_> = copies.iter().map(|copy| scope.spawn(|| copy.take())).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(got.into_iter().filter(|got| *got).count(), 1);
            assert!(!token.is_there() && !token.take());
        }
    }

    #[test]
    fn another_kind_of_descriptor_gives_nothing() {
        let (pipe, _end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        assert!(!Token::from(pipe).take());
    }
}
