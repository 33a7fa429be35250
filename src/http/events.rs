//! `/events`: live events, as Server-Sent Events.
//!
//! Readers share the ring of the [`Stream`], and each has only a position in it, so an idle or slow one costs no
//! more than its connection. One task watches the ring and wakes the readers, a limited number of times per second,
//! so that readers do not delay the events.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    rt,
    web::{Bytes, Data},
};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    access::{Access, Caller},
    files::open_files,
    params::Params,
    problem::Problem,
    server::Ctx,
};
use crate::{
    log::{Listener, Stream, Told},
    model::interest::Interest,
};

/// How many streams may be open at once.
pub(super) const MAX_STREAMS: usize = 12_000;
/// A stream that says nothing for so long says that it is there: proxies close what is silent.
const SILENCE: Duration = Duration::from_secs(15);
/// How often it is asked whether a reader may still be told.
const ASKED: Duration = Duration::from_secs(5);
/// At least so much time lies between two times that readers are woken.
const PACE: Duration = Duration::from_millis(50);
/// How often it is looked who has gone for good.
const TIDY: Duration = Duration::from_secs(10);
/// How long the end waits for the event that tells of it.
const LAST_EVENT_TIMEOUT: Duration = Duration::from_millis(250);
/// About so many bytes are written at once.
const CHUNK_BYTES: usize = 32 * 1_024;
/// How long a reader whose connection broke off is to wait, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// What all streams of the server share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Feed {
    news: watch::Receiver<()>,
    open: Arc<Mutex<Open>>,
    most: usize,
}

/// How many streams are open.
#[derive(Default)]
struct Open {
    all: usize,
    /// Of these, those of each stored token.
    of: HashMap<String, usize>,
}

impl Feed {
    /// Starts it on the server's thread. When `stop` is cancelled, every reader is given what is left and
    /// ends.
    pub(super) fn start(events: Stream, stop: CancellationToken) -> Self {
        let (tell, news) = watch::channel(());
        rt::spawn(watch_ring(events, tell, stop));
        let most = open_files().map_or(MAX_STREAMS, |files| MAX_STREAMS.min(files / 2));
        Self { news, open: Arc::default(), most }
    }

    /// A place for one more, if there is any: a stored token has half of them at most.
    fn seat(&self, token: Option<&str>) -> Result<Seat, Problem> {
        let (most, mut open) = (self.most, self.open.lock());
        let own = token.map_or(0, |token| open.of.get(token).copied().unwrap_or_default());
        if own >= most.div_ceil(2) {
            let why = format!("{own} event streams are open with this token: half of the {most} that may be");
            return Err(Problem::new("overloaded", why));
        }
        if open.all >= most {
            let why = format!(
                "{most} event streams are open: no more may be ({MAX_STREAMS}, or half of the files that the process \
                 may open, ulimit -n)"
            );
            return Err(Problem::new("overloaded", why));
        }
        open.all += 1;
        if let Some(token) = token {
            *open.of.entry(token.to_owned()).or_default() += 1;
        }
        Ok(Seat { open: self.open.clone(), token: token.map(str::to_owned) })
    }
}

/// Counted until it is dropped.
struct Seat {
    open: Arc<Mutex<Open>>,
    token: Option<String>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.all = open.all.saturating_sub(1);
        let Some(token) = &self.token else { return };
        if let Some(own) = open.of.get_mut(token) {
            *own -= 1;
            if *own == 0 {
                open.of.remove(token);
            }
        }
    }
}

async fn watch_ring(events: Stream, tell: watch::Sender<()>, stop: CancellationToken) {
    let mut tidied = Instant::now();
    loop {
        tokio::select! {
            () = events.news() => { tell.send_replace(()); }
            () = sleep(TIDY) => {}
            () = stop.cancelled() => break,
        }
        if tidied.elapsed() >= TIDY {
            events.tidy();
            tidied = Instant::now();
        }
        tokio::select! {
            () = sleep(PACE) => {}
            () = stop.cancelled() => break,
        }
    }
    // It says in a moment that the node stops. Then the readers end, for `tell` is gone.
    let _ = timeout(LAST_EVENT_TIMEOUT, events.news()).await;
}

/// `GET /events?subject=&event=&after=BOOT:N&tail=N&follow=true`.
///
/// `event` is a list of names, `subject` is one; each may end in `*`. With `Last-Event-ID`, or `after`, it
/// goes on behind that event; else with the last `tail` that are kept, which is none. `follow=false` ends
/// with what is kept, all of it unless `tail` says how much.
pub(super) async fn stream(
    ctx: Data<Ctx>,
    feed: Data<Feed>,
    request: HttpRequest,
    params: Params,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let interest = Interest::new(params.text("event")?, params.text("subject")?);
    let follow = params.parsed("follow", "true or false")?.unwrap_or(true);
    let tail: Option<usize> = params.parsed("tail", "a number")?;
    let seen = request.headers().get("Last-Event-ID").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let seen = seen.filter(|id| !id.is_empty()).or(params.owned("after")?);
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let seat = feed.seat(caller.stored_token())?;
    let mut reader = Reader {
        listener: ctx.logger.stream().listen(interest),
        boot: ctx.logger.boot().into(),
        at: 0,
        opening: format!("retry: {RETRY_MS}\n\n"),
        news: feed.news.clone(),
        said: Instant::now(),
        ends: !follow,
        access: ctx.access.clone(),
        caller,
        asked: Instant::now(),
        _seat: seat,
    };
    match seen {
        Some(seen) => reader.go_on(&seen),
        None => {
            let tail = tail.unwrap_or(if follow { 0 } else { usize::MAX });
            reader.at = reader.listener.before_last(tail);
        }
    }
    let chunks = stream::unfold(reader, |mut reader| async move {
        let chunk = reader.next().await?;
        Some((Ok::<_, actix_web::Error>(Bytes::from(chunk)), reader))
    });
    Ok(response.streaming(chunks))
}

/// One who reads.
struct Reader {
    listener: Listener,
    boot: Arc<str>,
    /// The number of the last event that it was given, or did not want.
    at: u64,
    opening: String,
    news: watch::Receiver<()>,
    /// When it was given something.
    said: Instant,
    /// It ends with what is there.
    ends: bool,
    access: Access,
    caller: Caller,
    /// When it was asked last whether the caller may still be told.
    asked: Instant,
    _seat: Seat,
}

impl Reader {
    /// Goes on behind the event of this id.
    fn go_on(&mut self, seen: &str) {
        let number = seen.rsplit_once(':').filter(|(boot, _)| *boot == &*self.boot);
        let number = number.and_then(|(_, n)| n.parse().ok()).unwrap_or(u64::MAX);
        let (at, missed) = self.listener.resume(number);
        self.at = at;
        if missed {
            let gap = self.gap("events after that id are not known here any more, or it is another boot's");
            self.opening.push_str(&gap);
        }
    }

    /// Says that events are missing before those that follow.
    fn gap(&self, why: &str) -> String {
        format!("id: {}:{}\nevent: gap\ndata: {}\n\n", self.boot, self.at, json!({"reason": why}))
    }

    /// What is to be written next; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let text = self.wait().await?;
        self.said = Instant::now();
        Some(text)
    }

    async fn wait(&mut self) -> Option<String> {
        if !self.opening.is_empty() {
            return Some(std::mem::take(&mut self.opening));
        }
        loop {
            // A token may have been taken away, or have come to its end.
            if self.asked.elapsed() >= ASKED {
                self.asked = Instant::now();
                if !self.access.still(&self.caller).await {
                    return None;
                }
            }
            // What comes from here on wakes it again.
            self.news.borrow_and_update();
            let Some(heard) = self.listener.read(self.at, CHUNK_BYTES) else {
                // It has not kept up: what it missed in between is missed.
                self.at = self.listener.last();
                return Some(self.gap("the reader was too slow; it goes on with the newest"));
            };
            self.at = heard.upto;
            if !heard.events.is_empty() {
                return Some(heard.events.iter().map(|told| self.text(told)).collect());
            }
            if self.ends {
                return None;
            }
            let silence = self.said + SILENCE;
            match timeout_at(silence.min(self.asked + ASKED), self.news.changed()).await {
                Ok(Ok(())) => {}
                // The server ends: what is left is given.
                Ok(Err(_)) => self.ends = true,
                Err(_) if Instant::now() < silence => {}
                Err(_) => return Some(": nothing happens\n\n".to_owned()),
            }
        }
    }

    fn text(&self, told: &Told) -> String {
        format!("id: {}:{}\nevent: {}\ndata: {}\n\n", self.boot, told.number, told.event, told.json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_takes_half_of_the_streams_at_most() {
        let feed = Feed { news: watch::channel(()).1, open: Arc::default(), most: 4 };
        let first = feed.seat(Some("ci")).unwrap();
        let second = feed.seat(Some("ci")).unwrap();
        let why =
            |token| feed.seat(token).err().map(|problem| problem.detail().to_owned()).unwrap_or_default();
        assert!(why(Some("ci")).contains("2 event streams are open with this token"), "{}", why(Some("ci")));
        let others = [feed.seat(None).unwrap(), feed.seat(Some("b")).unwrap()];
        assert!(why(None).contains("4 event streams are open"), "{}", why(None));
        drop((first, others));
        assert!(feed.seat(Some("ci")).is_ok());
        drop(second);
        assert_eq!(feed.open.lock().all, 0);
        assert!(feed.open.lock().of.is_empty());
    }
}
