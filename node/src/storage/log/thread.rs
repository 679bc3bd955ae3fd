//! The log's own thread: takes what waits, writes it as one group, answers in order. In tests
//! that share one runtime it is a task instead, and its disk is memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{mpsc, oneshot, watch};

use super::LogOptions;
use super::error::{AppendError, OpenError};
use super::recovery;
use super::state::{Recovered, Write};
use super::writer::Writer;
use crate::storage::disk::Disk;
use crate::storage::header::Owner;
use crate::threads::Threads;

/// Told once what became of a write: on the medium, or why not.
pub type Done = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

/// An open log. Cheap to clone; the thread ends when the last clone is dropped or the log is
/// closed.
#[derive(Clone)]
pub struct Log {
    jobs: mpsc::Sender<Job>,
    failure: watch::Receiver<Option<AppendError>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    /// Turns true when nothing is written any more.
    has_ended: watch::Receiver<bool>,
}

/// Who drives a log, and where its syncs are measured.
pub struct Drive {
    /// Its own thread, or a task of the present runtime.
    pub threads: Threads,
    /// Takes the time of each sync, in seconds.
    pub syncs: Histogram,
}

enum Job {
    Write(Write, Done),
    Close,
}

impl Log {
    /// Takes the directory, opens the log of `owner` in it (or begins one) and starts its
    /// thread. Blocks while segments are read: some 10 ms each at the default size.
    ///
    /// # Errors
    /// The directory is in use, belongs to another node or cluster, has lost or damaged what
    /// was durable, or its disk fails.
    pub fn open(
        disk: Arc<dyn Disk>,
        owner: Owner,
        options: LogOptions,
    ) -> Result<(Self, Recovered), OpenError> {
        let drive = Drive {
            threads: Threads::Own,
            syncs: Histogram::new([]),
        };
        Self::open_driven(disk, (owner, options), drive)
    }

    /// The same, driven and measured as `drive` says.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_driven(
        disk: Arc<dyn Disk>,
        (owner, options): (Owner, LogOptions),
        drive: Drive,
    ) -> Result<(Self, Recovered), OpenError> {
        let place = disk.place();
        let (writer, recovered) = Writer::open(disk, owner, options)?;
        let writer = writer.measured(drive.syncs);
        let (jobs, queue) = mpsc::channel(options.queue_writes_max.max(1));
        let (failing, failure) = watch::channel(None);
        let (ending, has_ended) = watch::channel(false);
        let serving = Serving {
            queue,
            failing,
            ending,
            group_bytes_max: options.group_bytes_max,
            place,
        };
        let thread = match drive.threads {
            Threads::Own => Some(serving.start_thread(writer)?),
            Threads::Shared => {
                tokio::spawn(serving.run_here(writer));
                None
            }
        };
        Ok((
            Self {
                jobs,
                failure,
                thread: Arc::new(Mutex::new(thread)),
                has_ended,
            },
            recovered,
        ))
    }

    /// Who wrote the log in this directory, or `None` if there is none yet.
    ///
    /// # Errors
    /// The directory cannot be read, or what is in it is not a log.
    pub fn owner(disk: &Arc<dyn Disk>) -> Result<Option<Owner>, OpenError> {
        recovery::owner(disk)
    }

    /// Gives a write to the log's thread, and waits for room in its queue only. Writes are done
    /// in the order of these calls, and `done` is called in that order.
    pub async fn submit(&self, write: Write, done: Done) {
        if let Err(unsent) = self.jobs.send(Job::Write(write, done)).await
            && let Job::Write(_, done) = unsent.0
        {
            done(Err(self.closed()));
        }
    }

    /// Writes, and waits until it is durable.
    ///
    /// # Errors
    /// As [`AppendError`] says.
    pub async fn write(&self, write: Write) -> Result<(), AppendError> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| {
            // Whoever waited may have gone.
            let _ = sender.send(result);
        });
        self.submit(write, done).await;
        receiver.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// The last failure of the disk, if there was one: full, or poisoned.
    pub fn failure(&self) -> watch::Receiver<Option<AppendError>> {
        self.failure.clone()
    }

    /// As [`Log::close`], for a log that is a task.
    pub async fn end(&self) {
        // The task may have ended already, and then nothing is left to do.
        let _ = self.jobs.send(Job::Close).await;
        let _ = self.has_ended.clone().wait_for(|ended| *ended).await;
    }

    /// Writes what waits, marks the end, and gives the directory back. Blocks until then.
    pub fn close(&self) {
        // The thread may have ended already, and then nothing is left to do.
        let _ = self.jobs.blocking_send(Job::Close);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // Its panic was caught and is in `failure`.
            let _ = thread.join();
        }
    }

    fn closed(&self) -> AppendError {
        self.failure.borrow().clone().unwrap_or(AppendError::Closed)
    }
}

/// What the thread owns beside the writer.
struct Serving {
    queue: mpsc::Receiver<Job>,
    failing: watch::Sender<Option<AppendError>>,
    ending: watch::Sender<bool>,
    group_bytes_max: usize,
    place: String,
}

/// Writes that share a sync.
#[derive(Default)]
struct Group {
    writes: Vec<Write>,
    callbacks: Vec<Done>,
    bytes: usize,
    /// Nothing comes after it.
    is_last: bool,
}

impl Serving {
    fn start_thread(self, writer: Writer) -> Result<JoinHandle<()>, OpenError> {
        std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || self.run(writer))
            .map_err(|cause| OpenError::Io {
                place: String::new(),
                action: "start the thread of",
                file: "raft-log".to_owned(),
                cause,
            })
    }

    fn run(mut self, writer: Writer) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(writer)));
        if served.is_err() {
            let cause = "the log's thread panicked".to_owned();
            let failure = AppendError::Poisoned {
                place: self.place.clone(),
                cause,
            };
            self.failing.send_replace(Some(failure));
        }
        self.ending.send_replace(true);
    }

    fn serve(&mut self, mut writer: Writer) {
        writer.keep_reserve();
        loop {
            let job = self.queue.blocking_recv();
            let group = self.group(job);
            let is_last = group.is_last;
            self.write(&mut writer, group);
            if is_last {
                break;
            }
        }
        self.finish(writer);
    }

    async fn run_here(mut self, mut writer: Writer) {
        writer.keep_reserve();
        loop {
            let job = self.queue.recv().await;
            let group = self.group(job);
            let is_last = group.is_last;
            self.write(&mut writer, group);
            if is_last {
                break;
            }
        }
        self.finish(writer);
        self.ending.send_replace(true);
    }

    fn write(&self, writer: &mut Writer, group: Group) {
        let results = writer.write(&group.writes);
        if let Some(Err(error)) = results.last()
            && matches!(
                error,
                AppendError::Full { .. } | AppendError::Poisoned { .. }
            )
        {
            tracing::error!(%error, "the log refuses a write");
            self.failing.send_replace(Some(error.clone()));
        }
        for (done, result) in group.callbacks.into_iter().zip(results) {
            done(result);
        }
        if !group.is_last {
            writer.keep_reserve();
        }
    }

    fn finish(&self, writer: Writer) {
        if let Err(error) = writer.close() {
            tracing::error!(%error, "the log was closed without a mark");
            self.failing.send_replace(Some(error));
        }
    }

    /// A first job, and all that wait behind it.
    fn group(&mut self, first: Option<Job>) -> Group {
        let mut group = Group::default();
        let mut next = first;
        loop {
            match next {
                Some(Job::Write(write, done)) => {
                    group.bytes += bytes_of(&write);
                    group.writes.push(write);
                    group.callbacks.push(done);
                }
                Some(Job::Close) | None => {
                    group.is_last = true;
                    return group;
                }
            }
            if group.bytes >= self.group_bytes_max {
                return group;
            }
            match self.queue.try_recv() {
                Ok(job) => next = Some(job),
                Err(_) => return group,
            }
        }
    }
}

fn bytes_of(write: &Write) -> usize {
    match write {
        Write::Append(entries) => entries.iter().map(|entry| entry.bytes.len()).sum(),
        Write::Vote(bytes) | Write::Committed(bytes) => bytes.len(),
        Write::Truncate(_) => 0,
        Write::Purge(mark) => mark.bytes.len(),
    }
}
