//! What is told of models, as messages of gRPC: the same views that HTTP writes as JSON.

use paceline_protocol::Dtype;

use super::proto::inference::model_instance_group::Kind;
use super::proto::inference::model_version_policy::{PolicyChoice, Specific};
use super::proto::inference::repository_index_response::ModelIndex;
use super::proto::inference::{
    DataType, InferBatchStatistics, InferStatistics, MemoryUsage, ModelConfig,
    ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput, ModelResponseCache,
    ModelStatistics as StatisticsMessage, ModelTransactionPolicy, ModelVersionPolicy,
    StatisticDuration,
};
use crate::gateway::models::{BatchStatistics, Configuration, ModelStatistics, VersionState};
use crate::gateway::oip;
use crate::telemetry::statistics::Total;

impl From<Configuration> for ModelConfig {
    fn from(of: Configuration) -> Self {
        let rows_max = i32::try_from(of.max_batch_size).unwrap_or(i32::MAX);
        let inputs = of.inputs.into_iter().map(|input| ModelInput {
            name: input.name,
            data_type: data_type(input.dtype).into(),
            dims: input.dims,
        });
        let outputs = of.outputs.into_iter().map(|output| ModelOutput {
            name: output.name,
            data_type: data_type(output.dtype).into(),
            dims: output.dims,
        });
        let versions = of.versions.iter().map(|version| i64::from(version.0));
        let specific = Specific {
            versions: versions.collect(),
        };
        Self {
            platform: oip::platform(&of.family),
            version_policy: Some(ModelVersionPolicy {
                policy_choice: Some(PolicyChoice::Specific(specific)),
            }),
            max_batch_size: rows_max,
            input: inputs.collect(),
            output: outputs.collect(),
            instance_group: vec![ModelInstanceGroup {
                name: of.name.clone(),
                count: i32::try_from(of.instances).unwrap_or(i32::MAX),
                kind: Kind::Cpu.into(),
            }],
            dynamic_batching: (rows_max > 0).then(|| ModelDynamicBatching {
                preferred_batch_size: vec![rows_max],
                max_queue_delay_microseconds: 0,
            }),
            backend: oip::PRODUCT.to_owned(),
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
            response_cache: Some(ModelResponseCache { enable: false }),
            name: of.name,
        }
    }
}

impl From<ModelStatistics> for StatisticsMessage {
    fn from(of: ModelStatistics) -> Self {
        let memory = (of.memory_bytes > 0).then(|| MemoryUsage {
            r#type: "CPU".to_owned(),
            id: 0,
            byte_size: of.memory_bytes,
        });
        Self {
            name: of.name,
            version: of.version.to_string(),
            last_inference: of.last_inference_ms,
            inference_count: of.inference_count,
            execution_count: of.execution_count,
            inference_stats: Some(InferStatistics {
                success: duration(of.success),
                fail: duration(of.fail),
                queue: duration(of.queue),
                compute_input: duration(of.compute_input),
                compute_infer: duration(of.compute_infer),
                compute_output: duration(of.compute_output),
                // Clients take an absent one for an old server.
                cache_hit: duration(Total::default()),
                cache_miss: duration(Total::default()),
            }),
            batch_stats: of.batches.into_iter().map(batch).collect(),
            memory_usage: memory.into_iter().collect(),
        }
    }
}

impl From<VersionState> for ModelIndex {
    fn from(of: VersionState) -> Self {
        Self {
            name: of.name,
            version: of.version.to_string(),
            state: of.state.name().to_owned(),
            reason: of.reason,
        }
    }
}

fn batch(of: BatchStatistics) -> InferBatchStatistics {
    let untimed = Total {
        nanos: 0,
        ..of.compute_infer
    };
    InferBatchStatistics {
        batch_size: of.batch_size.into(),
        compute_input: duration(untimed),
        compute_infer: duration(of.compute_infer),
        compute_output: duration(untimed),
    }
}

fn duration(of: Total) -> Option<StatisticDuration> {
    Some(StatisticDuration {
        count: of.count,
        ns: of.nanos,
    })
}

fn data_type(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::Bool => DataType::TypeBool,
        Dtype::Uint8 => DataType::TypeUint8,
        Dtype::Uint16 => DataType::TypeUint16,
        Dtype::Uint32 => DataType::TypeUint32,
        Dtype::Uint64 => DataType::TypeUint64,
        Dtype::Int8 => DataType::TypeInt8,
        Dtype::Int16 => DataType::TypeInt16,
        Dtype::Int32 => DataType::TypeInt32,
        Dtype::Int64 => DataType::TypeInt64,
        Dtype::Fp16 => DataType::TypeFp16,
        Dtype::Bf16 => DataType::TypeBf16,
        Dtype::Fp32 => DataType::TypeFp32,
        Dtype::Fp64 => DataType::TypeFp64,
        Dtype::Bytes => DataType::TypeString,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_types_are_called_as_in_json() {
        for dtype in Dtype::ALL {
            assert_eq!(data_type(dtype).as_str_name(), oip::data_type(dtype));
        }
    }
}
