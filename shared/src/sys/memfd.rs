//! Memory that travels as a descriptor: sealed, so that whoever receives it can rely on what it reads.

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use zeroize::Zeroizing;

/// A memfd holding `bytes` that nobody can change any more. `name` shows in /proc.
pub fn create_sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = create(name)?;
    file.write_all(bytes)?;
    seal(&file, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL)?;
    Ok(file.into())
}

/// A memfd of `len` zero bytes whose content can be written and whose size cannot change: safe to map. Pages cost memory once touched.
pub fn create_region(name: &str, len: usize) -> io::Result<OwnedFd> {
    let file = create(name)?;
    file.set_len(len as u64)?;
    seal(&file, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL)?;
    Ok(file.into())
}

/// All of the file's content, from its beginning whatever its offset is. An error if it is longer than `cap`.
/// What travels this way may hold passwords and keys.
pub fn read_all(fd: BorrowedFd<'_>, cap: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::from(fd.try_clone_to_owned()?);
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if len > cap {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("memfd of {len} bytes, the most is {cap}")));
    }
    let mut bytes = Zeroizing::new(vec![0; len]);
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Whether the file can never become shorter: what a mapping of it relies on.
pub fn is_fixed_size(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let seals = SealFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    Ok(seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))
}

fn create(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?.into())
}

fn seal(file: &File, seals: SealFlag) -> io::Result<()> {
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(result: io::Result<()>) -> bool {
        result.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    }

    #[test]
    fn a_sealed_memfd_keeps_its_content() {
        let fd = create_sealed("test", b"configuration").unwrap();
        let file = File::from(fd.try_clone().unwrap());
        assert!(refused(file.write_all_at(b"x", 0)));
        assert!(refused(file.set_len(1)));
        assert!(refused(file.set_len(1000)));
        assert!(refused(seal(&file, SealFlag::empty())) || seal(&file, SealFlag::F_SEAL_SHRINK).is_err());
        assert_eq!(read_all(fd.as_fd(), 100).unwrap().as_slice(), b"configuration");
        assert_eq!(read_all(fd.as_fd(), 13).unwrap().as_slice(), b"configuration", "reading does not depend on the offset");
        assert_eq!(read_all(fd.as_fd(), 12).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_region_can_be_written_and_not_resized() {
        let fd = create_region("test", 8192).unwrap();
        let file = File::from(fd.try_clone().unwrap());
        file.write_all_at(b"x", 100).unwrap();
        assert!(refused(file.set_len(1)));
        assert!(refused(file.set_len(10_000)));
        assert!(is_fixed_size(fd.as_fd()).unwrap());
    }

    #[test]
    fn an_ordinary_file_is_not_of_fixed_size() {
        let file = tempfile::tempfile().unwrap();
        assert!(!is_fixed_size(file.as_fd()).unwrap_or(false));
    }
}
