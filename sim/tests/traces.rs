//! Published traces are replayed whole. They are not part of Paceline: without the folder that
//! the environment variable PACELINE_TRACES names, nothing is tested here.
//!
//! The folder holds `azure_llm_2023/` with the files of github.com/Azure/AzurePublicDataset
//! (CC-BY-4.0; Patel et al., "Splitwise", ISCA 2024) and `mooncake_fast25/` with those of
//! github.com/kvcache-ai/Mooncake (Apache-2.0; Qin et al., FAST 2025).

use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use paceline_sim::{Arrivals, Sender, Sending, Trace, TraceFormat, TraceOptions, Workload};

/// A file and what is known of it.
struct Published {
    path: &'static str,
    format: TraceFormat,
    requests: u64,
    /// From the first request to the last.
    span_ms: u64,
}

const PUBLISHED: [Published; 4] = [
    Published {
        path: "azure_llm_2023/AzureLLMInferenceTrace_code.csv",
        format: TraceFormat::AzureLlm2023,
        requests: 8_819,
        span_ms: 3_435_948,
    },
    Published {
        path: "azure_llm_2023/AzureLLMInferenceTrace_conv.csv",
        format: TraceFormat::AzureLlm2023,
        requests: 19_366,
        span_ms: 3_501_721,
    },
    Published {
        path: "mooncake_fast25/conversation_trace.jsonl",
        format: TraceFormat::Mooncake,
        requests: 12_031,
        span_ms: 3_536_999,
    },
    Published {
        path: "mooncake_fast25/synthetic_trace.jsonl",
        format: TraceFormat::Mooncake,
        requests: 3_993,
        span_ms: 1_022_025,
    },
];

#[test]
fn published_traces_are_replayed_whole() {
    let Some(folder) = folder() else {
        return;
    };
    for published in PUBLISHED {
        let path = folder.join(published.path);
        let mut options = TraceOptions::new(published.path, published.format);
        options.speed_permille = 10_000;
        let trace = Arc::new(read(&path, &options));
        let summary = trace.summary().clone();
        assert_eq!(summary.lines, published.requests, "{}", published.path);
        assert_eq!(summary.taken, published.requests, "{summary}");
        assert_eq!(summary.out_of_order, 0, "{summary}");
        assert_eq!(summary.span_ms, published.span_ms, "{summary}");
        let workload = Workload::new(Arrivals::Trace(options), 3_600_000);
        let sender = Sender::new(&workload, 1, Some(trace)).unwrap();
        let sent: Vec<Sending> = sender.collect();
        assert_eq!(sent.len() as u64, published.requests);
        assert!(sent.is_sorted_by_key(|sending| sending.at_nanos));
        // Ten times as fast.
        let last_ms = sent.last().map(|sending| sending.at_nanos / 100_000);
        assert_eq!(last_ms, Some(summary.span_ms));
        assert!(sent.iter().any(|sending| sending.tokens > 1_000));
        assert!(sent.iter().any(|sending| sending.tokens_out > 100));
    }
}

#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the files lie outside of the project"
)]
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("PACELINE_TRACES").map(PathBuf::from);
    if folder.is_none() {
        println!("not tested: PACELINE_TRACES names no folder of published traces");
    }
    folder
}

#[allow(
    clippy::disallowed_types,
    reason = "the files lie outside of the project"
)]
fn read(path: &std::path::Path, options: &TraceOptions) -> Trace {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    Trace::read(BufReader::new(file), options).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}
