//! Real processes: the binary as people run it, spoken to over sockets and command lines,
//! killed, restarted, misused, and watched for what it loses. It loses nothing.

#[path = "process/about.rs"]
mod about;
#[path = "process/http.rs"]
mod http;
#[path = "process/inference.rs"]
mod inference;
#[path = "process/node.rs"]
mod node;
#[path = "process/tensors.rs"]
mod tensors;
