//! What the program settles about its own process before it reads anything: what leaves it, and what its limits do.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

/// Makes a process of ours fit to hold keys; the first call of `main`, before any thread runs.
///
/// Nothing of its memory goes into a core dump, and no other process of the same user may look into it. What it makes is
/// for its owner alone, whatever umask it was started under. A write that the limit on file sizes forbids is an error
/// (`EFBIG`) and not the end of the process. The soft limits on open files, file sizes and locked memory are raised as far
/// as the hard ones let them: an exporter serves many clients, writes large files, and keeps its keys in locked memory.
///
/// # Errors
/// What could not be done, and why. The limits that only help are left as they are if they cannot be raised.
pub fn harden() -> Result<(), (&'static str, Errno)> {
    nix::sys::prctl::set_dumpable(false).map_err(|errno| ("become undumpable", errno))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|errno| ("forbid core dumps", errno))?;
    umask(Mode::from_bits_truncate(0o077));
    // Blocked, and inherited so by every thread: the signal then never comes, and the write answers its error.
    let mut too_large = SigSet::empty();
    too_large.add(Signal::SIGXFSZ);
    too_large.thread_block().map_err(|errno| ("block a signal", errno))?;
    for limit in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_FSIZE, Resource::RLIMIT_MEMLOCK] {
        if let Ok((soft, hard)) = getrlimit(limit)
            && soft < hard
        {
            let _ = setrlimit(limit, hard, hard);
        }
    }
    Ok(())
}
