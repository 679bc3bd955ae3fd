//! Those who use the cluster while it suffers: operators and callers of inference.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use paceline_core::Random;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::engine::{COLUMNS, Ledger};
use crate::history::History;
use crate::http::Answer;
use crate::linearizability::{Moment, What};
use crate::models::{LONE, REGISTERS, answer_to};
use crate::reach::Lost;
use crate::trace::Trace;
use crate::world::{Life, Sights};

/// What all clients of a world share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) sights: Sights,
    pub(crate) trace: Trace,
    pub(crate) history: History,
    pub(crate) ledger: Ledger,
    pub(crate) calm: Calm,
    next_row: Arc<AtomicU32>,
    next_serials: Arc<[AtomicU32; REGISTERS.len()]>,
}

/// Whether everything has to succeed. Odd numbers are calm, and each change is another one.
/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Calm {
    number: Arc<AtomicU64>,
}

impl Calm {
    pub(crate) fn set(&self, calm: bool) {
        if (self.number() % 2 == 1) != calm {
            self.number.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Whether it was calm at this number and has been since.
    fn lasted(&self, number: u64) -> bool {
        number % 2 == 1 && self.number() == number
    }
}

impl Clients {
    pub(crate) fn new(sights: Sights, ledger: Ledger, history: History, trace: Trace) -> Self {
        Self {
            sights,
            trace,
            history,
            ledger,
            calm: Calm::default(),
            next_row: Arc::new(AtomicU32::new(1)),
            next_serials: Arc::new([const { AtomicU32::new(FIRST_SERIAL) }; REGISTERS.len()]),
        }
    }

    /// An operator: writes registers and reads them, at any node, for ever.
    pub(crate) async fn operate(self, mut random: Random) {
        loop {
            sleep(Duration::from_millis(20 + random.below(180))).await;
            match random.below(5) {
                0 | 1 => self.write(&mut random).await,
                _ => self.read(&mut random).await,
            }
        }
    }

    /// A caller of inference, at any node, for ever; of this model, or of any.
    pub(crate) async fn infer(self, model: Option<&'static str>, mut random: Random) {
        loop {
            sleep(Duration::from_millis(1 + random.below(12))).await;
            self.infer_once(model, &mut random).await;
        }
    }

    async fn ask(
        &self,
        random: &mut Random,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u64, Result<Answer, Lost>) {
        // Who waits for a stalled node is of no use to the others: a few do on purpose.
        let mut lives = self.sights.all();
        lives.retain(|life| !life.is_stalled());
        if lives.is_empty() {
            return (0, Err(Lost));
        }
        let life = &lives[random.below(lives.len() as u64) as usize];
        let answered = life.reach().ask(method, path, body.as_bytes()).await;
        (life.node.0, answered)
    }

    /// Writes a serial under an op-id; what may have happened or not is sent again elsewhere,
    /// under the same one.
    async fn write(&self, random: &mut Random) {
        let position = random.below(REGISTERS.len() as u64) as usize;
        let serial = self.next_serials[position].fetch_add(1, Ordering::Relaxed);
        if serial > LAST_SERIAL {
            return;
        }
        let model = REGISTERS[position];
        let op = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
        let path = format!("/v2/paceline/models/{model}/deploy");
        let body = format!(r#"{{"version":1,"replicas":{{"count":{serial}}},"op":"{op:032x}"}}"#);
        let began = self.history.moment();
        let mut may_be_done = false;
        for _ in 0..=random.below(4) {
            let calm = self.calm.number();
            let (node, answered) = self.ask(random, "POST", &path, &body).await;
            let code = answered.map_or("LOST".to_owned(), |answer| answer.code());
            self.trace
                .note(format_args!("write {model}={serial} at {node}: {code}"));
            self.history.count(&format!("write {code}"));
            if code != "OK" && self.calm.lasted(calm) {
                self.history
                    .violation(format!("a write failed in calm: {code}"));
            }
            match code.as_str() {
                "OK" => {
                    self.history.ended(model, began, What::Write(serial), true);
                    return;
                }
                // Nothing was done, says the registry's handle.
                "NO_QUORUM" | "OVERLOADED" => {}
                _ => may_be_done = true,
            }
            sleep(Duration::from_millis(random.below(200))).await;
        }
        let what = match may_be_done {
            true => What::Write(serial),
            false => What::Refused(serial),
        };
        self.history.ended(model, began, what, !may_be_done);
    }

    /// Reads all registers at once: they were all like that at one moment.
    async fn read(&self, random: &mut Random) {
        let began = self.history.moment();
        let calm = self.calm.number();
        let (node, answered) = self.ask(random, "GET", READ, "").await;
        let code = self.has_read(node, began, answered);
        if code != "OK" && self.calm.lasted(calm) {
            self.history
                .violation(format!("a read failed in calm: {code}"));
        }
    }

    /// Reads at this node, though it may take long.
    pub(crate) async fn read_at(self, life: Life) {
        sleep(PAUSE_BEFORE_READ).await;
        let began = self.history.moment();
        let answered = life.reach().ask("GET", READ, b"").await;
        self.has_read(life.node.0, began, answered);
    }

    fn has_read(&self, node: u64, began: Moment, answered: Result<Answer, Lost>) -> String {
        let (code, json) = match answered {
            Ok(answer) => (answer.code(), answer.json()),
            Err(Lost) => ("LOST".to_owned(), Value::Null),
        };
        self.history.count(&format!("read {code}"));
        let mut values = Vec::new();
        let models = json.as_array().into_iter().flatten();
        for model in models.filter(|model| model["name"] != LONE) {
            let name = model["name"].as_str().expect("a model has a name");
            let count = &model["deployed"]["replicas"]["count"];
            let serial = count.as_u64().unwrap_or(0) as u32;
            self.history.ended(name, began, What::Read(serial), true);
            values.push((serial, model["epoch"].as_u64().unwrap_or(0)));
        }
        self.trace
            .note(format_args!("read at {node}: {code} {values:?}"));
        code
    }

    async fn infer_once(&self, model: Option<&'static str>, random: &mut Random) {
        let row = self.next_row.fetch_add(1, Ordering::Relaxed);
        let model = model.unwrap_or_else(|| match random.below(2) {
            0 => LONE,
            _ => REGISTERS[random.below(REGISTERS.len() as u64) as usize],
        });
        let path = format!("/v2/models/{model}/infer");
        let body = format!(
            r#"{{"parameters":{{"timeout":{BUDGET_US}}},"inputs":[{{"name":"INPUT0","shape":[1,2],"datatype":"FP32","data":[{row},0.5]}}]}}"#
        );
        let (calm, began) = (self.calm.number(), Instant::now());
        let (node, answered) = self.ask(random, "POST", &path, &body).await;
        let took = began.elapsed();
        let Ok(answer) = answered else {
            self.history.count("infer LOST");
            return;
        };
        let code = answer.code();
        self.history.count(&format!("infer {code}"));
        let wrong = |what: String| {
            self.history
                .violation(format!("row {row} at {node}: {what}"))
        };
        let epoch = answer.header("paceline-epoch").unwrap_or("-").to_owned();
        let micros = took.as_micros();
        self.trace.note(format_args!(
            "infer {model} {row} at {node}: {code} epoch {epoch} in {micros}"
        ));
        let runs = self.ledger.runs(row);
        if code == "OK" {
            let data = answer.json()["outputs"][0]["data"].clone();
            let data: Vec<f32> = serde_json::from_value(data).unwrap_or_default();
            if data != answer_to([row as f32, 0.5]) {
                wrong(format!("another row's answer, {data:?}"));
            }
        } else if self.calm.lasted(calm) {
            wrong(format!("failed in calm: {code}"));
        }
        if runs > RUNS_MAX || (self.calm.lasted(calm) && runs > 1) {
            wrong(format!("was run {runs} times"));
        }
        if code == "NO_CODE" {
            wrong("a failure without a code".to_owned());
        }
        // A node that was stalled could not keep anything.
        if took > BUDGET + Duration::from_millis(250) && self.calm.lasted(calm) {
            wrong(format!("ended after {took:?}"));
        }
    }
}

const _: () = assert!(COLUMNS == 2, "the requests say so");
/// Replica counts stand for serials: from three on, all of them mean every node.
const FIRST_SERIAL: u32 = 3;
/// The most replicas that a deployment may ask for.
const LAST_SERIAL: u32 = 64;
/// All registers, as they are at one moment.
const READ: &str = "/v2/paceline/models?consistent=true";
/// Whoever asks a stalled node begins in the middle of it.
const PAUSE_BEFORE_READ: Duration = Duration::from_millis(500);
const BUDGET_US: u64 = 1_000_000;
const BUDGET: Duration = Duration::from_micros(BUDGET_US);
/// A request is run at most so often, whatever happens.
const RUNS_MAX: u32 = 2;
