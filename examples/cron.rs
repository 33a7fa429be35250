//! A report each night, written when a person has approved it. While it waits it holds nothing but a row in
//! the store, also across restarts; the next night's passes meanwhile.
//!
//! ```text
//! cargo run --example cron -- run --data-dir /tmp/cron &
//! cargo run --example cron -- schedules show nightly --data-dir /tmp/cron
//! cargo run --example cron -- schedules run nightly --data-dir /tmp/cron
//! cargo run --example cron -- tasks signal ID approved '{"ok":true}' --data-dir /tmp/cron
//! ```

use greenroom::{Target, prelude::*};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Nightly {
    day: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Report {
    rows: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Decision {
    ok: bool,
}
message!(Nightly -> Report);

async fn nightly(n: Nightly, turn: Call) -> Result<Report> {
    turn.progress(0.5, "counting");
    let d: Decision = turn.wait_for("approved").await?;
    let rows = tokio::fs::read(n.day).await?.len() as u64;
    Ok(Report { rows: rows + d.ok as u64 })
}

fn main() -> ExitCode {
    Runtime::builder()
        .tool_fn("report.nightly", Effect::Idempotent, nightly)
        .schedule(
            "nightly",
            "0 3 * * * Europe/Berlin",
            Target::tool("report.nightly"),
            Nightly { day: "today".into() },
        )
        .main()
}
