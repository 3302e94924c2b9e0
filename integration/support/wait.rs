//! Waits for conditions. Nothing in these tests sleeps for a fixed time.

use std::thread;
use std::time::{Duration, Instant};

/// The bound of every wait, unless it says otherwise. Generous: it only matters where something is broken, and the
/// machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a condition that announces itself by nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks until there is a result, `limit` at most.
pub(crate) fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Looks until there is a result; the test fails where there is none in time.
#[track_caller]
pub(crate) fn await_some<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    match within(PATIENCE, look) {
        Some(found) => found,
        None => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Waits until a condition holds; the test fails where it does not in time.
#[track_caller]
pub(crate) fn await_true(what: &str, mut look: impl FnMut() -> bool) {
    await_some(what, || look().then_some(()));
}
