//! Real processes: the binary as people run it, spoken to over sockets and command lines,
//! killed, restarted, misused, and watched for what it loses. It loses nothing. Only what uses
//! `counting` has nodes of its own in this process, since it counts what an engine runs, or holds it.

#[path = "process/about.rs"]
mod about;
#[path = "process/bad_input.rs"]
mod bad_input;
#[path = "process/bench.rs"]
mod bench;
#[path = "process/call_models.rs"]
mod call_models;
#[path = "process/call_streams.rs"]
mod call_streams;
#[path = "process/calls.rs"]
mod calls;
#[path = "process/calls_under_way.rs"]
mod calls_under_way;
#[path = "process/canary.rs"]
mod canary;
#[path = "process/cluster.rs"]
mod cluster;
#[path = "process/command_line.rs"]
mod command_line;
#[path = "process/compression.rs"]
mod compression;
#[path = "process/counting.rs"]
mod counting;
#[path = "process/damage.rs"]
mod damage;
#[path = "process/described.rs"]
mod described;
#[path = "process/engines.rs"]
mod engines;
#[path = "process/events.rs"]
mod events;
#[path = "process/floods.rs"]
mod floods;
#[path = "process/grpc.rs"]
mod grpc;
#[path = "process/hostile.rs"]
mod hostile;
#[path = "process/http.rs"]
mod http;
#[path = "process/http2.rs"]
mod http2;
#[path = "process/inference.rs"]
mod inference;
#[path = "process/labels.rs"]
mod labels;
#[path = "process/leaving.rs"]
mod leaving;
#[path = "process/lifecycle.rs"]
mod lifecycle;
#[path = "process/machines.rs"]
mod machines;
#[path = "process/metrics.rs"]
mod metrics;
#[path = "process/node.rs"]
mod node;
#[path = "process/patience.rs"]
mod patience;
#[path = "process/predict.rs"]
mod predict;
#[path = "process/record.rs"]
mod record;
#[path = "process/room.rs"]
mod room;
#[path = "process/sequences.rs"]
mod sequences;
#[path = "process/shadow.rs"]
mod shadow;
#[path = "process/streams.rs"]
mod streams;
#[path = "process/survival.rs"]
mod survival;
#[path = "process/tenants.rs"]
mod tenants;
#[path = "process/tensors.rs"]
mod tensors;
#[path = "process/texts.rs"]
mod texts;
#[path = "process/tls.rs"]
mod tls;
#[path = "process/triton.rs"]
mod triton;
#[path = "process/up.rs"]
mod up;
#[path = "process/versions.rs"]
mod versions;
