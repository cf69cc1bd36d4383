//! Which threads go first where cores are busy: those that serve requests.

/// So much nicer are the others: next to a thread that serves requests all the time, one of them has a tenth of a
/// core, which is several hundred payments a second, so that no settlement starves.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// From now on this thread, and what it starts, lets those go first that serve requests. For work that others
/// wait for much longer anyway: a facilitator's answer, a disk.
///
/// Does nothing where that is not allowed, or concerns whole processes: then threads are equals.
pub fn after_requests() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // A wall that is nicer already stays so: with rights, less would put these first.
        let is = getpriority_process(None).unwrap_or(0);
        let _ = setpriority_process(None, is.max(NICER));
    }
}
