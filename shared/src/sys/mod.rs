//! Every raw system call of the project and all of its `unsafe` code, one mechanism a file.
//!
//! What can be had safely from `nix` or `socket2` is used from there; these modules hold what remains, behind functions that are safe to
//! call with any argument. Nothing here knows about pools, sessions or configuration.

pub mod clock;
pub mod epoll;
pub mod guard;
pub mod inherited;
pub mod map;
pub mod memfd;
pub mod peer;
pub mod pidfd;
pub mod process;
pub mod seqpacket;
pub mod spawn;
pub mod tcp;
pub mod token;
