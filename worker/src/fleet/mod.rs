//! The rest of the fleet as a worker sees it: the supervisor over its control socket, other workers over their inboxes.

pub(crate) mod adoption;
pub(crate) mod balance;
mod drain;
pub(crate) mod handover;
pub(crate) mod inbox;
mod learned;
pub(crate) mod lend;
mod listen;
pub(crate) mod orders;
pub(crate) mod reload;
mod resize;
pub(crate) mod start;
pub(crate) mod strangers;
pub(crate) mod supervisor;
