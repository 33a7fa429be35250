//! What texts look like that are understood, as patterns: all of them, where a pattern can say it.
//!
//! Lengths are in bytes of UTF-8 where the runtime counts; a schema can only count letters.

use serde_json::{Value, json};

use crate::model::{
    access::MAX_TOKEN_NAME_BYTES,
    conversation::{MAX_ROLE_CHARS, MAX_TITLE_CHARS},
    id::{MAX_IDEMPOTENCY_KEY_BYTES, MAX_KEY_BYTES, MAX_NAME_BYTES},
    journal::MAX_SIGNAL_NAME_BYTES,
    schedule::MAX_SCHEDULE_NAME_BYTES,
    units::DURATION_PATTERN,
};

/// An id.
pub(super) const ID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
/// A number, as a cursor.
pub(super) const NUMBER: &str = "[0-9]{1,18}";
/// A kind (see [`check_kind`](crate::model::id::check_kind)); three words are none.
pub(super) const KIND: &str =
    "(?=[a-z0-9_]{1,128}(/|$))(?!(default|tool|task)(/|$))[a-z][a-z0-9]*(_[a-z0-9]+)*";
/// The name of a tool.
pub(super) const TOOL: &str = "(?=[a-z0-9._]{1,128}$)[a-z][a-z0-9]*(_[a-z0-9]+)*(\\.[a-z0-9]+(_[a-z0-9]+)*)*";
/// A key (see [`check_key`](crate::model::id::check_key)).
pub(super) const KEY: &str = "(?!\\.{1,2}$)[^\\u0000-\\u001f\\u007f-\\u009f/\\\\?#%\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]+";
/// A duration that is longer than nothing: one of its parts is.
const SOME_TIME: &str = "([0-9]{1,9}(d|h|m|s|ms|us|ns) *)*0{0,4}[1-9][0-9]{0,4}(d|h|m|s|ms|us|ns)";
/// No control characters.
const PLAIN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// The longest target: a kind, a mark and a key.
const MAX_TARGET: usize = MAX_NAME_BYTES + 1 + MAX_KEY_BYTES;

/// `KIND/KEY`.
pub(super) fn agent() -> String {
    format!("{KIND}/{KEY}")
}

/// `KIND/KEY`, or `tool:NAME`.
pub(super) fn target() -> String {
    format!("({}|tool:{TOOL})", agent())
}

/// The same, or what some begin with, and a `*`.
pub(super) fn targets() -> String {
    format!("({}|tool:({TOOL}|[a-z0-9._]*\\*))", agent())
}

/// A text that is wholly of this pattern.
pub(super) fn whole(pattern: &str) -> Value {
    json!({"type": "string", "pattern": format!("^{pattern}$")})
}

/// The same, or nothing.
pub(super) fn whole_or_empty(pattern: &str) -> Value {
    json!({"type": "string", "pattern": format!("^({pattern})?$")})
}

/// A duration that is longer than nothing.
pub(super) fn some_time() -> Value {
    json!({"pattern": format!("^{SOME_TIME}( *0{{1,9}}(d|h|m|s|ms|us|ns))*$")})
}

/// A part of a path, by its name there.
pub(super) fn part(path: &str, name: &str) -> Value {
    let of_at_most = |pattern: &str, most: usize, about: &str| {
        let mut schema = whole(pattern);
        schema["maxLength"] = json!(most);
        if !about.is_empty() {
            schema["description"] = json!(about);
        }
        schema
    };
    match name {
        "kind" => of_at_most(KIND, MAX_NAME_BYTES, ""),
        "key" => of_at_most(KEY, MAX_KEY_BYTES, "Up to 256 bytes of UTF-8."),
        "id" if path.starts_with("/sessions") => of_at_most(KEY, MAX_KEY_BYTES, "Up to 256 bytes of UTF-8."),
        "name" if path.starts_with("/schedules") => {
            of_at_most(KEY, MAX_SCHEDULE_NAME_BYTES, "Up to 128 bytes of UTF-8.")
        }
        "name" if path.starts_with("/tokens") => of_at_most(TOKEN, MAX_TOKEN_NAME_BYTES, ""),
        "name" if path.starts_with("/tasks") => {
            let about = "Letters and digits of any script, and `_ - . :`, up to 100 bytes of UTF-8.";
            of_at_most("(?!\\.{1,2}$)[A-Za-z0-9_.:-]+", MAX_SIGNAL_NAME_BYTES, about)
        }
        "name" => of_at_most(TOOL, MAX_NAME_BYTES, ""),
        // ids are opaque
        _ => whole("[A-Za-z0-9_][A-Za-z0-9._:-]{0,99}"),
    }
}

/// The name of a token.
const TOKEN: &str = "(?!node$)[a-z0-9][a-z0-9._-]*";

/// What the types of requests do not say by themselves, by the place in the definitions.
pub(super) fn narrower() -> Vec<(&'static str, Value)> {
    let pattern = |pattern: &str| json!({"pattern": format!("^{pattern}$")});
    let most = |most: usize| json!({"minLength": 1, "maxLength": most, "pattern": PLAIN});
    let (target, duration) =
        (json!({"pattern": format!("^{}$", target()), "maxLength": MAX_TARGET}), pattern(DURATION_PATTERN));
    let token = json!({"pattern": format!("^{TOKEN}$"), "maxLength": MAX_TOKEN_NAME_BYTES});
    let schedule = json!({"pattern": format!("^{KEY}$"), "maxLength": MAX_SCHEDULE_NAME_BYTES});
    vec![
        ("TaskRequest/properties/target", target.clone()),
        ("TaskRequest/properties/run_in", duration.clone()),
        ("TaskRequest/properties/expires_in", duration.clone()),
        ("TaskRequest/properties/timeout", duration.clone()),
        ("TaskRequest/properties/max_attempts", json!({"minimum": 1})),
        ("TaskRequest/properties/after/items", pattern(ID)),
        ("TaskRequest/properties/idempotency_key", most(MAX_IDEMPOTENCY_KEY_BYTES)),
        ("ScheduleRequest/properties/target", target),
        ("ScheduleRequest/properties/timeout", duration),
        ("ScheduleRequest/properties/name", schedule),
        ("ScheduleRequest/properties/cron", cron()),
        ("ScheduleRequest/properties/max_attempts", json!({"minimum": 1})),
        ("RetryFilter/properties/target", pattern(&targets())),
        ("DismissFilter/properties/target", pattern(&targets())),
        ("RetryFilter/properties/state", json!({"anyOf": [{"enum": ["failed", "cancelled", null]}]})),
        ("RetryRequest/properties/cursor", pattern(ID)),
        ("DismissRequest/properties/cursor", pattern(ID)),
        ("ConversationRequest/properties/title", json!({"maxLength": MAX_TITLE_CHARS, "pattern": PLAIN})),
        ("MessageRequest/properties/role", most(MAX_ROLE_CHARS)),
        ("SessionRequest/properties/ttl", lasting("Of 1s at least, and 3650d at most.")),
        ("TokenRequest/properties/name", token),
        ("TokenRequest/properties/expires_in", lasting("Of 10 years at most.")),
    ]
}

fn lasting(about: &str) -> Value {
    let mut schema = some_time();
    schema["description"] = json!(about);
    schema
}

/// No pattern tells what can be read from what cannot: the format's name stands for what the text says.
fn cron() -> Value {
    json!({
        "format": "cron",
        "maxLength": 256,
        "description": "Cron of 5 fields (minute, hour, day of the month, month, day of the week), or of 6 with seconds \
                        first; `*`, numbers, names of months and days (`JAN`, `MON`), ranges (`1-5`), lists (`1,15`), \
                        steps (`*/10`), `L` (the last), `#` (`MON#2`) and `W` (`15W`); or `@yearly`, `@monthly`, \
                        `@weekly`, `@daily`, `@hourly`; behind either perhaps an IANA time zone, UTC where there is \
                        none. Or an interval: `every 10m`, of whole seconds from 1s to 366d. What names a time that \
                        never comes is refused.",
        "examples": ["0 3 * * *", "30 0 3 * * MON-FRI Europe/Berlin", "*/10 8-18 * * 1-5", "@daily", "every 1h30m"],
    })
}
