//! Whole nodes, deterministically: three of them with their actors and consensus in one process,
//! on ports in memory, under invented time and seeded entropy.
//!
//! A run is a function of its seed (`tests/whole_node/entropy.rs` says why). What must hold is
//! judged by oracles that know nothing of the code: registers of the registry are linearizable,
//! no node forgets a term, answers are the asked rows' and none is run more than twice, nothing
//! fails while all is well or a node drains, and all is well again soon after a fault.

#![cfg(target_os = "linux")]

#[path = "whole_node/clients.rs"]
mod clients;
#[path = "whole_node/engine.rs"]
mod engine;
#[path = "whole_node/entropy.rs"]
mod entropy;
#[path = "whole_node/history.rs"]
mod history;
#[path = "whole_node/http.rs"]
mod http;
#[path = "whole_node/linearizability.rs"]
mod linearizability;
#[path = "whole_node/models.rs"]
mod models;
#[cfg(feature = "planted")]
#[path = "whole_node/planted.rs"]
mod planted;
#[path = "whole_node/reach.rs"]
mod reach;
#[path = "whole_node/runs.rs"]
mod runs;
#[path = "whole_node/scenario.rs"]
mod scenario;
#[path = "whole_node/seeds.rs"]
mod seeds;
#[path = "whole_node/spectator.rs"]
mod spectator;
#[path = "whole_node/trace.rs"]
mod trace;
#[path = "whole_node/world.rs"]
mod world;
