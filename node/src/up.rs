//! A local cluster: a supervisor of real processes, one for each node.
//!
//! Owns the directory, the processes and the machine [`Up`], which decides; supervised by a
//! person. Hears from signals, from the processes' ends, which it looks for, and from short
//! tasks that prepare a node or ask it how far it has come; speaks to the terminal. When it
//! dies, however it dies, the pipes that it holds are closed and every node stops.

mod ask;
mod context;
mod home;
mod launch;
mod probe;
mod process;
mod report;
mod showcase;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use paceline_core::up::{self, Effect, Ending, Input, Past, Up};
use paceline_core::{Instant, Machine};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use self::ask::Asker;
use self::home::{Home, HomeError, name};
use self::launch::{Preparation, threads_of_each};
use self::probe::{Sight, Wanted, voters_of};
use self::process::{Process, ended_how, ending};
pub(crate) use self::report::Report;
use self::showcase::Shown;
use crate::clock::Clock;
use crate::config::{Block, EngineKind};
use crate::node::Addresses;

/// What a local cluster is like.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many nodes; as many as the directory has, or 3.
    pub(crate) nodes: Option<usize>,
    /// Where they keep their data.
    pub(crate) data: PathBuf,
    /// The first node's ports.
    pub(crate) block: Block,
    /// Whether the demo's models are brought along and shown.
    pub(crate) demo: bool,
    /// What computes encoders.
    pub(crate) engine: EngineKind,
    /// The nodes' program.
    pub(crate) program: PathBuf,
    /// How patient the supervisor is.
    pub(crate) policy: up::Options,
}

/// Why a local cluster does not come to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// Its directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The last node's ports.
    #[error("{0}; choose a lower --http-port or fewer --nodes")]
    Ports(String),
}

/// A local cluster and its supervisor.
pub(crate) struct Cluster {
    options: Options,
    home: Home,
    report: Report,
    machine: Up,
    clock: Clock,
    asker: Asker,
    nodes: Vec<Node>,
    raised: bool,
    ended: Option<bool>,
    tell: mpsc::Sender<(usize, u64, Fact)>,
    hear: mpsc::Receiver<(usize, u64, Fact)>,
    /// Kept for its capacity.
    effects: Vec<Effect>,
}

/// What the supervisor knows of a node.
#[derive(Default)]
struct Node {
    process: Option<Process>,
    /// Counts its starts: what is heard of an earlier life is over.
    life: u64,
    prober: Option<AbortHandle>,
    /// What it is waited for, as it was last seen.
    awaited: String,
}

/// What tasks find out about a node.
enum Fact {
    Started(Process),
    NotStarted(String),
    Seen(Sight),
    Shown(Result<String, String>),
}

impl Cluster {
    /// Takes the directory; nothing runs yet.
    ///
    /// # Errors
    /// The directory is somebody else's or in use, or there is no room for the ports.
    pub(crate) fn prepare(options: Options, report: Report) -> Result<Self, UpError> {
        let home = Home::claim(&options.data, options.nodes)?;
        let nodes = home.nodes();
        options.block.of_node(nodes - 1).map_err(UpError::Ports)?;
        let pasts: Vec<Past> = (0..nodes).map(|node| home.past(node)).collect();
        // A few facts for each node at a time; tasks wait when there are more.
        let (tell, hear) = mpsc::channel(nodes * 4);
        Ok(Self {
            machine: Up::new(options.policy, &pasts),
            options,
            home,
            report,
            clock: Clock::start(),
            asker: Asker::new(ASK_LIMIT),
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            raised: false,
            ended: None,
            tell,
            hear,
            effects: Vec::new(),
        })
    }

    /// Runs the cluster to its end, and says whether it ended as it was asked to. `asked`
    /// resolves at each request to stop.
    pub(crate) async fn run(&mut self, mut asked: impl AsyncFnMut()) -> bool {
        self.step(Input::Begin);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            if let Some(well) = self.ended {
                return well;
            }
            let wakeup = self.machine.next_wakeup().unwrap_or(Instant::FAR);
            // Far enough, and a span that timers can hold.
            let sleep = wakeup
                .since(self.clock.now())
                .min(Duration::from_secs(3_600));
            tokio::select! {
                () = asked() => self.stop_asked(),
                Some((node, life, fact)) = self.hear.recv() => self.heard(node, life, fact),
                _ = looks.tick() => self.look_for_ends(),
                () = tokio::time::sleep(sleep) => {
                    let now = self.clock.now();
                    self.machine.wake(now, &mut self.effects);
                    self.perform();
                }
            }
        }
    }

    fn step(&mut self, input: Input) {
        let now = self.clock.now();
        self.machine.step(now, input, &mut self.effects);
        self.perform();
    }

    fn perform(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Start { node } => self.start(node),
                Effect::Wait { node, until } => {
                    let seconds = until.since(self.clock.now()).as_secs_f64();
                    let line = format!("{} starts again in {seconds:.0} s", name(node));
                    self.report.tell(&line);
                }
                Effect::Leave { node, failures } => self.report.left(&name(node), failures),
                Effect::Removed { node } => self.removed(node),
                Effect::Late { node } => {
                    let (name, awaited) = (name(node), &self.nodes[node].awaited);
                    self.report.tell(&format!("{name} takes long: {awaited}"));
                }
                Effect::Raised => self.raised(),
                Effect::Back { node } => {
                    self.write_context();
                    self.report.tell(&format!("{} is ready again", name(node)));
                }
                Effect::Stop { node } => {
                    if let Some(process) = &mut self.nodes[node].process {
                        process.stop();
                    }
                }
                Effect::Kill { node } => {
                    if let Some(process) = &mut self.nodes[node].process {
                        process.kill();
                    }
                }
                Effect::Finish { well } => self.ended = Some(well),
            }
        }
        self.effects = effects;
    }

    fn start(&mut self, node: usize) {
        self.nodes[node].life += 1;
        self.nodes[node].awaited = "its process is prepared".to_owned();
        let preparation = Preparation {
            program: self.options.program.clone(),
            block: self.options.block,
            threads: threads_of_each(self.nodes.len()),
            engine: self.options.engine,
            // Its models are in the registry afterwards; a node that comes back later may find
            // no quorum to install them with.
            demo: self.options.demo && !self.raised && node == 0,
            node,
            directories: (0..self.nodes.len()).map(|at| self.home.node(at)).collect(),
            asker: self.asker.clone(),
        };
        let (tell, life) = (self.tell.clone(), self.nodes[node].life);
        tokio::spawn(async move {
            let launched = tokio::task::spawn_blocking(move || preparation.launch()).await;
            let fact = match launched {
                Ok(Ok(process)) => Fact::Started(process),
                Ok(Err(reason)) => Fact::NotStarted(reason),
                Err(panic) => Fact::NotStarted(panic.to_string()),
            };
            // Nobody hears it once all is over; a process ends with its pipe then.
            let _over = tell.send((node, life, fact)).await;
        });
    }

    fn heard(&mut self, node: usize, life: u64, fact: Fact) {
        if life != self.nodes[node].life {
            return;
        }
        match fact {
            Fact::Started(mut process) => {
                let line = format!("{} started, process {}", name(node), process.pid());
                self.report.tell(&line);
                if self.machine.is_ending() {
                    process.stop();
                }
                self.nodes[node].process = Some(process);
                self.probe(node);
            }
            Fact::NotStarted(reason) => {
                let line = format!("{} did not start: {reason}", name(node));
                self.report.tell(&line);
                let ending = Ending::NotStarted;
                self.step(Input::Ended { node, ending });
            }
            Fact::Seen(Sight::NotReady(awaited)) => self.nodes[node].awaited = awaited,
            Fact::Seen(Sight::Ready(awaited)) => {
                self.nodes[node].awaited = awaited;
                self.step(Input::Ready { node });
            }
            Fact::Seen(Sight::Serving) => {
                self.step(Input::Ready { node });
                self.step(Input::Serving { node });
            }
            Fact::Shown(Ok(text)) => self.report.print(&text),
            Fact::Shown(Err(reason)) => self.report.tell(&reason),
        }
    }

    /// Looks at the node until every model answers on it.
    fn probe(&mut self, node: usize) {
        let (asker, data) = (self.asker.clone(), self.home.node(node));
        let wanted = Wanted {
            voters: voters_of(self.members()),
            models: if self.options.demo {
                &showcase::MODELS
            } else {
                &[]
            },
        };
        let (tell, life) = (self.tell.clone(), self.nodes[node].life);
        let prober = tokio::spawn(async move {
            loop {
                let (asker, data) = (asker.clone(), data.clone());
                let look = move || probe::look(&asker, &data, wanted);
                let Ok(sight) = tokio::task::spawn_blocking(look).await else {
                    return;
                };
                let done = sight == Sight::Serving;
                if tell.send((node, life, Fact::Seen(sight))).await.is_err() || done {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        self.nodes[node].prober = Some(prober.abort_handle());
    }

    fn look_for_ends(&mut self) {
        for node in 0..self.nodes.len() {
            let known = &mut self.nodes[node];
            let ended = known.process.as_mut().and_then(Process::ended);
            if let Some(status) = ended {
                known.process = None;
                if let Some(prober) = known.prober.take() {
                    prober.abort();
                }
                // What its tasks still have to say is about a node that is gone.
                known.life += 1;
                self.report_end(node, status);
                let ending = match self.home.past(node) {
                    Past::Removed => Ending::Removed,
                    Past::New | Past::Member => ending(status),
                };
                self.step(Input::Ended { node, ending });
            }
        }
    }

    fn report_end(&mut self, node: usize, status: ExitStatus) {
        let of = (name(node), self.home.node(node));
        match self.machine.is_ending() {
            true => self.report.tell(&format!("{} {}", of.0, ended_how(status))),
            false => self.report.ended(of, status),
        }
    }

    fn removed(&mut self, node: usize) {
        self.report.removed(&name(node), &self.home.node(node));
        if self.raised {
            self.write_context();
        }
    }

    /// Nodes that belong to the cluster, or will.
    fn members(&self) -> usize {
        let pasts = (0..self.nodes.len()).map(|node| self.home.past(node));
        pasts.filter(|past| *past != Past::Removed).count()
    }

    fn stop_asked(&mut self) {
        let line = if self.machine.is_ending() {
            "ending at once"
        } else {
            "stopping the cluster; what is in flight has 5 s (Ctrl-C again to end at once)"
        };
        self.report.tell(line);
        self.step(Input::StopAsked);
    }

    fn raised(&mut self) {
        self.raised = true;
        self.write_context();
        let shown = self.shown();
        let urls: Vec<String> = shown.iter().map(Shown::urls).collect();
        let seconds = Duration::from_nanos(self.clock.now().as_nanos()).as_secs_f64();
        let (urls, data) = (urls.join("   "), self.home.path().display());
        let line = format!("ready   {urls}   data {data}   after {seconds:.1} s");
        self.report.print(&line);
        if !self.options.demo {
            return;
        }
        let (asker, context) = (self.asker.clone(), self.home.path().join(context::FILE));
        let (tell, life) = (self.tell.clone(), self.nodes[0].life);
        tokio::spawn(async move {
            let show = move || showcase::show(&asker, &shown, &context);
            let text = tokio::task::spawn_blocking(show).await;
            let text = text.unwrap_or_else(|panic| Err(panic.to_string()));
            let _over = tell.send((0, life, Fact::Shown(text))).await;
        });
    }

    /// The nodes that run and listen.
    fn shown(&self) -> Vec<Shown> {
        let nodes = self.nodes.iter().enumerate();
        let shown = nodes.filter_map(|(node, known)| {
            let pid = known.process.as_ref()?.pid();
            let Addresses { http, grpc, .. } = probe::addresses(&self.home.node(node))?;
            Some(Shown {
                node,
                http,
                grpc,
                pid,
            })
        });
        shown.collect()
    }

    fn write_context(&mut self) {
        if let Err(error) = context::write(&self.home) {
            let file = context::FILE;
            self.report
                .tell(&format!("{file} cannot be written: {error}"));
        }
    }
}

/// How often ends are looked for, and how far a node has come: short beside what starting takes.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long an answer of a local node may take.
const ASK_LIMIT: Duration = Duration::from_secs(5);
