//! What versions have done, as JSON: Triton's statistics extension.

use bytes::Bytes;

use super::json::write::{count, document, key, list, object, string_member};
use crate::gateway::models::{BatchStatistics, ModelStatistics};
use crate::telemetry::statistics::Total;

/// Body of `GET /v2/models[/MODEL[/versions/VERSION]]/stats`.
pub fn statistics(all: &[ModelStatistics]) -> Bytes {
    document(|out| {
        key(out, "model_stats");
        list(out, all, model);
    })
}

fn model(out: &mut Vec<u8>, model: &ModelStatistics) {
    object(out, |out| {
        string_member(out, "name", &model.name);
        // Clients read a number out of it.
        string_member(out, "version", &model.version.to_string());
        count(out, "last_inference", model.last_inference_ms);
        count(out, "inference_count", model.inference_count);
        count(out, "execution_count", model.execution_count);
        key(out, "inference_stats");
        // Clients index all eight, and take an absent one of the cache for an old server.
        let durations = [
            ("success", model.success),
            ("fail", model.fail),
            ("queue", model.queue),
            ("compute_input", model.compute_input),
            ("compute_infer", model.compute_infer),
            ("compute_output", model.compute_output),
            ("cache_hit", Total::default()),
            ("cache_miss", Total::default()),
        ];
        object(out, |out| {
            for (name, total) in durations {
                duration(out, name, total);
            }
        });
        key(out, "response_stats");
        object(out, |_out| {});
        key(out, "batch_stats");
        list(out, &model.batches, batch);
        key(out, "memory_usage");
        let of_cpu = (model.memory_bytes > 0).then_some(model.memory_bytes);
        list(out, of_cpu, |out, bytes| {
            object(out, |out| {
                string_member(out, "type", "CPU");
                count(out, "id", 0);
                count(out, "byte_size", bytes);
            });
        });
    });
}

fn batch(out: &mut Vec<u8>, batch: &BatchStatistics) {
    let infer = batch.compute_infer;
    let untimed = Total { nanos: 0, ..infer };
    object(out, |out| {
        count(out, "batch_size", u64::from(batch.batch_size));
        duration(out, "compute_input", untimed);
        duration(out, "compute_infer", infer);
        duration(out, "compute_output", untimed);
    });
}

fn duration(out: &mut Vec<u8>, name: &str, total: Total) {
    key(out, name);
    object(out, |out| {
        count(out, "count", total.count);
        count(out, "ns", total.nanos);
    });
}

#[cfg(test)]
mod tests {
    use paceline_protocol::VersionNumber;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn all_durations_are_there_whatever_was_counted() {
        let total = |count, nanos| Total { count, nanos };
        let model = ModelStatistics {
            name: "m".into(),
            version: VersionNumber(2),
            last_inference_ms: 1_700_000_000_000,
            inference_count: 9,
            execution_count: 3,
            success: total(4, 40),
            fail: total(1, 5),
            queue: total(4, 8),
            compute_input: total(4, 12),
            compute_infer: total(4, 16),
            compute_output: total(4, 2),
            batches: vec![BatchStatistics {
                batch_size: 3,
                compute_infer: total(3, 16),
            }],
            memory_bytes: 64,
        };
        let body: Value = serde_json::from_slice(&statistics(&[model])).unwrap();
        let ns = |count: u64, ns: u64| json!({"count": count, "ns": ns});
        let expected = json!({"model_stats": [{
            "name": "m",
            "version": "2",
            "last_inference": 1_700_000_000_000_u64,
            "inference_count": 9,
            "execution_count": 3,
            "inference_stats": {
                "success": ns(4, 40),
                "fail": ns(1, 5),
                "queue": ns(4, 8),
                "compute_input": ns(4, 12),
                "compute_infer": ns(4, 16),
                "compute_output": ns(4, 2),
                "cache_hit": ns(0, 0),
                "cache_miss": ns(0, 0),
            },
            "response_stats": {},
            "batch_stats": [{
                "batch_size": 3,
                "compute_input": ns(3, 0),
                "compute_infer": ns(3, 16),
                "compute_output": ns(3, 0),
            }],
            "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 64}],
        }]});
        assert_eq!(body, expected);
        assert_eq!(&statistics(&[])[..], br#"{"model_stats":[]}"#);
    }
}
