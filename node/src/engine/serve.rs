//! The other side: what a process does that is told to be an engine.
//!
//! The first thread reads the control stream, brings the version in, and then only waits for the
//! stream's end, which ends the process at once whatever the others do; one loads, or probes a
//! device; each stream has one that runs its batches, and an engine may have some of its own. A
//! panic of any of them ends the process.

use std::io::{self, ErrorKind, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use paceline_models::{Backend, Batch, LoadedModel, ModelSource, RunError};
use paceline_protocol::Tensor;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::child::{STREAMS_AT_A_TIME, STREAMS_SPACE};
use super::wire;
use crate::threads::give_way;

/// Is an engine for the node that holds the other end of standard input, until that ends.
///
/// # Errors
/// Standard input is no such stream, or what comes on it is not understood.
pub(crate) fn serve() -> io::Result<()> {
    let stdin = io::stdin();
    let mut control = UnixStream::from(stdin.as_fd().try_clone_to_owned()?);
    control.peer_addr()?;
    let mut streams = vec![];
    let (order, files) = loop {
        match some_streams(&control)? {
            Some(more) => streams.extend(more),
            None => break wire::receive::<wire::Order>(&mut control, FILES_BYTES_MAX)?,
        }
    };
    let mut answers = control.try_clone()?;
    limit_cores()?;
    match order {
        wire::Order::Probe(backend) => spawn("probe", move || {
            let _ = wire::send(&mut answers, &probe(backend), &[]);
        }),
        wire::Order::Load(load) => {
            limit_memory(load.process_bytes_max)?;
            spawn("load", move || {
                let loading = match load_version(&load, files) {
                    Ok(model) => {
                        for stream in streams {
                            start_lane(stream, model.clone(), load.backend);
                        }
                        wire::Loading::Loaded
                    }
                    Err(reason) => wire::Loading::Refused(reason),
                };
                // Who does not listen has gone, and the first thread sees it.
                let _ = wire::send(&mut answers, &loading, &[]);
            });
        }
    }
    match control.read(&mut [0]) {
        Ok(0) => exit(0),
        Ok(_) => Err(ErrorKind::InvalidData.into()),
        Err(error) => Err(error),
    }
}

fn load_version(load: &wire::Load, files: Vec<Bytes>) -> Result<Arc<dyn LoadedModel>, String> {
    let source = ModelSource::from_files(load.files.iter().cloned().zip(files));
    let threads = usize::try_from(load.threads).unwrap_or(1).max(1);
    // The node has the account; what it lets in has room here, unless others use the device too.
    let memory_bytes = match load.backend {
        Backend::Cuda { .. } => None,
        Backend::Kernels | Backend::Candle => Some(u64::MAX),
    };
    let engine = load.backend.open(threads, memory_bytes, give_way);
    let engine = engine.map_err(|error| error.to_string())?;
    engine.load(&source).map_err(|error| error.to_string())
}

fn probe(backend: Backend) -> wire::Probed {
    match backend.open(1, None, give_way) {
        Ok(engine) => wire::Probed::Works {
            name: engine.name().to_owned(),
            device: engine.device(),
        },
        Err(error) => wire::Probed::Fails(error.to_string()),
    }
}

fn start_lane(mut stream: UnixStream, model: Arc<dyn LoadedModel>, backend: Backend) {
    spawn("lane", move || {
        // Of a GPU's batches it does next to nothing, and that nothing should wait for.
        if !matches!(backend, Backend::Cuda { .. }) {
            give_way();
        }
        while let Ok((run, blobs)) = wire::receive::<wire::Run>(&mut stream, BATCH_BYTES_MAX) {
            let (ran, blobs) = match wire::put_together(run.requests, blobs) {
                Ok(requests) => match run_batch(&*model, &requests, run.threads_max) {
                    // Nothing but a new process gets it back.
                    (wire::Ran::Failed(error @ RunError::DeviceLost { .. }), _) => {
                        eprintln!("{error}");
                        exit(DEVICE_LOST);
                    }
                    ran => ran,
                },
                Err(message) => {
                    let error = RunError::Engine { message };
                    (wire::Ran::Failed(error), Vec::new())
                }
            };
            if wire::send(&mut stream, &ran, &blobs).is_err() {
                return;
            }
        }
    });
}

fn run_batch(
    model: &dyn LoadedModel,
    requests: &[Vec<Tensor>],
    threads_max: u32,
) -> (wire::Ran, Vec<Bytes>) {
    let requests: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
    let batch = Batch::new(&requests).among(threads_max);
    match model.run(&batch) {
        Ok(answers) => {
            let (answers, blobs) = wire::taken_apart(answers.iter().map(Vec::as_slice));
            let threads = batch.threads();
            (wire::Ran::Answers { answers, threads }, blobs)
        }
        Err(error) => (wire::Ran::Failed(error), Vec::new()),
    }
}

/// Streams that were sent with a byte that counts them; `None` for the zero behind them.
fn some_streams(control: &UnixStream) -> io::Result<Option<Vec<UnixStream>>> {
    let mut count = [0];
    let mut space = [MaybeUninit::uninit(); STREAMS_SPACE];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        control,
        &mut [IoSliceMut::new(&mut count)],
        &mut rights,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut streams = Vec::with_capacity(STREAMS_AT_A_TIME);
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            streams.extend(descriptors.map(UnixStream::from));
        }
    }
    match received.bytes {
        0 => exit(0),
        _ if usize::from(count[0]) != streams.len() => Err(ErrorKind::InvalidData.into()),
        _ => Ok(Some(streams).filter(|streams| !streams.is_empty())),
    }
}

/// An allocation beyond the limit fails, and ends the process.
fn limit_memory(bytes_max: u64) -> io::Result<()> {
    match bytes_max {
        0 => Ok(()),
        bytes_max => limit(Resource::Data, bytes_max),
    }
}

/// No core is written: it would hold what clients have sent.
fn limit_cores() -> io::Result<()> {
    limit(Resource::Core, 0)
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    Ok(setrlimit(resource, limit)?)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    let guarded = move || {
        // The panic hook has told of it.
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            exit(PANICKED);
        }
    };
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(guarded);
    if let Err(error) = spawned {
        eprintln!("no thread for an engine: {error}");
        exit(PANICKED);
    }
}

/// Files of a version: three of the largest.
const FILES_BYTES_MAX: u64 = 10 << 30;
/// A batch: as many of the largest bodies as fit into memory.
const BATCH_BYTES_MAX: u64 = 16 << 30;
/// The device computes nothing more in this process.
const DEVICE_LOST: i32 = 102;
/// As Rust's own runtime ends after a panic of the first thread.
const PANICKED: i32 = 101;
