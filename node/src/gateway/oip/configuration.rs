//! A version's configuration as JSON: Triton's `ModelConfig` (model_configuration extension), with
//! the names of its protobuf and plain numbers. What is not true of Paceline is left out.

use bytes::Bytes;
use paceline_protocol::Dtype;

use super::json::write::{count, document, flag, key, list, object, signed, string, string_member};
use super::metadata::PRODUCT;
use crate::gateway::models::{Configuration, TensorConfiguration};

/// Body of `GET /v2/models/MODEL/config`.
pub fn configuration(configuration: &Configuration) -> Bytes {
    let Configuration {
        name,
        family,
        max_batch_size,
        inputs,
        outputs,
        versions,
        instances,
    } = configuration;
    document(|out| {
        string_member(out, "name", name);
        string_member(out, "platform", &format!("{PRODUCT}_{family}"));
        string_member(out, "backend", PRODUCT);
        key(out, "version_policy");
        object(out, |out| {
            key(out, "specific");
            object(out, |out| {
                key(out, "versions");
                list(out, versions, |out, version| {
                    signed(out, i64::from(version.0));
                });
            });
        });
        count(out, "max_batch_size", u64::from(*max_batch_size));
        key(out, "input");
        list(out, inputs, tensor);
        key(out, "output");
        list(out, outputs, tensor);
        key(out, "instance_group");
        list(out, [instances], |out, instances| {
            object(out, |out| {
                string_member(out, "name", name);
                string_member(out, "kind", "KIND_CPU");
                count(out, "count", u64::from(*instances));
            });
        });
        if *max_batch_size > 0 {
            key(out, "dynamic_batching");
            object(out, |out| {
                key(out, "preferred_batch_size");
                list(out, [max_batch_size], |out, rows| {
                    signed(out, i64::from(*rows));
                });
                // Batches are formed of what waits, and wait for nobody.
                count(out, "max_queue_delay_microseconds", 0);
            });
        }
        key(out, "model_transaction_policy");
        object(out, |out| flag(out, "decoupled", false));
        key(out, "response_cache");
        object(out, |out| flag(out, "enable", false));
    })
}

fn tensor(out: &mut Vec<u8>, tensor: &TensorConfiguration) {
    object(out, |out| {
        string_member(out, "name", &tensor.name);
        key(out, "data_type");
        string(out, data_type(tensor.dtype));
        key(out, "dims");
        list(out, &tensor.dims, |out, dim| signed(out, *dim));
    });
}

/// What a configuration calls an element type.
pub fn data_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "TYPE_BOOL",
        Dtype::Uint8 => "TYPE_UINT8",
        Dtype::Uint16 => "TYPE_UINT16",
        Dtype::Uint32 => "TYPE_UINT32",
        Dtype::Uint64 => "TYPE_UINT64",
        Dtype::Int8 => "TYPE_INT8",
        Dtype::Int16 => "TYPE_INT16",
        Dtype::Int32 => "TYPE_INT32",
        Dtype::Int64 => "TYPE_INT64",
        Dtype::Fp16 => "TYPE_FP16",
        Dtype::Bf16 => "TYPE_BF16",
        Dtype::Fp32 => "TYPE_FP32",
        Dtype::Fp64 => "TYPE_FP64",
        Dtype::Bytes => "TYPE_STRING",
    }
}

#[cfg(test)]
mod tests {
    use paceline_protocol::VersionNumber;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_configuration_is_what_clients_of_triton_read() {
        let tensor = |name: &str, dtype, dims: &[i64]| TensorConfiguration {
            name: name.into(),
            dtype,
            dims: dims.to_vec(),
        };
        let mut known = Configuration {
            name: "digits".into(),
            family: "mlp".into(),
            max_batch_size: 256,
            inputs: vec![tensor("pixels", Dtype::Fp32, &[64])],
            outputs: vec![tensor("label", Dtype::Bytes, &[1])],
            versions: vec![VersionNumber(1), VersionNumber(3)],
            instances: 2,
        };
        let read = |known: &Configuration| -> Value {
            serde_json::from_slice(&configuration(known)).unwrap()
        };
        let expected = json!({
            "name": "digits",
            "platform": "paceline_mlp",
            "backend": "paceline",
            "version_policy": {"specific": {"versions": [1, 3]}},
            "max_batch_size": 256,
            "input": [{"name": "pixels", "data_type": "TYPE_FP32", "dims": [64]}],
            "output": [{"name": "label", "data_type": "TYPE_STRING", "dims": [1]}],
            "instance_group": [{"name": "digits", "kind": "KIND_CPU", "count": 2}],
            "dynamic_batching":
                {"preferred_batch_size": [256], "max_queue_delay_microseconds": 0},
            "model_transaction_policy": {"decoupled": false},
            "response_cache": {"enable": false},
        });
        assert_eq!(read(&known), expected);
        known.max_batch_size = 0;
        assert!(read(&known).get("dynamic_batching").is_none());
    }
}
