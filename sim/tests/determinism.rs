//! The simulator's output depends on its scenario and its seed alone: fresh processes with
//! another time zone, language, folder, hash seed and memory layout print the same bytes.

#[path = "determinism/fresh_processes.rs"]
mod fresh_processes;

use fresh_processes::outputs_of_fresh_processes;
use paceline_sim::{Scenario, Traces, run, with_faults};

/// Prints reports for the test below, which runs this one in processes of its own: each seed
/// breaks something else.
#[test]
fn prints_reports() {
    let scenario = Scenario::named("node-kill").unwrap();
    let reports = (0..SEEDS).map(|seed| {
        let drawn = with_faults(&scenario, seed);
        let report = run(&drawn, &Traces::default(), seed);
        let report = report.unwrap_or_else(|violation| panic!("{violation}"));
        let json = serde_json::to_string(&report).unwrap();
        format!("{json} {:?}", report.series)
    });
    let reports: Vec<String> = reports.collect();
    #[allow(
        clippy::disallowed_macros,
        reason = "this is what the other process reads"
    )]
    {
        println!("{MARK}{}", reports.join(" "));
    }
}

#[test]
fn fresh_processes_print_the_same_bytes() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "prints_reports", "--nocapture"];
    let outputs = outputs_of_fresh_processes(&program, &arguments);
    // The test harness adds the wall time of its own.
    let reports = outputs.map(|output| {
        let text = String::from_utf8(output).unwrap();
        let report = text.split_once(MARK).expect("the report is printed").1;
        report.lines().next().unwrap_or_default().to_owned()
    });
    assert_eq!(reports[0].matches("\"requests\":").count() as u64, SEEDS);
    assert!(
        reports[0].contains("\"failed_over\":1"),
        "something was broken"
    );
    assert!(reports.iter().all(|report| *report == reports[0]));
}

const MARK: &str = "the reports: ";
const SEEDS: u64 = 20;
