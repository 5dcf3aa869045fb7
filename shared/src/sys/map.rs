//! A typed view of memory that other processes write at the same time.
//!
//! Only types made of atomics may be viewed ([`Shared`]): for them every bit pattern is a value and a concurrent write is no data race. The
//! macro `shared_struct!` is the only way to declare one, so a layout can be written without `unsafe`
//! and its hash ([`Shared::LAYOUT`]) cannot be forgotten: it covers names, offsets and sizes of all fields, however deep.

use crate::shm::atomic::{AtomicU32, AtomicU64};

/// Types that may lie in shared memory. Implemented here for the atomics and arrays, and by `shared_struct!`.
///
/// # Safety
/// The type consists of atomic integers only, has a fixed layout (`repr(C)`), and all bytes zero is a valid value.
pub unsafe trait Shared: Sync + Sized + 'static {
    /// A hash of the layout: equal in two builds only if they would read each other's memory the same way.
    const LAYOUT: u64;

    /// The value that zeroed memory holds; loom's atomics cannot be made from zeroed memory.
    #[cfg(loom)]
    fn zeroed() -> Self;
}

// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU32 {
    const LAYOUT: u64 = hash(START, b"u32");
    #[cfg(loom)]
    fn zeroed() -> Self {
        Self::new(0)
    }
}

// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU64 {
    const LAYOUT: u64 = hash(START, b"u64");
    #[cfg(loom)]
    fn zeroed() -> Self {
        Self::new(0)
    }
}

// SAFETY: an array is its elements, one after another.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {
    const LAYOUT: u64 = number(T::LAYOUT, N as u64);
    #[cfg(loom)]
    fn zeroed() -> Self {
        std::array::from_fn(|_| T::zeroed())
    }
}

/// Where a layout's hash starts (FNV-1a's 64-bit offset basis).
pub const START: u64 = 0xcbf2_9ce4_8422_2325;

/// Continues `state` with `bytes` (FNV-1a).
pub const fn hash(mut state: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        state = (state ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    state
}

/// Continues `state` with a number.
pub const fn number(state: u64, number: u64) -> u64 {
    hash(state, &number.to_le_bytes())
}

/// Declares a `repr(C)` struct whose fields are all [`Shared`], and makes it so itself.
macro_rules! shared_struct {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type,)+ }

        // SAFETY: `repr(C)`, and the constant below does not compile unless every field is `Shared`.
        #[allow(unsafe_code)]
        unsafe impl $crate::sys::map::Shared for $name {
            const LAYOUT: u64 = {
                let state = $crate::sys::map::number($crate::sys::map::START, size_of::<Self>() as u64);
                $(
                    let state = $crate::sys::map::hash(state, stringify!($field).as_bytes());
                    let state = $crate::sys::map::number(state, std::mem::offset_of!(Self, $field) as u64);
                    let state = $crate::sys::map::number(state, <$type as $crate::sys::map::Shared>::LAYOUT);
                )+
                state
            };
            #[cfg(loom)]
            fn zeroed() -> Self {
                Self { $($field: <$type as $crate::sys::map::Shared>::zeroed(),)+ }
            }
        }
    };
}
pub(crate) use shared_struct;

#[cfg(not(loom))]
pub use mapped::Mapped;

#[cfg(not(loom))]
mod mapped {
    use super::Shared;
    use crate::sys::memfd;
    use memmap2::{MmapOptions, MmapRaw};
    use std::io;
    use std::marker::PhantomData;
    use std::ops::Deref;
    use std::os::fd::{AsRawFd, BorrowedFd};

    /// A `T` in a memfd, mapped for reading and writing, shared with every other process that maps it.
    pub struct Mapped<T: Shared> {
        map: MmapRaw,
        content: PhantomData<&'static T>,
    }

    impl<T: Shared> Mapped<T> {
        /// Maps the beginning of `fd`. An error unless it is long enough for a `T` and sealed against becoming shorter.
        pub fn open(fd: BorrowedFd<'_>) -> io::Result<Self> {
            if !memfd::is_fixed_size(fd)? {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the region is not sealed against shrinking"));
            }
            let len = nix::sys::stat::fstat(fd)?.st_size;
            if usize::try_from(len).unwrap_or(0) < size_of::<T>() {
                let text = format!("a region of {len} bytes, expected {}", size_of::<T>());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            let map = MmapOptions::new().len(size_of::<T>()).no_reserve_swap().map_raw(fd.as_raw_fd())?;
            Ok(Self { map, content: PhantomData })
        }
    }

    impl<T: Shared> Deref for Mapped<T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: the mapping is page-aligned, `size_of::<T>()` bytes long and lives as long as `self`; the file cannot shrink below it
            // (checked in `open`), and `T: Shared` means that any bytes are a `T` and that concurrent writes are no data race.
            unsafe { &*self.map.as_ptr().cast::<T>() }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys::memfd;
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering;

    shared_struct! {
        struct Pair {
            first: AtomicU64,
            second: [AtomicU32; 4],
        }
    }
    shared_struct! {
        struct Renamed {
            first: AtomicU64,
            third: [AtomicU32; 4],
        }
    }
    shared_struct! {
        struct Longer {
            first: AtomicU64,
            second: [AtomicU32; 6],
        }
    }

    #[test]
    fn two_mappings_show_the_same_memory() {
        let fd = memfd::create_region("test", size_of::<Pair>()).unwrap();
        let (a, b) = (Mapped::<Pair>::open(fd.as_fd()).unwrap(), Mapped::<Pair>::open(fd.as_fd()).unwrap());
        assert_eq!(b.second[3].load(Ordering::Relaxed), 0);
        a.first.store(1, Ordering::Relaxed);
        a.second[3].store(7, Ordering::Relaxed);
        assert_eq!((b.first.load(Ordering::Relaxed), b.second[3].load(Ordering::Relaxed)), (1, 7));
    }

    #[test]
    fn what_could_shrink_or_is_too_short_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(Mapped::<Pair>::open(file.as_fd()).is_err());
        let short = memfd::create_region("test", size_of::<Pair>() - 1).unwrap();
        assert!(Mapped::<Pair>::open(short.as_fd()).is_err());
    }

    #[test]
    fn a_layout_s_hash_covers_names_and_sizes() {
        let hashes = [Pair::LAYOUT, Renamed::LAYOUT, Longer::LAYOUT, AtomicU64::LAYOUT, AtomicU32::LAYOUT];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[index + 1..].contains(hash));
        }
    }
}
