//! The writer thread: console and file behind a bounded queue that counts what it drops.

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
use slog::{Drain, KV, Key, Level as Severity, Never, OwnedKVList, o};
use slog_async::{AsyncCore, AsyncError, AsyncGuard};

/// How many records may wait for the writer.
const QUEUE: usize = 4096;
/// How long a record that must not be lost waits for room. A console that takes nothing for longer
/// (a stopped terminal) must not hold the runtime.
pub(super) const ROOM_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// The key under which a record carries to the file what is written there.
const FILE: &str = "file";

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

/// The queue in front of the writer thread.
pub(super) struct Output {
    queue: AsyncCore,
    values: OwnedKVList,
    closed: AtomicBool,
    /// The writer took nothing for [`ROOM_TIMEOUT`]: nobody waits again until it has taken something.
    stuck: AtomicBool,
    dropped: AtomicU64,
}

impl Output {
    /// Starts the writer thread.
    pub(super) fn start(
        console: Box<dyn Write + Send>,
        file: Option<&FileOptions>,
    ) -> io::Result<(Self, AsyncGuard)> {
        let file = file.map(open).transpose()?;
        let drain = Writer(Mutex::new((console, file)));
        let builder = AsyncCore::custom(drain).chan_size(QUEUE).thread_name("greenroom-log".to_owned());
        let (queue, guard) = builder.build_with_guard();
        let output = Self {
            queue,
            values: o!().into(),
            closed: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        };
        Ok((output, guard))
    }

    /// Queues a record, as each is to write it. `must`: wait for room instead of dropping it.
    pub(super) fn write(&self, console: Option<&str>, file: Option<&str>, must: bool) {
        if console.is_none() && file.is_none() {
            return;
        }
        let console = console.unwrap_or_default();
        let deadline = Instant::now() + ROOM_TIMEOUT;
        while !self.closed.load(Ordering::Acquire) {
            let values = slog::b!(FILE => file.unwrap_or_default());
            let queued = self
                .queue
                .log(&slog::record!(Severity::Info, "", &format_args!("{console}"), values), &self.values);
            match queued {
                Ok(()) => {
                    self.stuck.store(false, Ordering::Relaxed);
                    return;
                }
                Err(AsyncError::Full) if must && !self.stuck.load(Ordering::Relaxed) => {
                    if Instant::now() > deadline {
                        self.stuck.store(true, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => break,
            }
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("greenroom_log_records_dropped_total").increment(1);
    }

    /// How many were dropped since this was last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Takes nothing more, and waits for the writer to end; not for ever, if it takes nothing.
    pub(super) fn close(&self, writer: AsyncGuard) {
        self.closed.store(true, Ordering::Release);
        let (ended, end) = mpsc::channel::<()>();
        let finish = move || {
            drop(writer);
            drop(ended);
        };
        if std::thread::Builder::new().name("greenroom-log-end".to_owned()).spawn(finish).is_ok() {
            let _ = end.recv_timeout(ROOM_TIMEOUT);
        }
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

type Sinks = (Box<dyn Write + Send>, Option<Box<dyn Write + Send>>);

/// The drain at the end of the queue. A full disk or a closed pipe loses log lines, nothing else.
struct Writer(Mutex<Sinks>);

impl Drain for Writer {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &slog::Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let mut sinks = self.0.lock();
        let (console, file) = &mut *sinks;
        let mut line = record.msg().to_string();
        if !line.is_empty() {
            line.push('\n');
            if console.write_all(line.as_bytes()).and_then(|()| console.flush()).is_err() {
                metrics::counter!("greenroom_log_records_dropped_total").increment(1);
            }
        }
        if let Some(file) = file {
            let mut line = FileLine(String::new());
            if record.kv().serialize(record, &mut line).is_ok() && !line.0.is_empty() {
                line.0.push('\n');
                if file.write_all(line.0.as_bytes()).is_err() {
                    metrics::counter!("greenroom_log_records_dropped_total").increment(1);
                }
            }
        }
        Ok(())
    }
}

/// Takes the file's line out of a queued record.
struct FileLine(String);

impl slog::Serializer for FileLine {
    fn emit_arguments(&mut self, key: Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        if AsRef::<str>::as_ref(&key) == FILE {
            self.0 = value.to_string();
        }
        Ok(())
    }
}
