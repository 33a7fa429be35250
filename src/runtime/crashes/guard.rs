//! Crashes: where a panic came from, and the list of the last ones.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::VecDeque,
    panic,
    sync::Once,
};

use jiff::{Timestamp, ToSpan};
use parking_lot::Mutex;

use super::views::CrashSummary;
use crate::model::supervision::CrashReport;

/// How many crashes are kept in memory.
const KEPT: usize = 1_024;

/// What the hook and the guards of a thread tell each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// No user code is polled.
    Off,
    /// User code is polled: the hook leaves the site of a panic in [`SITE`].
    On,
    /// It has left one.
    Noted,
}

thread_local! {
    // apart from the site, so that a turn that does not panic touches one byte
    static WATCH: Cell<Watch> = const { Cell::new(Watch::Off) };
    static SITE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs the panic hook that notes the site of panics in user code in place of printing them.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if WATCH.get() == Watch::Off {
                return before(info);
            }
            let site = info.location().map(|l| format!("{}:{}", shorten(l.file()), l.line()));
            SITE.set(site);
            WATCH.set(Watch::Noted);
        }));
    });
}

/// `src/tally.rs` in place of an absolute path into a registry.
fn shorten(file: &str) -> &str {
    match file.rfind("/src/") {
        Some(at) => {
            let start = file[..at].rfind('/').map_or(0, |slash| slash + 1);
            file.get(start..).unwrap_or(file)
        }
        None => file,
    }
}

/// Runs user code, catching a panic with its message and site.
#[inline]
pub(crate) fn guard<T>(f: impl FnOnce() -> T) -> Result<T, (String, Option<String>)> {
    let outer = WATCH.replace(Watch::On);
    let outer_site = if outer == Watch::Noted { SITE.take() } else { None };
    let result = panic::catch_unwind(panic::AssertUnwindSafe(f));
    let site = if WATCH.get() == Watch::Noted { SITE.take() } else { None };
    if outer == Watch::Noted {
        SITE.set(outer_site);
    }
    WATCH.set(outer);
    result.map_err(|payload| (text(&*payload), site))
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned());
    text.chars().take(2_000).collect()
}

/// The last crashes.
#[derive(Default)]
pub(crate) struct Crashes {
    kept: Mutex<VecDeque<CrashReport>>,
    total: std::sync::atomic::AtomicU64,
}

impl Crashes {
    pub(crate) fn add(&self, report: CrashReport) {
        self.total.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut kept = self.kept.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(report);
    }

    /// Newest first.
    pub(crate) fn list(&self) -> Vec<CrashReport> {
        self.kept.lock().iter().rev().cloned().collect()
    }

    pub(crate) fn find(&self, id: &str) -> Option<CrashReport> {
        self.kept.lock().iter().rev().find(|c| c.id == id).cloned()
    }

    pub(crate) fn summary(&self, now: Timestamp) -> CrashSummary {
        let kept = self.kept.lock();
        let since = now.checked_sub(1.hour()).unwrap_or(Timestamp::MIN);
        let last_hour = kept.iter().filter(|c| c.at >= since).count() as u64;
        CrashSummary { last_hour, recent: kept.iter().rev().take(5).cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_with_its_site() {
        install_hook();
        let (message, site) = guard(|| panic!("boom {}", 1)).unwrap_err();
        assert_eq!(message, "boom 1");
        assert!(site.is_some_and(|s| s.contains("src/runtime/crashes.rs:")));
        let (message, _) = guard(|| panic::panic_any(7u8)).unwrap_err();
        assert_eq!(message, "a panic without a text");
    }

    #[test]
    fn guards_nest() {
        install_hook();
        let outer: Result<(), _> = guard(|| {
            assert!(guard(|| panic!("inner")).is_err());
            panic!("outer")
        });
        assert_eq!(outer.unwrap_err().0, "outer");
    }
}
