//! The command line, as a user types it.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
    let arguments = [&["sim"], arguments].concat();
    Program::try_parse_from(arguments).map(|program| program.command)
}

/// Exit code, stdout and stderr of `sim run` with these arguments.
fn run(arguments: &[&str]) -> (ExitCode, String, String) {
    let Ok(Command::Run(arguments)) = parse(&[&["run"], arguments].concat()) else {
        panic!("{arguments:?} does not parse");
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = arguments.run(&mut out, &mut err).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(out), text(err))
}

#[test]
fn the_arguments_are_consistent() {
    use clap::CommandFactory;
    Program::command().debug_assert();
    let help = Program::command().render_long_help().to_string();
    assert!(help.contains("paceline sim run steady --seed 7 -o json"));
}

#[test]
fn an_unknown_scenario_is_a_usage_error_that_lists_what_there_is() {
    let error = parse(&["run", "stedy"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("there are: steady"), "{error}");
}

#[test]
fn a_run_reports_on_stdout_in_both_formats() {
    let (code, table, talk) = run(&["steady", "--seed", "3"]);
    assert_eq!((code, talk.as_str()), (ExitCode::SUCCESS, ""));
    assert!(table.starts_with("scenario     steady\nseed         3\n"));
    let (_, json, _) = run(&["steady", "--seed", "3", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["seed"], 3);
    let requests = format!("requests     {}\n", report["requests"]);
    assert!(table.contains(&requests), "both say the same");
}

#[test]
fn many_seeds_are_counted_in_their_order_whoever_ends_first() {
    let arguments = ["node-kill", "--swarm", "--seeds", "3..7", "-o", "json"];
    let (code, one, _) = run(&arguments);
    let (_, three, _) = run(&[&arguments[..], &["-j", "3"]].concat());
    assert_eq!((code, &one), (ExitCode::SUCCESS, &three));
    let summary: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!((&summary["runs"], &summary["held"]), (&4.into(), &4.into()));
}

#[test]
fn what_a_seed_finds_is_saved_as_the_smallest_scenario_that_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let save = folder.path().to_str().unwrap();
    let arguments = [
        "node-kill",
        "--swarm",
        "--seeds",
        "3..7",
        "--plant",
        "lost-permit",
    ];
    let (code, out, talk) = run(&[&arguments[..], &["--save", save]].concat());
    assert_eq!(code, ExitCode::FAILURE);
    assert!(out.contains("held         0"), "{out}");
    let again = talk.lines().last().unwrap();
    let again = again.strip_prefix("reproduce: paceline sim run ").unwrap();
    let (code, _, said) = run(&again.split(' ').collect::<Vec<_>>());
    assert_eq!(code, ExitCode::FAILURE);
    assert!(said.starts_with("I9 conservation"), "{said}");
}

#[test]
fn what_is_made_small_still_shows_the_same_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut scenario = Scenario::named("out-of-memory").unwrap();
    scenario.clients[0].workload.duration_ms = 4_000;
    scenario.expect.answered_permille_min = 1_000;
    scenario.expect.answers_min = 1;
    let file = folder.path().join("mine.toml");
    write(&file, scenario.write()).unwrap();
    let (path, save) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
    let (code, _, talk) = run(&[path, "--seeds", "0..1", "--save", save]);
    assert_eq!(code, ExitCode::FAILURE);
    assert!(
        talk.contains("1 faults and 0 operations are enough, of 1 and 0"),
        "{talk}"
    );
    let smallest = folder.path().join("out-of-memory-0.toml");
    let (_, _, said) = run(&[smallest.to_str().unwrap(), "--seed", "0"]);
    assert!(said.starts_with("I14 expected"), "{said}");
}

#[test]
fn scenarios_are_shown_checked_and_run_from_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let path = file.to_str().unwrap();
    let text = Scenario::named("cold-start").unwrap().write();
    write(&file, &text).unwrap();
    let check = |files: &[&str]| {
        let files = files.iter().map(|&file| file.to_owned()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = CheckArgs { files }.run(&mut out, &mut err).unwrap();
        (code, String::from_utf8(err).unwrap())
    };
    assert_eq!(check(&[path, "steady"]).0, ExitCode::SUCCESS);
    assert_eq!(run(&[path]).0, ExitCode::SUCCESS);
    write(&file, text.replace("count = 1", "count = 0")).unwrap();
    let (code, said) = check(&[path]);
    assert_eq!(code, ExitCode::FAILURE);
    assert!(said.contains("allowed: 1 to 1000"), "{said}");
    let error = parse(&["run", path]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("mine.toml:"), "{error}");
    let missing = parse(&["run", "none.toml"]).unwrap_err().to_string();
    assert!(missing.contains("No such file"), "{missing}");
}

#[test]
fn a_trace_is_replayed_and_one_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traced.toml");
    let mut scenario = Scenario::named("node-kill").unwrap();
    let options = crate::TraceOptions::new("trace.csv", crate::TraceFormat::AzureLlm2023);
    scenario.clients[0].workload.arrivals = crate::Arrivals::Trace(options);
    scenario.expect = crate::Expect {
        answers_min: 300,
        ..crate::Expect::default()
    };
    scenario.faults.clear();
    write(&file, scenario.write()).unwrap();
    let path = file.to_str().unwrap();
    let (code, _, said) = run(&[path]);
    assert_eq!(code, ExitCode::FAILURE);
    assert!(said.contains("trace.csv' cannot be opened"), "{said}");
    let mut trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    for number in 0..400 {
        let (second, milli) = (number / 100, number % 100 / 5);
        trace += &format!("2023-11-16 18:17:0{second}.{milli:03},100,20\n");
    }
    write(folder.path().join("trace.csv"), trace).unwrap();
    let (code, table, said) = run(&[path]);
    assert_eq!((code, said.as_str()), (ExitCode::SUCCESS, ""));
    assert!(table.contains("requests     400\n"), "{table}");
}

#[test]
fn each_second_is_written_as_csv() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("series.csv");
    let (code, _, _) = run(&["node-kill", "--series", file.to_str().unwrap()]);
    assert_eq!(code, ExitCode::SUCCESS);
    let text = read(file).unwrap();
    let sent = text.lines().skip(1).map(|line| {
        let sent = line.split(',').nth(1).unwrap();
        sent.parse::<u64>().unwrap()
    });
    assert!(sent.sum::<u64>() > 80_000, "{text}");
}

#[test]
fn a_violation_exits_with_one_and_says_how_to_see_it_again() {
    let (code, out, talk) = run(&["steady", "--seed", "3", "--plant", "lost-permit"]);
    assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
    assert!(
        talk.starts_with("I9 conservation does not hold at 2."),
        "{talk}"
    );
    let again = "\nreproduce: paceline sim run steady --seed 3 --plant lost-permit\n";
    assert!(talk.ends_with(again), "{talk}");
}

#[allow(clippy::disallowed_methods, reason = "as a user does, before a run")]
fn write(path: impl AsRef<std::path::Path>, text: impl AsRef<[u8]>) -> std::io::Result<()> {
    std::fs::write(path, text)
}

#[allow(clippy::disallowed_methods, reason = "as a user does, after a run")]
fn read(path: impl AsRef<std::path::Path>) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    struct Head;
    impl std::io::Write for Head {
        fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let listing = |out: &mut dyn std::io::Write| Command::List.run_to(out, &mut Vec::new());
    assert!(listing(&mut Head).is_ok());
    let full: &mut [u8] = &mut [0; 8];
    assert!(listing(&mut { full }).is_err(), "a full disk is one");
}
