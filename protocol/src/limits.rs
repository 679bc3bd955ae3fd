//! Every limit that two sides must agree on, each with its reason.
//!
//! Durations are in the unit that their name ends with. A limit that only one component
//! needs stands in that component's `Options` instead.

/// Budget of a request whose client names none, in milliseconds: ten seconds is longer than
/// any interactive caller waits, and short enough that a forgotten request frees its place.
pub const REQUEST_BUDGET_DEFAULT_MS: u64 = 10_000;
/// Largest budget that a client may ask for, in milliseconds: ten minutes covers the slowest
/// batch job that still wants an answer on the same connection.
pub const REQUEST_BUDGET_MAX_MS: u64 = 600_000;
/// Parts of a streamed answer that are under way at a time, from their start until the client's
/// connection has taken them: one that is being taken, one that is ready behind it, and two at
/// devices, so that none has to wait for its next rows. What a stream holds in memory is this many
/// batches, however slow its client is.
pub const STREAM_PARTS_MAX: usize = 4;
/// Budget of each part of a streamed answer whose client names none, in milliseconds: half a
/// minute behind other work is a slow batch job, and more looks like a stream that hangs. The
/// whole stream has [`REQUEST_BUDGET_MAX_MS`].
pub const STREAM_PART_BUDGET_DEFAULT_MS: u64 = 30_000;
/// How long a client may take nothing of a part, in milliseconds: as long as a connection may stand
/// still in the middle of anything else. Then its stream ends, and rows that wait are cancelled.
pub const STREAM_STALL_MS: u64 = 10_000;
/// Requests of one stream of gRPC that are under way or wait to be taken: as many as a batch takes
/// of single rows. More are not read, so that the caller's own queue holds them.
pub const STREAM_REQUESTS_MAX: usize = 16;
/// How long after its deadline a request may still be open, in milliseconds: one scheduler
/// hiccup on a loaded machine, and small beside any deadline that a client would choose.
pub const STATUS_GRACE_MS: u64 = 250;
/// Executions of one request, the first included: a second one hides the loss of a node, and a
/// third would let a request that kills its node kill a third.
pub const EXECUTIONS_MAX: usize = 2;
/// How often a request goes elsewhere without having run: a router that is behind by more
/// replicas than that has a view that is not worth following.
pub const REROUTES_MAX: u8 = 3;
/// Failovers under way at a node: what the nodes that are left can take at once beside their
/// own work, without being overloaded by it.
pub const FAILOVERS_MAX: u32 = 256;
/// Retries under way at a node, in percent of its active requests: overload that everybody
/// answers with a retry would feed itself.
pub const RETRIES_PERCENT_MAX: u32 = 20;
/// Retries that are always allowed: a node with few requests could otherwise make none.
pub const RETRIES_MIN: u32 = 3;

/// Largest encoded frame header: names, shapes and parameters of 64 tensors fit several times.
pub const FRAME_HEADER_BYTES_MAX: usize = 64 << 10;
/// Most tensors in a request or an answer: wide recommendation models have a few dozen inputs.
pub const TENSORS_MAX: usize = 64;
/// Most dimensions of a tensor: video batches have five, nothing in use has more than eight.
pub const DIMS_MAX: usize = 8;
/// Most rows (first dimension) in one request: larger work belongs in several requests.
pub const ROWS_MAX: u64 = 65_536;
/// Body of a request or an answer on every door unless configured otherwise.
pub const BODY_BYTES_DEFAULT: usize = 64 << 20;
/// The most that a body limit can be configured to: a tensor of 1 GiB already takes a second
/// to copy, and every such body is held in memory at least once.
pub const BODY_BYTES_MAX: usize = 1 << 30;
/// Alignment of tensor bytes on receipt: one cache line, and the widest vector load in use.
pub const TENSOR_ALIGN_BYTES: usize = 64;
/// Deepest nesting in JSON that is read: an 8-dimensional tensor inside a request needs 12.
pub const JSON_DEPTH_MAX: usize = 32;

/// How long a request to load a model waits until it serves, in milliseconds: as long as an artifact
/// may take to arrive at a node that lacks it.
pub const REPOSITORY_LOAD_MAX_MS: u64 = 600_000;
/// Smallest queue of a version on a device, in rows: a burst of one batch must always fit.
pub const QUEUE_ROWS_MIN: u32 = 64;
/// Largest queue of a version on a device, in rows: beyond it, waiting only turns into expiry.
pub const QUEUE_ROWS_MAX: u32 = 16_384;
/// A batch may run in the caller's own task only if the version's learnt cost is below this,
/// in microseconds: past it a blocked I/O worker costs more than a change of thread.
pub const IN_PLACE_COST_MAX_US: u64 = 50;

/// Most nodes in a cluster: what one leader can observe every second without effort. A registry is
/// made for a number of nodes, and the simulator's for more.
pub const NODES_MAX: usize = 64;
/// Longest life of a join token, in milliseconds: a week lets machines be ordered and set up;
/// a secret that lives longer is forgotten in some script.
pub const TOKEN_TTL_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// Life of a join token whose maker names none, in milliseconds: an hour is long enough to walk
/// to another machine.
pub const TOKEN_TTL_DEFAULT_MS: u64 = 3_600_000;
/// Longest time that a drain may take, in milliseconds: no request runs for longer than ten
/// minutes, and a large artifact is fetched and loaded elsewhere within an hour.
pub const DRAIN_DEADLINE_MAX_MS: u64 = 3_600_000;
/// Most voters: beyond seven, each write waits for more disks without surviving more in practice.
pub const VOTERS_MAX: usize = 7;
/// Join tokens that are kept: a rack at a time, many times over; expired ones go first.
pub const TOKENS_MAX: usize = 1_024;
/// Ids of removed nodes that are remembered; an older one's certificate expired long ago.
pub const BURNT_IDS_MAX: usize = 4_096;
/// Most tenants: each node keeps a clock and counters for each of them.
pub const TENANTS_MAX: usize = 1_024;
/// Keys of a tenant at a time: one in use, and the one that takes its place.
pub const TENANT_KEYS_MAX: usize = 2;
/// Largest weight of a tenant: beyond a hundred to one the lesser is as good as not served.
pub const TENANT_WEIGHT_MAX: u32 = 100;
/// Most requests, a second or at a time, that a tenant can be limited to.
pub const TENANT_LIMIT_MAX: u32 = 10_000_000;
/// Least cosine between a text's vectors in `f32` and in the precision that is chosen, in millionths:
/// what rounding to bfloat16 costs a good encoder is a tenth of what is left here.
pub const PRECISION_COSINE_LEAST_PPM: i32 = 999_000;
/// Texts to compare precisions by: more of them say no more.
pub const CALIBRATION_TEXTS_MAX: usize = 1_024;
/// Most models in a registry: their desired state must fit a snapshot of 64 MiB.
pub const MODELS_MAX: usize = 10_000;
/// Versions kept of a model; older ones that serve nothing are forgotten first.
pub const VERSIONS_KEPT_MAX: usize = 100;
/// Labels of a model: what people tell apart.
pub const LABELS_MAX: usize = 16;
/// A label, in bytes.
pub const LABEL_BYTES_MAX: usize = 32;
/// Canaries under way at a time: each has its counts in every node's report.
pub const CANARIES_MAX: usize = 100;
/// Stages of a canary.
pub const CANARY_STAGES_MAX: u64 = 16;
/// Longest time that a stage of a canary lasts at least: 30 days.
pub const CANARY_HOLD_MAX_MS: u64 = 30 * 24 * 3_600_000;
/// Why a canary was aborted, in bytes: a few sentences.
pub const ABORT_REASON_BYTES_MAX: usize = 512;
/// Models with a shadow at a time: each has replicas that answer nobody.
pub const SHADOWS_MAX: usize = 100;
/// Copies for shadows under way at a node: enough for a batch on a device. Above that copies are
/// dropped.
pub const SHADOW_COPIES_MAX: usize = 32;
/// What those hold of inputs and answers, in KiB: half of the largest body unless it is set, and an
/// eighth of what a node reads of one peer at a time, so that callers' tensors always find room.
pub const SHADOW_COPIES_KIB_MAX: u32 = 32 << 10;
/// What a request names as its unit (a user, a session), in bytes: room for a digest in
/// hexadecimal digits or two UUIDs.
pub const UNIT_BYTES_MAX: usize = 128;
/// Most replicas in a cluster.
pub const REPLICAS_MAX: usize = 20_000;
/// Largest report of a node on what it observes: 20,000 replicas of 32 bytes, their reasons for
/// having failed, the counts of 100 canaries of some kilobyte each, and half as much again.
pub const NODE_REPORT_BYTES_MAX: usize = 1 << 20;
/// What a peer may say on the mesh at once, in bytes: a few of the largest reports.
pub const MESH_BURST_BYTES: u32 = 4 << 20;
/// What a peer may say on the mesh in a second, in bytes: the largest report sixteen times, and
/// less than a port reads, so that what waits for it stays within the burst.
pub const MESH_BYTES_PER_SECOND: u32 = 16 << 20;
/// Largest encoded registry entry.
pub const REGISTRY_ENTRY_BYTES_MAX: usize = 256 << 10;
/// Largest snapshot of the registry.
pub const REGISTRY_SNAPSHOT_BYTES_MAX: usize = 64 << 20;
/// Remembered op-ids: at 100 writes a second, a retry may come 40 seconds later.
pub const OP_IDS_REMEMBERED: usize = 4_096;

/// Largest body of a record of a node's decisions: what it may keep in memory, and as much again.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Largest header of one: a line for each of some thousand machines.
pub const RECORD_HEADER_BYTES_MAX: usize = 256 << 10;

/// Largest request on the join door: a certificate and a request for one take about 1 KiB, and
/// whoever sends it has shown nothing yet.
pub const JOIN_REQUEST_BYTES_MAX: usize = 8 << 10;
/// Largest answer on the join door: two certificates and the addresses of all nodes.
pub const JOIN_ANSWER_BYTES_MAX: usize = 64 << 10;

/// Longest name of a model, tenant, tensor or node, in bytes: a DNS label twice over.
pub const NAME_BYTES_MAX: usize = 128;
/// Nodes that keep an artifact, where there are so many: one disk may be lost.
pub const ARTIFACT_COPIES: usize = 2;
/// Most files in an artifact.
pub const ARTIFACT_FILES_MAX: usize = 4_096;
/// Longest path inside an artifact, in bytes.
pub const ARTIFACT_PATH_BYTES_MAX: usize = 512;
/// Largest file inside an artifact: a 70-billion-parameter shard in 16 bits.
pub const ARTIFACT_FILE_BYTES_MAX: u64 = 200 << 30;
/// Chunk of an artifact file that is hashed and fetched on its own.
pub const ARTIFACT_CHUNK_BYTES: usize = 4 << 20;
/// Largest manifest in its canonical encoding.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Largest `model.toml`: it is written by people.
pub const MODEL_TOML_BYTES_MAX: usize = 256 << 10;
