//! Console and file, each behind a bounded queue and a writer thread of its own: one that takes nothing holds up
//! neither the other nor, for long, whoever writes. What finds a queue full is dropped and counted.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use logroller::{LogRollerBuilder, Rotation, RotationSize};
use parking_lot::Mutex;
use slog::{Drain, Level as Severity, Never, OwnedKVList, o};
use slog_async::{AsyncCore, AsyncError, AsyncGuard};

/// How many records may wait for one writer.
const QUEUE: usize = 4096;
/// How long a record that must not be lost waits for room. A console that takes nothing for longer
/// (a stopped terminal) must not hold the runtime.
pub(super) const ROOM_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the end waits for what is queued to be written.
const END_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// A log file that is put aside when it has grown.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// Where. Its directory is made if need be.
    pub path: PathBuf,
    /// The size at which it is put aside, as `PATH.1`.
    pub max_size: u64,
    /// How many old ones are kept.
    pub keep: u32,
}

/// What becomes of a record that finds a queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfFull {
    /// It is dropped.
    Drop,
    /// It waits for room, for a while.
    Wait,
    /// It waits, and is not counted where it is dropped: it tells of what was.
    Notice,
}

/// Where records are written.
pub(super) struct Output {
    console: Queue,
    file: Option<Queue>,
}

/// The writer threads; their end is waited for in [`Output::close`].
pub(super) struct Writers(Vec<AsyncGuard>);

impl Output {
    /// Starts the writer threads.
    pub(super) fn start(
        console: Box<dyn Write + Send>,
        file: Option<&FileOptions>,
    ) -> io::Result<(Self, Writers)> {
        let file = file.map(open).transpose()?;
        let (console, guard) = Queue::start("console", console, true);
        let mut writers = vec![guard];
        let file = file.map(|file| {
            let (file, guard) = Queue::start("file", file, false);
            writers.push(guard);
            file
        });
        Ok((Self { console, file }, Writers(writers)))
    }

    /// Queues a record, as each is to write it: the file first, whatever the console does.
    pub(super) fn write(&self, console: Option<&str>, file: Option<&str>, if_full: IfFull) {
        for (queue, text) in [(self.file.as_ref(), file), (Some(&self.console), console)] {
            if let (Some(queue), Some(text)) = (queue, text) {
                queue.write(text, if_full);
            }
        }
    }

    /// How many each of them has dropped since this was last asked, by name. Of one that takes nothing at all that
    /// is told once, and again when it takes something or at the `end`.
    pub(super) fn take_dropped(&self, end: bool) -> Vec<(&'static str, u64)> {
        let queues = std::iter::once(&self.console).chain(&self.file);
        queues.filter_map(|queue| Some((queue.name, queue.take_dropped(end)?))).collect()
    }

    /// Takes nothing more, and waits for the writers to end; not for ever, if one takes nothing.
    pub(super) fn close(&self, Writers(writers): Writers) {
        for queue in std::iter::once(&self.console).chain(&self.file) {
            queue.closed.store(true, Ordering::Release);
        }
        let ends: Vec<_> = writers.into_iter().filter_map(ended).collect();
        let deadline = Instant::now() + END_TIMEOUT;
        for end in ends {
            let _ = end.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

/// Ends a writer on a thread of its own; whoever listens hears when it has.
fn ended(writer: AsyncGuard) -> Option<mpsc::Receiver<()>> {
    let (ended, end) = mpsc::channel();
    let finish = move || {
        drop(writer);
        drop(ended);
    };
    std::thread::Builder::new().name("greenroom-log-end".to_owned()).spawn(finish).ok().map(|_| end)
}

/// The queue in front of one writer thread.
struct Queue {
    name: &'static str,
    queue: AsyncCore,
    values: OwnedKVList,
    closed: AtomicBool,
    /// The writer took nothing for [`ROOM_TIMEOUT`]: nobody waits again until it has taken something.
    stuck: AtomicBool,
    dropped: AtomicU64,
    /// That it is stuck was told.
    told: AtomicBool,
}

impl Queue {
    fn start(name: &'static str, sink: Box<dyn Write + Send>, flush: bool) -> (Self, AsyncGuard) {
        let builder = AsyncCore::custom(Writer { sink: Mutex::new(sink), flush }).chan_size(QUEUE);
        let (queue, guard) = builder.thread_name(format!("greenroom-log-{name}")).build_with_guard();
        let queue = Self {
            name,
            queue,
            values: o!().into(),
            closed: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            told: AtomicBool::new(false),
        };
        (queue, guard)
    }

    fn write(&self, text: &str, if_full: IfFull) {
        if !self.push(text, if_full != IfFull::Drop) && if_full != IfFull::Notice {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("greenroom_log_records_dropped_total").increment(1);
        }
    }

    /// Whether it was queued. `wait`: for room, for a while.
    fn push(&self, text: &str, wait: bool) -> bool {
        let deadline = Instant::now() + ROOM_TIMEOUT;
        while !self.closed.load(Ordering::Acquire) {
            let line = format_args!("{text}");
            match self.queue.log(&slog::record!(Severity::Info, "", &line, slog::b!()), &self.values) {
                Ok(()) => {
                    self.stuck.store(false, Ordering::Relaxed);
                    return true;
                }
                Err(AsyncError::Full) if wait && !self.stuck.load(Ordering::Relaxed) => {
                    if Instant::now() > deadline {
                        self.stuck.store(true, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => break,
            }
        }
        false
    }

    fn take_dropped(&self, end: bool) -> Option<u64> {
        let stuck = self.stuck.load(Ordering::Relaxed);
        if self.told.swap(stuck, Ordering::Relaxed) && stuck && !end {
            return None;
        }
        Some(self.dropped.swap(0, Ordering::Relaxed)).filter(|dropped| *dropped > 0)
    }
}

/// Opens the rotating file.
fn open(options: &FileOptions) -> io::Result<Box<dyn Write + Send>> {
    let directory = options.path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let name = options.path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", options.path.display()))
    })?;
    std::fs::create_dir_all(directory)?;
    let roller = LogRollerBuilder::new(directory, Path::new(name))
        .rotation(Rotation::SizeBased(RotationSize::Bytes(options.max_size)))
        .max_keep_files(u64::from(options.keep))
        .graceful_shutdown(true)
        .build()
        .map_err(io::Error::other)?;
    Ok(Box::new(roller))
}

/// The drain at the end of a queue. A full disk or a closed pipe loses log lines, nothing else.
struct Writer {
    sink: Mutex<Box<dyn Write + Send>>,
    /// Each line is flushed. The rotating file writes through, and to flush it is to end it.
    flush: bool,
}

impl Drain for Writer {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &slog::Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let mut sink = self.sink.lock();
        let line = format!("{}\n", record.msg());
        let written = sink.write_all(line.as_bytes());
        if written.and_then(|()| if self.flush { sink.flush() } else { Ok(()) }).is_err() {
            metrics::counter!("greenroom_log_records_dropped_total").increment(1);
        }
        Ok(())
    }
}
