//! Catches panics in user code, with their message and location.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    io::Write as _,
    panic,
    sync::Once,
};

use super::trace;
use crate::secrets;

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
            let watch = WATCH.get();
            if watch == Watch::Off {
                return before(info);
            }
            let site = info.location().map(|l| format!("{}:{}", shorten(l.file()), l.line()));
            if let Some(site) = &site {
                trace::note(site);
            }
            let first = SITE.replace(site);
            WATCH.set(Watch::Noted);
            if watch == Watch::Noted {
                // Where the first one is unwinding still, this one ends the process: these lines are then
                // all that says why.
                let first = first.as_deref().unwrap_or("an unknown place");
                let _ = writeln!(std::io::stderr(), "a panic came upon the one at {first}:");
                before(info);
            }
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
    let result = panic::catch_unwind(panic::AssertUnwindSafe(f)).map_err(caught);
    if outer == Watch::Noted {
        SITE.set(outer_site);
    }
    WATCH.set(outer);
    result
}

#[cold]
fn caught(payload: Box<dyn Any + Send>) -> (String, Option<String>) {
    let site = if WATCH.get() == Watch::Noted { SITE.take() } else { None };
    let text = text(&*payload);
    // It is a user's value: its end may panic as well, and what that throws is not asked.
    WATCH.set(Watch::On);
    if let Err(another) = panic::catch_unwind(panic::AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(another);
    }
    (text, site)
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned());
    cut(&text)
}

/// How long the text of a panic or an error may be that is kept, in characters.
const MAX_TEXT: usize = 2_000;

fn cut(text: &str) -> String {
    secrets::clean(text).chars().take(MAX_TEXT).collect()
}

/// The text of an error of the user's, with its causes, cut as that of a panic is. It may panic where it is
/// written, or dropped: then that panic's.
pub(crate) fn error_text(error: anyhow::Error) -> String {
    guard(move || cut(&format!("{error:#}"))).unwrap_or_else(|(message, _)| message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_with_its_site() {
        install_hook();
        let (message, site) = guard(|| panic!("boom {}", 1)).unwrap_err();
        assert_eq!(message, "boom 1");
        assert!(site.is_some_and(|s| s.contains("src/agent/guard.rs:")));
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

    #[test]
    fn the_text_of_an_error_is_bounded_and_may_panic() {
        let error = anyhow::anyhow!("no disk").context("on the way");
        assert_eq!(error_text(error), "on the way: no disk");
        assert_eq!(error_text(anyhow::anyhow!("ü".repeat(9_999))), "ü".repeat(MAX_TEXT));
        #[derive(Debug)]
        struct Mute;
        impl std::fmt::Display for Mute {
            fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                panic!("it has no words")
            }
        }
        impl std::error::Error for Mute {}
        assert_eq!(error_text(Mute.into()), "it has no words");
    }

    /// Thrown, it panics when it is dropped, and throws the next.
    struct Hydra(u8);

    impl Drop for Hydra {
        fn drop(&mut self) {
            if let Some(left) = self.0.checked_sub(1) {
                panic::panic_any(Self(left));
            }
        }
    }

    #[test]
    fn what_was_thrown_may_panic_when_it_is_dropped() {
        install_hook();
        let (message, site) = guard(|| panic::panic_any(Hydra(9))).unwrap_err();
        assert_eq!(message, "a panic without a text");
        let line = line!() - 2;
        assert!(site.is_some_and(|s| s.ends_with(&format!("guard.rs:{line}"))));
        assert!(guard(|| panic!("the next one")).unwrap_err().1.is_some());
    }
}
