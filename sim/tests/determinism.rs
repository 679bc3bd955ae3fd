//! The simulator's output depends on its scenario and its seed alone: fresh processes with
//! another time zone, language, folder, hash seed and memory layout print the same bytes.

#[path = "determinism/fresh_processes.rs"]
mod fresh_processes;

use fresh_processes::outputs_of_fresh_processes;
use paceline_sim::{Planted, Scenario, Traces, run_planted, with_faults};

/// What the seeds give, on one line.
fn print(seeds: u64, planted: Option<Planted>) {
    let (scenario, traces) = (
        Scenario::named("node-kill").expect("it comes along"),
        Traces::default(),
    );
    let reports = (0..seeds).map(|seed| {
        let drawn = with_faults(&scenario, seed);
        let report = run_planted((&drawn, &traces), seed, planted);
        let report = report.unwrap_or_else(|violation| panic!("{violation}"));
        let json = serde_json::to_string(&report).expect("a report is JSON");
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

/// What a test of this file has printed in processes of its own.
fn printed_by(test: &str) -> [String; 3] {
    let program = std::env::current_exe().expect("this program is somewhere");
    let outputs = outputs_of_fresh_processes(&program, &["--exact", test, "--nocapture"]);
    // The test harness adds the wall time of its own.
    outputs.map(|output| {
        let text = String::from_utf8(output).expect("reports are text");
        let reports = text.split_once(MARK).expect("reports are printed").1;
        reports.lines().next().unwrap_or_default().to_owned()
    })
}

/// Each seed breaks something else.
#[test]
fn prints_reports() {
    print(SEEDS, None);
}

#[test]
fn prints_reports_with_a_hashed_order() {
    print(HASHED_SEEDS, Some(Planted::HashOrder));
}

#[test]
fn fresh_processes_print_the_same_bytes() {
    let reports = printed_by("prints_reports");
    assert_eq!(reports[0].matches("\"scenario\":").count() as u64, SEEDS);
    assert!(reports[0].contains("\"failed_over\":1"), "something broke");
    assert!(reports.iter().all(|report| *report == reports[0]));
}

#[test]
fn an_order_that_depends_on_the_process_is_found() {
    let reports = printed_by("prints_reports_with_a_hashed_order");
    assert!(reports.iter().any(|report| *report != reports[0]));
}

const MARK: &str = "the reports: ";
const SEEDS: u64 = 20;
/// One alone may look the same in whatever order its followers hear of things.
const HASHED_SEEDS: u64 = 8;
