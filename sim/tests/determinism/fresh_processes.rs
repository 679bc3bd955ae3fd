//! Runs a program in fresh processes whose surroundings differ in all that must not matter.

use std::path::Path;
#[allow(clippy::disallowed_types, reason = "other processes are the point")]
use std::process::Command;

/// What `program` prints on stdout with `arguments`, in three processes that differ in time
/// zone, language, environment and working folder; hash seeds and memory layout differ anyway.
///
/// # Panics
/// If a process cannot be started or does not end with success.
#[allow(clippy::disallowed_types, reason = "other processes are the point")]
pub(crate) fn outputs_of_fresh_processes(program: &Path, arguments: &[&str]) -> [Vec<u8>; 3] {
    let folder = std::env::temp_dir();
    let surroundings = [
        ("UTC", "C", Path::new("/")),
        ("Pacific/Auckland", "de_DE.UTF-8", folder.as_path()),
        ("America/St_Johns", "tr_TR.UTF-8", Path::new("/")),
    ];
    surroundings.map(|(zone, language, folder)| {
        let output = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("TZ", zone)
            .env("LC_ALL", language)
            .env("HOSTNAME", zone)
            .current_dir(folder)
            .output()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} failed: {complaint}");
        output.stdout
    })
}
