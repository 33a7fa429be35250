//! Backtraces of panics, one for each site.
//!
//! Walking the stack costs as much as unwinding it, and resolving its addresses a thousand times more. So the hook
//! walks it only for the first panic of a site, and symbols are resolved later, in the background. The two never
//! overlap: they share a lock, and an arbiter must not wait for symbol resolution.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use backtrace::Backtrace;
use parking_lot::Mutex;

/// How many sites are told apart; those that come later have no backtrace.
const SITES: usize = 1_024;
/// How often the panics of a site are walked: kinds may share one, and each has a backtrace of its own.
const MAX_WALKS: u8 = 64;
/// How many calls are kept …
const MAX_CALLS: usize = 64;
/// … and how much text.
const MAX_BYTES: usize = 16 << 10;
/// The call in which a guard catches: below it there is nothing of the user's. (The guard itself is inlined,
/// and may have no name.)
const CATCH: [&str; 4] = [
    "<core::panic::unwind_safe::AssertUnwindSafe<",
    "std::panicking::catch_unwind",
    "std::panicking::try",
    "do_call<",
];
/// Calls of the panic itself: above them there is nothing of the user's.
const PANIC: [&str; 4] =
    ["core::panicking::", "std::panicking::", "__rustc::rust_begin_unwind", "core::option::"];

/// A place where something has panicked.
struct Place {
    /// How often it has been walked.
    walks: u8,
    /// Whether its next panic is walked.
    wanted: bool,
    /// Walked, and not yet asked for.
    fresh: Option<Backtrace>,
}

static PLACES: Mutex<Option<HashMap<String, Place>>> = Mutex::new(None);
static NAMING: AtomicBool = AtomicBool::new(false);

/// For the hook: walks the stack of a panic if it is the first one of its site, or [wanted](again).
pub(super) fn note(site: &str) {
    if NAMING.load(Ordering::Acquire) {
        return;
    }
    {
        let mut places = PLACES.lock();
        let places = places.get_or_insert_default();
        let is_full = places.len() >= SITES;
        let place = match places.get_mut(site) {
            Some(place) => place,
            None if is_full => return,
            None => places.entry(site.to_owned()).or_insert(Place { walks: 0, wanted: true, fresh: None }),
        };
        if !place.wanted || place.walks >= MAX_WALKS {
            return;
        }
        place.wanted = false;
        place.walks += 1;
    }
    let trace = Backtrace::new_unresolved();
    if let Some(place) = PLACES.lock().as_mut().and_then(|places| places.get_mut(site)) {
        place.fresh = Some(trace);
    }
}

/// The backtrace of the last panic of a site, where it was walked.
pub(crate) fn take(site: &str) -> Option<Backtrace> {
    PLACES.lock().as_mut()?.get_mut(site)?.fresh.take()
}

/// Has the next panic of this site walked.
pub(crate) fn again(site: &str) {
    if let Some(place) = PLACES.lock().as_mut().and_then(|places| places.get_mut(site)) {
        place.wanted = true;
    }
}

/// Names are being looked for; also where that panics, it ends.
struct Naming;

impl Naming {
    fn begin() -> Self {
        NAMING.store(true, Ordering::Release);
        Self
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        NAMING.store(false, Ordering::Release);
    }
}

/// A backtrace with names, of the user's calls alone. Blocks, the first time for long.
pub(crate) fn name(mut trace: Backtrace) -> String {
    {
        let _naming = Naming::begin();
        trace.resolve();
        // What was read of the program for this is tens of megabytes, and seldom wanted again.
        backtrace::clear_symbol_cache();
    }
    let symbols = trace.frames().iter().flat_map(|frame| frame.symbols());
    let calls = symbols.filter_map(|symbol| {
        let place = symbol.filename().map(|file| {
            let line = symbol.lineno().map(|line| format!(":{line}")).unwrap_or_default();
            format!("at {}{line}", file.display())
        });
        Some((format!("{:#}", symbol.name()?), place))
    });
    users(&calls.collect::<Vec<_>>())
}

/// The calls between the panic's own and the runtime's, each with its place in the source.
fn users(calls: &[(String, Option<String>)]) -> String {
    let is = |call: &str, any: &[&str]| any.iter().any(|name| call.starts_with(name));
    let end = calls.iter().position(|(call, _)| is(call, &CATCH)).unwrap_or(calls.len());
    let calls = calls.get(..end).unwrap_or_default();
    let start = calls.iter().rposition(|(call, _)| is(call, &PANIC)).map_or(0, |last| last + 1);
    let mut told = String::new();
    for (name, place) in calls.get(start..).unwrap_or_default().iter().take(MAX_CALLS) {
        let place = place.as_ref().map(|place| format!("\n    {place}")).unwrap_or_default();
        if told.len() + name.len() + place.len() > MAX_BYTES {
            break;
        }
        if !told.is_empty() {
            told.push('\n');
        }
        told.push_str(name);
        told.push_str(&place);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::guard::{guard, install_hook};
    use super::*;

    #[inline(never)]
    fn deeper(n: u8) -> u8 {
        if n == 0 { panic!("at the bottom") } else { deeper(n - 1) + 1 }
    }

    fn site() -> String {
        guard(|| deeper(3)).unwrap_err().1.unwrap()
    }

    #[test]
    fn the_first_panic_of_a_site_is_walked_and_told_without_the_runtimes_calls() {
        install_hook();
        let site = site();
        let trace = take(&site).expect("it was the first");
        let told = name(trace);
        let calls: Vec<&str> = told.lines().filter(|line| !line.starts_with(' ')).collect();
        assert!(calls.iter().filter(|call| call.ends_with("deeper")).count() >= 1, "{told}");
        assert!(calls[0].ends_with("deeper") && told.contains("trace.rs:"), "{told}");
        assert!(calls.len() < 12 && !told.contains("crashes::guard"), "{told}");
        // no other, until it is asked for
        assert_eq!(self::site(), site);
        assert!(take(&site).is_none());
        again(&site);
        assert_eq!(self::site(), site);
        assert!(take(&site).is_some());
    }

    #[test]
    fn what_cannot_be_cut_is_bounded() {
        let call = |n| (format!("call_{n}"), Some(format!("at {}", "x".repeat(1_000))));
        let told = users(&(0..500).map(call).collect::<Vec<_>>());
        assert!(told.starts_with("call_0\n    at x") && told.len() <= MAX_BYTES, "{}", told.len());
        assert_eq!(users(&[]), "");
    }
}
