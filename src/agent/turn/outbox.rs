//! What a turn leaves behind, and how much of it may leave.

use crate::model::task::{NewBatch, NewTask};

/// At most so many tasks may leave one turn, one by one.
const MAX_TASKS: usize = 1_000;
/// At most so many bytes of inputs may leave one turn one by one.
const MAX_OUTBOX_BYTES: usize = 4 << 20;

/// What leaves with the commit.
#[derive(Default)]
pub(crate) struct Outbox {
    pub tells: Vec<Box<dyn FnOnce() + Send>>,
    pub tasks: Vec<NewTask>,
    pub batches: Vec<NewBatch>,
    pub bytes: usize,
    /// Of `tasks`, those that came one by one, and their bytes.
    singles: (usize, usize),
    pub retire: bool,
    /// Why the turn must fail although its handler answered.
    pub fault: Option<String>,
}

impl Outbox {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        let tasks = self.tasks.is_empty() && self.batches.is_empty();
        tasks && self.tells.is_empty() && !self.retire && self.fault.is_none()
    }

    /// Takes in what a later turn of the same commit leaves.
    pub(crate) fn append(&mut self, mut later: Outbox) {
        self.tells.append(&mut later.tells);
        self.tasks.append(&mut later.tasks);
        self.batches.append(&mut later.batches);
        self.bytes += later.bytes;
        self.retire |= later.retire;
    }

    pub(super) fn push(&mut self, task: NewTask, single: bool) {
        let bytes = task.input.get().len();
        self.bytes += bytes;
        if single {
            self.singles.0 += 1;
            self.singles.1 += bytes;
            if self.singles.0 > MAX_TASKS || self.singles.1 > MAX_OUTBOX_BYTES {
                self.refuse(
                    "a turn may submit 1,000 tasks or 4 MiB one by one: use `submit_all`, or split the work",
                );
            }
        }
        self.tasks.push(task);
    }

    pub(super) fn refuse(&mut self, why: impl Into<String>) {
        self.fault.get_or_insert_with(|| why.into());
    }
}
