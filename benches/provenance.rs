//! Where a benchmark's numbers come from: machine, commit, seed, and what else was running.

use std::process::Command;

/// Decides all that a benchmark draws.
pub(crate) const SEED: u64 = 1;

/// Prints where the numbers below it come from.
pub(crate) fn print(benchmark: &str) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("benchmark  {benchmark}");
    println!("machine    {}, {cores} cores, {}", processor(), system());
    println!("commit     {}", commit());
    println!("seed       {SEED}");
    match load() {
        Some(load) if load > LOAD_QUIET => println!(
            "load       {load}  WARNING: this machine does other work; trust ratios, not figures"
        ),
        Some(load) => println!("load       {load}"),
        None => println!("load       unknown"),
    }
    if cfg!(debug_assertions) {
        println!("build      WARNING: not optimised; these figures mean nothing");
    }
    println!();
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or(std::env::consts::ARCH, |(_, name)| name)
        .to_owned()
}

fn system() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim())
}

/// The commit, with a plus sign when the tree differs from it.
fn commit() -> String {
    let Some(name) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => name,
        _ => format!("{name}+"),
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let git = Command::new("git")
        .args(arguments)
        .current_dir(root)
        .output();
    let output = git.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// Mean number of threads that ran or wanted to, over the last minute.
fn load() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Above this load somebody else is likely to have taken part; a build that has just ended
/// takes a minute to fade below it.
const LOAD_QUIET: f64 = 0.7;
