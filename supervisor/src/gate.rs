//! The gate between what the supervisor's threads take from outside and what they hold.
//!
//! An upgrade executes another image in place of this one: other threads vanish wherever they are, and what they have taken off a socket and
//! not handed over would vanish with them. So each of them is inside the gate from before it takes something until it has handed that
//! over, and never while it waits, for a socket or for the fleet's thread. Once the fleet's thread has closed the gate nobody is inside: whatever was
//! taken is in its channel or in some thread's state, and both stand still.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate(RwLock<()>);

thread_local! {
    /// How often this thread is inside. To lock twice for reading may be for ever, if somebody closes the gate in between.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

/// While it lives, this thread is inside.
#[must_use]
pub(crate) struct Pass<'a> {
    _guard: Option<RwLockReadGuard<'a, ()>>,
    /// It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

/// While it lives, nobody is inside and nobody comes in.
#[must_use]
pub(crate) struct Closed<'a>(#[allow(dead_code)] RwLockWriteGuard<'a, ()>);

impl Gate {
    /// Waits while the gate is closed.
    pub(crate) fn enter(&self) -> Pass<'_> {
        let guard = (INSIDE.get() == 0).then(|| self.0.read().unwrap_or_else(PoisonError::into_inner));
        INSIDE.set(INSIDE.get() + 1);
        Pass { _guard: guard, _not_send: PhantomData }
    }

    /// Waits until nobody is inside, which is not long. Never called from inside.
    pub(crate) fn close(&self) -> Closed<'_> {
        Closed(self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn who_is_inside_goes_on_inside_and_who_comes_later_waits() {
        let gate = Gate::default();
        let (inside, is_inside) = channel();
        let (go_on, goes_on) = channel::<()>();
        let (done, is_done) = channel();
        std::thread::scope(|scope| {
            let (gate, done_inside) = (&gate, done.clone());
            scope.spawn(move || {
                let _pass = gate.enter();
                inside.send(()).unwrap();
                goes_on.recv().unwrap();
                // Somebody waits to close it by now, or will.
                std::thread::sleep(Duration::from_millis(20));
                drop(gate.enter());
                done_inside.send("inside").unwrap();
            });
            is_inside.recv().unwrap();
            go_on.send(()).unwrap();
            let closed = gate.close();
            assert_eq!(is_done.try_recv(), Ok("inside"));
            let late = done.clone();
            scope.spawn(move || {
                let _pass = gate.enter();
                late.send("late").unwrap();
            });
            assert!(is_done.recv_timeout(Duration::from_millis(50)).is_err(), "the gate is closed");
            drop(closed);
            assert_eq!(is_done.recv(), Ok("late"));
        });
    }
}
