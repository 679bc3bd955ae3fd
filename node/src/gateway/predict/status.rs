//! What stands around predictions: models as KServe, TensorFlow Serving and OpenAI's clients read
//! them from the same paths, versions and how they are, and signatures.

use bytes::Bytes;
use paceline_protocol::{Dtype, Signature, TensorSpec, VersionNumber};

use super::request::SIGNATURE;
use crate::gateway::models::{ModelSummary, State, VersionState};
use crate::gateway::oip::json::write::{
    count, document, flag, key, list, object, string, string_member,
};

/// Body of `GET /v1/models`: one object for all who ask.
pub fn models(all: &[ModelSummary]) -> Bytes {
    document(|out| {
        string_member(out, "object", "list");
        key(out, "data");
        list(out, all, |out, model| {
            object(out, |out| card(out, model));
        });
        key(out, "models");
        list(out, all, |out, model| string(out, &model.name));
    })
}

/// Body of `GET /v1/models/MODEL`.
pub fn model(model: &ModelSummary) -> Bytes {
    document(|out| {
        card(out, model);
        string_member(out, "name", &model.name);
        flag(out, "ready", model.is_ready);
        key(out, "model_version_status");
        list(out, &model.versions, status);
    })
}

/// Body of `GET /v1/models/MODEL/versions/VERSION`.
pub fn versions(versions: &[VersionState]) -> Bytes {
    document(|out| {
        key(out, "model_version_status");
        list(out, versions, status);
    })
}

/// Body of `GET /v1/models/MODEL[/versions/VERSION]/metadata`.
pub fn metadata(name: &str, version: VersionNumber, signature: &Signature) -> Bytes {
    document(|out| {
        key(out, "model_spec");
        object(out, |out| {
            string_member(out, "name", name);
            string_member(out, "signature_name", "");
            string_member(out, "version", &version.to_string());
        });
        key(out, "metadata");
        object(out, |out| {
            key(out, "signature_def");
            object(out, |out| {
                key(out, "signature_def");
                object(out, |out| {
                    key(out, SIGNATURE);
                    object(out, |out| {
                        tensors(out, "inputs", &signature.inputs);
                        tensors(out, "outputs", &signature.outputs);
                        string_member(out, "method_name", "tensorflow/serving/predict");
                    });
                });
            });
        });
    })
}

/// A model as OpenAI's clients know it.
fn card(out: &mut Vec<u8>, model: &ModelSummary) {
    string_member(out, "id", &model.name);
    string_member(out, "object", "model");
    count(out, "created", model.created_s);
    string_member(out, "owned_by", &model.owner);
}

/// A version as TensorFlow Serving tells of it.
fn status(out: &mut Vec<u8>, version: &VersionState) {
    let state = match version.state {
        State::Ready => "AVAILABLE",
        State::Loading => "LOADING",
        State::Unloading => "UNLOADING",
        State::Unavailable => "END",
    };
    let (code, message) = match version.failure() {
        Some(reason) => ("UNKNOWN", reason),
        None => ("OK", ""),
    };
    object(out, |out| {
        string_member(out, "version", &version.version.to_string());
        string_member(out, "state", state);
        key(out, "status");
        object(out, |out| {
            string_member(out, "error_code", code);
            string_member(out, "error_message", message);
        });
    });
}

fn tensors(out: &mut Vec<u8>, side: &str, specs: &[TensorSpec]) {
    key(out, side);
    object(out, |out| {
        for spec in specs {
            key(out, &spec.name);
            object(out, |out| tensor(out, spec));
        }
    });
}

/// 64-bit numbers are strings, as JSON of protobuf has them.
fn tensor(out: &mut Vec<u8>, spec: &TensorSpec) {
    string_member(out, "dtype", data_type(spec.dtype));
    key(out, "tensor_shape");
    object(out, |out| {
        key(out, "dim");
        list(out, &spec.shape.0, |out, dim| {
            object(out, |out| {
                string_member(out, "size", &dim.to_string());
                string_member(out, "name", "");
            });
        });
        flag(out, "unknown_rank", false);
    });
    string_member(out, "name", &spec.name);
}

fn data_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "DT_BOOL",
        Dtype::Uint8 => "DT_UINT8",
        Dtype::Uint16 => "DT_UINT16",
        Dtype::Uint32 => "DT_UINT32",
        Dtype::Uint64 => "DT_UINT64",
        Dtype::Int8 => "DT_INT8",
        Dtype::Int16 => "DT_INT16",
        Dtype::Int32 => "DT_INT32",
        Dtype::Int64 => "DT_INT64",
        Dtype::Fp16 => "DT_HALF",
        Dtype::Bf16 => "DT_BFLOAT16",
        Dtype::Fp32 => "DT_FLOAT",
        Dtype::Fp64 => "DT_DOUBLE",
        Dtype::Bytes => "DT_STRING",
    }
}

#[cfg(test)]
mod tests {
    use paceline_protocol::{Dim, ShapePattern};
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &Bytes) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    fn summary() -> ModelSummary {
        let version = |version, state, reason: &str| VersionState {
            name: "m".into(),
            version: VersionNumber(version),
            state,
            reason: reason.into(),
        };
        ModelSummary {
            name: "m".into(),
            owner: "default".into(),
            created_s: 1_700_000_000,
            is_ready: true,
            versions: vec![
                version(1, State::Ready, ""),
                version(2, State::Unavailable, "it is torn"),
            ],
        }
    }

    #[test]
    fn one_object_suits_all_who_ask_for_models() {
        let card =
            json!({"id": "m", "object": "model", "created": 1_700_000_000, "owned_by": "default"});
        assert_eq!(
            read(&models(&[summary()])),
            json!({"object": "list", "data": [card], "models": ["m"]})
        );
        assert_eq!(
            read(&models(&[])),
            json!({"object": "list", "data": [], "models": []})
        );
        let told = read(&model(&summary()));
        assert_eq!(
            (&told["id"], &told["name"], &told["ready"]),
            (&json!("m"), &json!("m"), &json!(true))
        );
        let status = |version: &str, state: &str, code: &str, message: &str| {
            let status = json!({"error_code": code, "error_message": message});
            json!({"version": version, "state": state, "status": status})
        };
        let all = json!([
            status("1", "AVAILABLE", "OK", ""),
            status("2", "END", "UNKNOWN", "it is torn"),
        ]);
        assert_eq!(told["model_version_status"], all);
        let one = versions(&summary().versions[..1]);
        assert_eq!(read(&one), json!({"model_version_status": [all[0]]}));
    }

    #[test]
    fn a_signature_is_told_in_the_types_of_tensorflow() {
        let spec = TensorSpec {
            name: "x".into(),
            dtype: Dtype::Fp32,
            shape: ShapePattern(vec![Dim::Any, Dim::Exactly(4)]),
        };
        let signature = Signature {
            inputs: vec![spec.clone()],
            outputs: vec![spec],
        };
        let told = read(&metadata("m", VersionNumber(3), &signature));
        let spec = json!({"name": "m", "signature_name": "", "version": "3"});
        assert_eq!(told["model_spec"], spec);
        let default = &told["metadata"]["signature_def"]["signature_def"]["serving_default"];
        let dims = json!([{"size": "-1", "name": ""}, {"size": "4", "name": ""}]);
        let shape = json!({"dim": dims, "unknown_rank": false});
        let x = json!({"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "x"});
        assert_eq!(default["inputs"], json!({"x": x}));
        assert_eq!(default["method_name"], "tensorflow/serving/predict");
    }
}
