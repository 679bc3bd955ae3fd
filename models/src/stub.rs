//! A deterministic engine with a cost that is known: for tests, and for comparing the simulator
//! with a real node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use paceline_protocol::registry::DeviceKind;
use paceline_protocol::{Dim, Dtype, ModelName, Shape, Signature, Tensor, TensorSpec};

use crate::batch::Batch;
use crate::engine::{DeviceSpec, Engine, LoadError, LoadedModel, MemoryUse, RunError};
use crate::folder::{ModelDescription, describe};
use crate::source::ModelSource;

/// What a batch of `n` rows takes: `fixed_us + per_row_us · n` microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostCurve {
    /// Whatever the rows.
    pub fixed_us: u64,
    /// For each row.
    pub per_row_us: u64,
}

impl CostCurve {
    /// What a batch of `rows` takes. Saturates.
    pub fn of(self, rows: u64) -> Duration {
        Duration::from_micros(
            self.per_row_us
                .saturating_mul(rows)
                .saturating_add(self.fixed_us),
        )
    }
}

/// How a batch passes its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Leaves the core to others: an engine on a device of its own.
    #[default]
    Sleep,
    /// Keeps the core busy: an engine on this CPU.
    Spin,
    /// Takes none, and says what it would take: for runs in invented time.
    Told,
}

/// Loads whatever a `model.toml` describes, weights or not, and answers with values derived
/// from each row's bytes, so that an answer given to the wrong row is seen: see
/// [`StubEngine::answer_to`].
///
/// Cloning shares the script.
#[derive(Clone, Debug)]
pub struct StubEngine {
    /// What a batch takes.
    pub cost: CostCurve,
    /// How it passes its time.
    pub pace: Pace,
    /// What it says of itself.
    pub device: DeviceSpec,
    /// What a loaded version occupies.
    pub memory: MemoryUse,
    script: Arc<Script>,
}

impl Default for StubEngine {
    /// No cost, one thread, 1 GiB.
    fn default() -> Self {
        Self {
            cost: CostCurve::default(),
            pace: Pace::default(),
            device: DeviceSpec {
                kind: DeviceKind::Cpu,
                threads: 1,
                memory_bytes: 1 << 30,
            },
            memory: MemoryUse {
                weights_bytes: 1 << 20,
                activations_bytes: 1 << 10,
            },
            script: Arc::default(),
        }
    }
}

impl StubEngine {
    /// An engine of this cost that sleeps.
    pub fn new(cost: CostCurve) -> Self {
        Self {
            cost,
            ..Self::default()
        }
    }

    /// What fails, and when.
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// The answer to a request: what [`LoadedModel::run`] gives for it in any batch.
    ///
    /// Row *r* of each output follows from row *r* of all inputs and from nothing else. Open
    /// dimensions beside the rows have size 1; floats lie in 0..1; BYTES are 16 hexadecimal
    /// digits. The hash is 64-bit FNV-1a with a final mix (Fowler, Noll, Vo; and the finalizer
    /// of MurmurHash3).
    ///
    /// # Errors
    /// [`RunError::Output`] if the signature's output has more elements than can be counted.
    pub fn answer_to(signature: &Signature, request: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let rows = request.first().map_or(0, Tensor::rows);
        let seeds: Vec<u64> = (0..rows).map(|row| hash_of_row(request, row)).collect();
        let output = |(position, spec)| output(spec, position as u64, &seeds);
        signature.outputs.iter().enumerate().map(output).collect()
    }
}

impl Engine for StubEngine {
    fn device(&self) -> DeviceSpec {
        self.device
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn LoadedModel>, LoadError> {
        if self.script.loads.next() {
            return Err(LoadError::Engine {
                message: "this load is scripted to fail".into(),
            });
        }
        let (description, _) = describe(source)?;
        Ok(Arc::new(StubModel {
            description,
            engine: self.clone(),
        }))
    }
}

/// Failures to come, counted over all models of an engine, and changed while it runs.
/// Batches of a warm-up count like any other.
#[derive(Debug, Default)]
pub struct Script {
    loads: Trigger,
    runs: Trigger,
    panics: Trigger,
    /// The name of those that fail every batch.
    failing: Mutex<Option<String>>,
}

impl Script {
    /// Makes the `n`-th load from now fail; 1 is the next.
    pub fn fail_load(&self, n: u64) {
        self.loads.arm(n);
    }

    /// Makes the `n`-th batch from now fail with [`RunError::Engine`]; 1 is the next.
    pub fn fail_run(&self, n: u64) {
        self.runs.arm(n);
    }

    /// Makes the `n`-th batch from now panic; 1 is the next.
    pub fn panic_run(&self, n: u64) {
        self.panics.arm(n);
    }

    /// Makes every batch from now on fail of models whose author calls them so, or of none. What
    /// was loaded before stays loaded: a version that loads, warms up and then only errs.
    pub fn fail_model(&self, name: Option<&str>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        *failing = name.map(str::to_owned);
    }

    fn fails(&self, name: &ModelName) -> bool {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_deref() == Some(name.as_str())
    }

    /// Batches that were begun, failed ones included.
    pub fn batches(&self) -> u64 {
        self.runs.count.load(Ordering::SeqCst)
    }

    /// Loads that were begun, failed ones included.
    pub fn loads(&self) -> u64 {
        self.loads.count.load(Ordering::SeqCst)
    }
}

/// Fires once, at a count.
#[derive(Debug, Default)]
struct Trigger {
    count: AtomicU64,
    /// 0 is never.
    at: AtomicU64,
}

impl Trigger {
    fn arm(&self, n: u64) {
        assert!(n > 0, "the past cannot be made to fail");
        self.at
            .store(self.count.load(Ordering::SeqCst) + n, Ordering::SeqCst);
    }

    fn next(&self) -> bool {
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        count == self.at.load(Ordering::SeqCst)
    }
}

struct StubModel {
    description: ModelDescription,
    engine: StubEngine,
}

impl LoadedModel for StubModel {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let start = Instant::now();
        let script = &self.engine.script;
        let (fails, panics) = (script.runs.next(), script.panics.next());
        assert!(!panics, "this batch is scripted to panic");
        if fails || script.fails(&self.description.name) {
            return Err(RunError::Engine {
                message: "this batch is scripted to fail".into(),
            });
        }
        let signature = &self.description.signature;
        batch.check(signature, self.description.rows_max)?;
        let answer = |inputs: &&[Tensor]| StubEngine::answer_to(signature, inputs);
        let answers = batch
            .requests()
            .iter()
            .map(answer)
            .collect::<Result<_, _>>()?;
        pass(start, self.engine.cost.of(batch.rows()), self.engine.pace);
        Ok(answers)
    }

    fn bytes(&self) -> MemoryUse {
        self.engine.memory
    }

    fn told_cost(&self, rows: u64) -> Option<Duration> {
        (self.engine.pace == Pace::Told).then(|| self.engine.cost.of(rows))
    }
}

/// Returns when `cost` has passed since `start`.
fn pass(start: Instant, cost: Duration, pace: Pace) {
    match pace {
        Pace::Sleep => {
            let left = cost.saturating_sub(start.elapsed());
            if !left.is_zero() {
                std::thread::sleep(left);
            }
        }
        Pace::Spin => {
            while start.elapsed() < cost {
                std::hint::spin_loop();
            }
        }
        Pace::Told => {}
    }
}

fn hash_of_row(request: &[Tensor], row: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for tensor in request {
        for byte in tensor.slice_rows(row..row + 1).data() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn output(spec: &TensorSpec, position: u64, seeds: &[u64]) -> Result<Tensor, RunError> {
    let too_large = || RunError::Output {
        output: spec.name.clone(),
        wanted: "rows that fit into memory".into(),
        got: format!("{} {}", spec.dtype, spec.shape),
    };
    let mut dims = vec![seeds.len() as u64];
    dims.extend(spec.shape.0.iter().skip(1).map(|dim| match dim {
        Dim::Any => 1,
        Dim::Exactly(size) => *size,
    }));
    let shape = Shape::new(&dims).map_err(|_| too_large())?;
    if shape.elements() > ELEMENTS_MAX {
        return Err(too_large());
    }
    let mut data = Vec::new();
    for seed in seeds {
        for element in 0..shape.row_elements() {
            push(
                spec.dtype,
                mix(seed ^ mix(element << 8 | position)),
                &mut data,
            );
        }
    }
    Tensor::new(spec.dtype, shape, data.into()).map_err(|_| too_large())
}

/// Most elements of an answer: 1 GiB of FP64.
const ELEMENTS_MAX: u64 = 128 << 20;

fn push(dtype: Dtype, hash: u64, data: &mut Vec<u8>) {
    // 24 bits are what a float32 holds exactly.
    let fraction = (hash >> 40) as f32 / (1u64 << 24) as f32;
    match dtype {
        Dtype::Bool => data.push((hash & 1) as u8),
        Dtype::Fp16 => data.extend(half::f16::from_f32(fraction).to_le_bytes()),
        Dtype::Bf16 => data.extend(half::bf16::from_f32(fraction).to_le_bytes()),
        Dtype::Fp32 => data.extend(fraction.to_le_bytes()),
        Dtype::Fp64 => data.extend(f64::from(fraction).to_le_bytes()),
        Dtype::Bytes => {
            data.extend(16u32.to_le_bytes());
            data.extend(format!("{hash:016x}").as_bytes());
        }
        Dtype::Uint8
        | Dtype::Uint16
        | Dtype::Uint32
        | Dtype::Uint64
        | Dtype::Int8
        | Dtype::Int16
        | Dtype::Int32
        | Dtype::Int64 => {
            let size = dtype.element_bytes().expect("integers have a fixed size");
            data.extend(&hash.to_le_bytes()[..size]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::{DIGITS_LIKE, IDENTITY, only_toml};
    use crate::warm_up;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn rows(from: u8, count: usize) -> [Tensor; 1] {
        let values: Vec<f32> = (0..count * 64)
            .map(|i| f32::from(from) + i as f32)
            .collect();
        [Tensor::from_f32(64, &values)]
    }

    #[test]
    fn an_answer_depends_on_its_own_row_only() {
        // A signature with weights that are not there: the stub needs none.
        let model = StubEngine::default().load(&only_toml(DIGITS_LIKE)).unwrap();
        let (a, b) = (rows(0, 3), rows(100, 2));
        let together = model.run(&Batch::new(&[&a, &b])).unwrap();
        assert_eq!(model.run(&Batch::new(&[&b])).unwrap()[0], together[1]);
        let signature = &model.description().signature;
        assert_eq!(StubEngine::answer_to(signature, &a).unwrap(), together[0]);
        let second = [a[0].slice_rows(1..2)];
        let alone = StubEngine::answer_to(signature, &second).unwrap();
        for (alone, together) in alone.iter().zip(&together[0]) {
            assert_eq!(*alone, together.slice_rows(1..2));
            assert_ne!(
                *alone,
                together.slice_rows(0..1),
                "rows cannot be told apart"
            );
        }
    }

    #[test]
    fn answers_are_the_same_in_every_process() {
        let model = StubEngine::default().load(&only_toml(IDENTITY)).unwrap();
        let request = [Tensor::from_f32(1, &[1.0, 2.0])];
        let answer = &model.run(&Batch::new(&[&request])).unwrap()[0][0];
        let mut values = Vec::new();
        answer.extend_f32(&mut values);
        assert_eq!(values.len(), 2);
        assert_eq!(values, PINNED);
    }

    const PINNED: [f32; 2] = [0.250_470_82, 0.556_626_26];

    #[test]
    fn every_datatype_keeps_its_signature() {
        for dtype in Dtype::ALL {
            let toml = IDENTITY.replace("FP32", dtype.name());
            let model = StubEngine::default().load(&only_toml(&toml)).unwrap();
            assert!(warm_up(&*model).is_ok(), "{dtype}");
        }
    }

    #[test]
    fn scripted_failures_come_once_and_on_time() {
        let engine = StubEngine::default();
        engine.script().fail_load(2);
        let source = only_toml(DIGITS_LIKE);
        let model = engine.load(&source).unwrap();
        assert!(matches!(
            engine.load(&source),
            Err(LoadError::Engine { .. })
        ));
        assert!(engine.load(&source).is_ok());
        assert_eq!(engine.script().loads(), 3);

        let request = rows(0, 1);
        let requests = [&request[..]];
        let run = || catch_unwind(AssertUnwindSafe(|| model.run(&Batch::new(&requests))));
        engine.script().fail_run(2);
        engine.script().panic_run(3);
        assert!(run().unwrap().is_ok());
        assert!(matches!(run().unwrap(), Err(RunError::Engine { .. })));
        assert!(run().is_err());
        assert!(run().unwrap().is_ok());
        assert_eq!(engine.script().batches(), 4);
    }

    #[test]
    fn a_told_cost_is_warmed_up_with_and_not_spent() {
        let hour = CostCurve {
            fixed_us: 3_600_000_000,
            per_row_us: 1,
        };
        let engine = StubEngine {
            pace: Pace::Told,
            ..StubEngine::new(hour)
        };
        let model = engine.load(&only_toml(DIGITS_LIKE)).unwrap();
        let warm_up = warm_up(&*model).unwrap();
        assert_eq!(warm_up.one_row_ns, 3_600_000_001_000);
        let rows = u64::from(warm_up.rows);
        assert_eq!(warm_up.full_batch_ns, 3_600_000_000_000 + rows * 1_000);
    }

    #[test]
    fn a_batch_takes_what_its_rows_cost() {
        for pace in [Pace::Sleep, Pace::Spin] {
            let cost = CostCurve {
                fixed_us: 2_000,
                per_row_us: 500,
            };
            let engine = StubEngine {
                pace,
                ..StubEngine::new(cost)
            };
            let model = engine.load(&only_toml(DIGITS_LIKE)).unwrap();
            let request = rows(0, 4);
            let start = Instant::now();
            model.run(&Batch::new(&[&request])).unwrap();
            assert!(start.elapsed() >= Duration::from_micros(4_000));
        }
        assert_eq!(
            CostCurve {
                fixed_us: 1,
                per_row_us: u64::MAX
            }
            .of(2),
            Duration::from_micros(u64::MAX)
        );
    }
}
