//! The simulator's output depends on its scenario and its seed alone: fresh processes with
//! another time zone, language, folder, hash seed and memory layout print the same bytes.

#[path = "determinism/fresh_processes.rs"]
mod fresh_processes;

use fresh_processes::outputs_of_fresh_processes;

/// Prints a report for the test below, which runs this one in processes of its own.
#[test]
fn prints_a_report() {
    let scenario = paceline_sim::Scenario::steady();
    let report = paceline_sim::run(&scenario, 11).unwrap();
    let json = serde_json::to_string(&report).unwrap();
    #[allow(
        clippy::disallowed_macros,
        reason = "this is what the other process reads"
    )]
    {
        println!("{MARK}{json}");
    }
}

#[test]
fn fresh_processes_print_the_same_bytes() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "prints_a_report", "--nocapture"];
    let outputs = outputs_of_fresh_processes(&program, &arguments);
    // The test harness adds the wall time of its own.
    let reports = outputs.map(|output| {
        let text = String::from_utf8(output).unwrap();
        let report = text.split_once(MARK).expect("the report is printed").1;
        report.lines().next().unwrap_or_default().to_owned()
    });
    assert!(reports[0].contains("\"requests\":2"), "{}", reports[0]);
    assert!(reports.iter().all(|report| *report == reports[0]));
}

const MARK: &str = "the report: ";
