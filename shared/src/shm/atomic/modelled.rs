//! loom's atomics, with a second word that makes loom explore every order of two accesses to one of them.
//!
//! loom 0.7 remembers only the last access to an object. Thread B's "load, then compare-and-swap" therefore hides from it that thread A loaded
//! before: it finds no race and never tries the other order (a burial beside a taker was "checked" in one execution). So each access
//! here first stores to a word of its own that nobody ever reads: stores always conflict, so no order is left out, and
//! a store that is never read synchronises nothing, so no bug is hidden.

use loom::sync::atomic::{self, Ordering};

macro_rules! modelled {
    ($name:ident, $integer:ty) => {
        /// As in the standard library.
        #[derive(Debug)]
        pub struct $name {
            value: atomic::$name,
            touched: atomic::AtomicU32,
        }

        #[allow(missing_docs)] // as in the standard library
        impl $name {
            pub fn new(value: $integer) -> Self {
                Self { value: atomic::$name::new(value), touched: atomic::AtomicU32::new(0) }
            }

            fn touch(&self) -> &atomic::$name {
                self.touched.store(0, Ordering::Relaxed);
                &self.value
            }

            pub fn load(&self, order: Ordering) -> $integer {
                self.touch().load(order)
            }

            pub fn store(&self, value: $integer, order: Ordering) {
                self.touch().store(value, order);
            }

            pub fn fetch_or(&self, bits: $integer, order: Ordering) -> $integer {
                self.touch().fetch_or(bits, order)
            }

            pub fn fetch_and(&self, bits: $integer, order: Ordering) -> $integer {
                self.touch().fetch_and(bits, order)
            }

            pub fn fetch_add(&self, value: $integer, order: Ordering) -> $integer {
                self.touch().fetch_add(value, order)
            }

            pub fn fetch_max(&self, value: $integer, order: Ordering) -> $integer {
                self.touch().fetch_max(value, order)
            }

            pub fn compare_exchange(
                &self,
                current: $integer,
                new: $integer,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$integer, $integer> {
                self.touch().compare_exchange(current, new, success, failure)
            }

            pub fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                mut update: impl FnMut($integer) -> Option<$integer>,
            ) -> Result<$integer, $integer> {
                let mut value = self.load(failure);
                while let Some(new) = update(value) {
                    match self.compare_exchange(value, new, success, failure) {
                        Ok(old) => return Ok(old),
                        Err(actual) => value = actual,
                    }
                }
                Err(value)
            }
        }
    };
}

modelled!(AtomicU32, u32);
modelled!(AtomicU64, u64);
