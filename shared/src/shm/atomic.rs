//! The atomics everything here synchronises with: the standard ones, or the model checker's (`modelled`) under `cfg(loom)`.

#[cfg(loom)]
mod modelled;

#[cfg(loom)]
pub use loom::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub use modelled::{AtomicU32, AtomicU64};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
