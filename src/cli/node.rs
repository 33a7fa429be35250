//! `stop`: shuts the node down.

use std::time::{Duration, Instant};

use clap::Args;

use super::{
    Session,
    care::Care,
    client::Client,
    exit::{Exit, Failure},
    input, out,
};
use crate::{http::Announcement, runtime::views::Status};

/// How often it is looked whether the node has gone.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct StopArgs {
    /// Do not wait until it has ended
    #[arg(long)]
    pub no_wait: bool,
    /// Wait this long at most
    #[arg(long, value_name = "TIME", value_parser = input::duration, default_value = "60s")]
    pub timeout: Duration,
    #[command(flatten)]
    care: Care,
}

/// `stop`: asks the node to end, and waits until it has: its doors are shut first, and what runs is finished.
pub(super) fn stop(session: &Session<'_>, args: &StopArgs) -> Result<(), Failure> {
    let client = session.client()?;
    if args.care.dry_run {
        return show_stop(session, &client);
    }
    args.care.confirm(&format!("stop the node at {}?", out::plain(client.url())))?;
    let there = announced(session, client.url());
    client.post("/api/v1/nodes/self/stop", Vec::new())?;
    if args.no_wait {
        out::note("the node is stopping");
        return Ok(());
    }
    let began = Instant::now();
    loop {
        match client.get_within("/health/live", Duration::from_secs(2)) {
            Err(failure)
                if failure.exit == Exit::Unreachable && announced(session, client.url()) != there =>
            {
                break;
            }
            Err(failure) if failure.exit == Exit::Unreachable && there.is_none() => break,
            _ if began.elapsed() > args.timeout => {
                return Err(Failure::new(Exit::TimedOut, "the node is still stopping")
                    .hint(format!("{} logs -f shows what it waits for", session.program)));
            }
            _ => std::thread::sleep(POLL_INTERVAL),
        }
    }
    out::note("the node has stopped");
    Ok(())
}

/// What would be stopped.
fn show_stop(session: &Session<'_>, client: &Client) -> Result<(), Failure> {
    let reply = client.get("/api/v1/status")?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let status: Status = reply.read()?;
    let (name, running) =
        (out::plain(&status.node.name), status.tasks.get("running").copied().unwrap_or_default());
    let tasks = if running == 1 { "1 task runs".to_owned() } else { format!("{running} tasks run") };
    Ok(out::line(&format!("{name}  at {}  would be stopped: {tasks}", out::plain(client.url())))?)
}

/// What a node on this machine says of itself, if it is the one at `url`.
fn announced(session: &Session<'_>, url: &str) -> Option<Announcement> {
    let data_dir = session.settings().ok()?.node.data_dir;
    Announcement::read(&data_dir).filter(|there| there.url.trim_end_matches('/') == url)
}
