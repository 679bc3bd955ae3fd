//! The thread that owns a GPU: its context, its streams, and all that is issued to it.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use candle_core::cuda_backend::cudarc::driver::sys::{self, CUevent_flags};
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaSlice, CudaStream, DriverError};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Device, Storage, Tensor as Array};

use super::flight::{Flight, Lost, Span, told, verdict};
use super::pinned::Lease;
use super::probe::{CudaOptions, ProbeError, runs_on};
use super::{inject, libraries};
use crate::engine::RunError;
use crate::offload::{Compute, Input, Work};

/// What lanes ask of the owner.
pub(super) enum Message {
    /// Copies an array of main memory to the device.
    Upload {
        array: Array,
        reply: SyncSender<Result<Array, RunError>>,
    },
    /// Starts a batch.
    Run {
        work: Work,
        lease: Lease,
        reply: SyncSender<Result<Flight, RunError>>,
    },
    /// What the device has free, once it has nothing to do.
    Free {
        reply: SyncSender<Result<u64, RunError>>,
    },
    /// Does what no process survives, to see that it is survived outside.
    Fault { reply: SyncSender<RunError> },
}

/// The device, on its own thread.
pub(super) struct Owner {
    device: Device,
    cuda: CudaDevice,
    copy_in: Arc<CudaStream>,
    /// candle's own.
    compute: Arc<CudaStream>,
    copy_out: Arc<CudaStream>,
    lost: Lost,
    /// When the last batch computed.
    before: Option<Arc<Span>>,
}

/// What the probe found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) free_bytes: u64,
}

/// What was issued of a batch.
struct Issued {
    outcome: Array,
    outputs: usize,
    copy_in: Span,
    compute: Arc<Span>,
    copy_out: Span,
}

/// Time is taken; who waits sleeps.
const TIMED: Option<CUevent_flags> = Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC);

/// What libraries and kernels of CUDA 13.0 need, as the driver tells it: 1,000 · major + 10 · minor.
const DRIVER_MIN: i32 = 13_000;

impl Owner {
    /// Opens the device, and computes a product on it to see that it does.
    ///
    /// # Errors
    /// [`ProbeError`], the first that applies.
    pub(super) fn open(options: CudaOptions, lost: Lost) -> Result<(Self, Found), ProbeError> {
        let ordinal = options.ordinal;
        let refused = |message: String| ProbeError::Device { ordinal, message };
        libraries::open()?;
        check_driver()?;
        // Whatever the driver's bindings cannot answer they panic with.
        let count = catch_unwind(CudaContext::device_count)
            .map_err(|_| refused("asking for devices panicked".into()))?;
        let count = match count {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) | Ok(0) => {
                return Err(ProbeError::NoDevice);
            }
            Err(error) => return Err(refused(told(error))),
            Ok(count) => usize::try_from(count).unwrap_or(0),
        };
        if ordinal >= count {
            return Err(ProbeError::Ordinal { ordinal, count });
        }
        let opened = catch_unwind(AssertUnwindSafe(|| Self::with_streams(ordinal, lost)));
        let owner = opened
            .map_err(|_| refused("opening it panicked".into()))?
            .map_err(|error| refused(one_line(&error.to_string())))?;
        let found = owner.check(ordinal)?;
        Ok((owner, found))
    }

    fn with_streams(ordinal: usize, lost: Lost) -> candle_core::Result<Self> {
        // `new_cuda` would give each thread a stream of its own behind one device, unordered.
        let device = Device::new_cuda_with_stream(ordinal)?;
        let cuda = device.as_cuda_device()?.clone();
        // SAFETY: without tracking, order between streams is ours to keep. All that candle does is
        // on the one stream `compute`, ordered by itself. What crosses streams are a batch's input
        // and outcome: `issue` makes each stream wait for the event behind the one before it, and
        // `Flight` holds both until the last event.
        unsafe { cuda.disable_event_tracking() };
        let compute = cuda.cuda_stream();
        let context = compute.context();
        let stream = || context.new_stream().map_err(candle_core::Error::wrap);
        Ok(Self {
            copy_in: stream()?,
            copy_out: stream()?,
            compute,
            cuda,
            device,
            lost,
            before: None,
        })
    }

    /// What it is, and that it computes.
    fn check(&self, ordinal: usize) -> Result<Found, ProbeError> {
        let refused = |message: String| ProbeError::Device { ordinal, message };
        let context = self.compute.context();
        let (major, minor) = context
            .compute_capability()
            .map_err(|error| refused(told(error)))?;
        let found = u32::try_from(10 * major + minor).unwrap_or(0);
        if let Some(built) = option_env!("CUDA_COMPUTE_CAP").and_then(|it| it.parse().ok())
            && !runs_on(built, found)
        {
            return Err(ProbeError::Capability { built, found });
        }
        let product = || -> candle_core::Result<Vec<f32>> {
            let array = Array::new(&[[1f32, 2.0], [3.0, 4.0]], &self.device)?;
            array.matmul(&array)?.flatten_all()?.to_vec1()
        };
        let product = product().map_err(|error| refused(one_line(&error.to_string())))?;
        if product != [7.0, 10.0, 15.0, 22.0] {
            return Err(refused(format!("it computes a product wrong: {product:?}")));
        }
        let told = |error| refused(told(error));
        Ok(Found {
            name: context.name().map_err(told)?,
            free_bytes: context.mem_get_info().map_err(told)?.0 as u64,
        })
    }

    /// Serves until nobody can ask any more.
    pub(super) fn serve(mut self, messages: &Receiver<Message>) {
        // Whoever asked may have gone: then nobody wants the answer.
        for message in messages {
            match message {
                Message::Upload { array, reply } => {
                    let _ = reply.send(self.upload(&array));
                }
                Message::Run { work, lease, reply } => {
                    let _ = reply.send(self.run(work, lease));
                }
                Message::Free { reply } => {
                    let _ = reply.send(self.free_bytes());
                }
                Message::Fault { reply } => {
                    let done = inject::fault(&self.compute);
                    let _ = reply.send(self.failed(format!("{done:?}")));
                }
            }
        }
    }

    fn upload(&self, array: &Array) -> Result<Array, RunError> {
        self.check_lost()?;
        let copied = array.to_device(&self.device);
        copied.map_err(|error| self.failed(error.to_string()))
    }

    fn free_bytes(&self) -> Result<u64, RunError> {
        self.check_lost()?;
        self.settle();
        let free = self.compute.context().mem_get_info();
        let free = free.map_err(|error| self.failed(told(error)))?;
        Ok(free.0 as u64)
    }

    fn run(&mut self, work: Work, mut lease: Lease) -> Result<Flight, RunError> {
        self.check_lost()?;
        let mut input = None;
        let issue = || self.issue(work, &mut lease, &mut input);
        let message = match catch_unwind(AssertUnwindSafe(issue)) {
            Ok(Ok(issued)) => {
                return Ok(Flight {
                    lease,
                    outputs: issued.outputs,
                    copy_in: issued.copy_in,
                    before: self.before.replace(issued.compute.clone()),
                    compute: issued.compute,
                    copy_out: issued.copy_out,
                    _held: [input.expect("it was copied in"), issued.outcome],
                });
            }
            Ok(Err(message)) => message,
            Err(_) => "starting a batch panicked".into(),
        };
        // Whatever was issued of it is waited for, before buffers go back to the pool and memory
        // to the device: otherwise the next batch would write to what this one still reads.
        self.settle();
        Err(self.failed(message))
    }

    /// Issues copy in, computation and copy out of a batch, and waits for none of them. `held` is
    /// what the device must not lose before it is done.
    fn issue(
        &self,
        work: Work,
        lease: &mut Lease,
        held: &mut Option<Array>,
    ) -> Result<Issued, String> {
        let Work {
            input,
            outputs,
            compute,
        } = work;
        let mark = |stream: &CudaStream| stream.record_event(TIMED).map_err(told);
        let start = mark(&self.copy_in)?;
        let input = held.insert(self.copy_in(input, lease)?).clone();
        let copy_in = Span {
            start,
            end: mark(&self.copy_in)?,
        };
        self.compute.wait(&copy_in.end).map_err(told)?;
        let start = mark(&self.compute)?;
        let outcome = outcome(compute, input, outputs)?;
        let compute = Arc::new(Span {
            start,
            end: mark(&self.compute)?,
        });
        self.copy_out.wait(&compute.end).map_err(told)?;
        let start = mark(&self.copy_out)?;
        self.copy_out(&outcome, outputs, lease)?;
        let copy_out = Span {
            start,
            end: mark(&self.copy_out)?,
        };
        Ok(Issued {
            outcome,
            outputs,
            copy_in,
            compute,
            copy_out,
        })
    }

    fn copy_in(&self, input: Input, lease: &mut Lease) -> Result<Array, String> {
        let (storage, length) = match input {
            Input::U32(ids) => {
                let slice = lease.ids_in(&ids, &self.copy_in).map_err(told)?;
                let storage = CudaStorage::wrap_cuda_slice(slice, self.cuda.clone());
                (storage, ids.len())
            }
            Input::F32(values) => {
                let slice = lease.values_in(&values, &self.copy_in).map_err(told)?;
                let storage = CudaStorage::wrap_cuda_slice(slice, self.cuda.clone());
                (storage, values.len())
            }
        };
        let storage = Storage::Cuda(storage);
        Ok(Array::from_storage(
            storage,
            length,
            BackpropOp::none(),
            false,
        ))
    }

    fn copy_out(&self, outcome: &Array, outputs: usize, lease: &mut Lease) -> Result<(), String> {
        let (storage, layout) = outcome.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err("the outcome is not on the device".into());
        };
        let slice: &CudaSlice<f32> = storage.as_cuda_slice().map_err(|error| error.to_string())?;
        let from = (layout.start_offset(), outputs);
        lease.outcome_out(slice, from, &self.copy_out).map_err(told)
    }

    /// Waits for all streams, whatever they say.
    fn settle(&self) {
        for stream in [&self.copy_in, &self.copy_out, &self.compute] {
            let _ = stream.synchronize();
        }
    }

    fn check_lost(&self) -> Result<(), RunError> {
        match self.lost.get() {
            None => Ok(()),
            Some(message) => Err(RunError::DeviceLost {
                message: message.clone(),
            }),
        }
    }

    /// What an error of anything that was issued means: the stream says whether it is sticky,
    /// however candle wrapped it.
    fn failed(&self, message: String) -> RunError {
        match self.compute.synchronize() {
            Err(error) => verdict(&self.lost, error, &message),
            Ok(()) => RunError::Engine { message },
        }
    }
}

/// The family's operations, and that they gave what was said.
fn outcome(compute: Compute, input: Array, outputs: usize) -> Result<Array, String> {
    let outcome = compute(input).and_then(|outcome| outcome.contiguous());
    let outcome = outcome.map_err(|error| error.to_string())?;
    match outcome.elem_count() {
        count if count == outputs => Ok(outcome),
        count => Err(format!("{count} numbers came out, {outputs} were said")),
    }
}

fn check_driver() -> Result<(), ProbeError> {
    let mut version = 0;
    // SAFETY: the library was opened, every driver has the function, and it writes one number.
    let result = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    if result == sys::CUresult::CUDA_SUCCESS && version >= DRIVER_MIN {
        return Ok(());
    }
    Err(ProbeError::Driver {
        found: format!("{}.{}", version / 1000, version % 1000 / 10),
        wanted: "13.0 (driver 580)",
    })
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
