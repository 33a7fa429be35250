//! `stop`: shuts the node down.

use std::time::{Duration, Instant};

use clap::Args;

use super::{
    Session,
    exit::{Exit, Failure},
    input, out,
};
use crate::http::Announcement;

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
}

/// `stop`: asks the node to end, and waits until it has: its doors are shut first, and what runs is finished.
pub(super) fn stop(session: &Session<'_>, args: &StopArgs) -> Result<(), Failure> {
    let client = session.client()?;
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

/// What a node on this machine says of itself, if it is the one at `url`.
fn announced(session: &Session<'_>, url: &str) -> Option<Announcement> {
    let data_dir = session.settings().ok()?.node.data_dir;
    Announcement::read(&data_dir).filter(|there| there.url.trim_end_matches('/') == url)
}
