//! A model that has something to compute: two hidden layers of 2,048, drawn at random.

use std::path::Path;

use bytes::Bytes;
use paceline_core::Random;

use crate::provenance::SEED;

/// Values of a row.
pub(crate) const FEATURES: usize = 512;
/// Rows of a full batch.
pub(crate) const ROWS_MAX: usize = 32;
/// What nodes call it.
pub(crate) const NAME: &str = "dense";

/// Writes the model's folder.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    let mut random = Random::stream(SEED, "weights");
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (number, [inputs, outputs]) in LAYERS.into_iter().enumerate() {
        let scale = (inputs as f64).sqrt().recip();
        for (name, shape) in [("weight", vec![outputs, inputs]), ("bias", vec![outputs])] {
            let begin = data.len();
            for _ in 0..shape.iter().product() {
                let value = ((random.unit() - 0.5) * scale) as f32;
                data.extend_from_slice(&value.to_le_bytes());
            }
            let spec = serde_json::json!({
                "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()],
            });
            header.insert(format!("dense.{number}.{name}"), spec);
        }
    }
    let header = serde_json::to_vec(&header)?;
    let length = (header.len() as u64).to_le_bytes();
    let weights = [&length[..], &header, &data].concat();
    std::fs::write(folder.join("model.safetensors"), weights)?;
    std::fs::write(folder.join("model.toml"), declaration())?;
    Ok(())
}

/// A request of one row, head and body in one piece.
pub(crate) fn request() -> Bytes {
    let json = format!(
        r#"{{"inputs":[{{"name":"features","shape":[1,{FEATURES}],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}],"outputs":[{{"name":"scores","parameters":{{"binary_data":true}}}}]}}"#,
        FEATURES * 4
    );
    let body = [json.as_bytes(), &row()].concat();
    let head = format!(
        "POST /v2/models/{NAME}/infer HTTP/1.1\r\nhost: 127.0.0.1\r\n\
         content-type: application/octet-stream\r\n\
         inference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n",
        json.len(),
        body.len()
    );
    [head.as_bytes(), &body].concat().into()
}

/// The values of a row, as they travel.
pub(crate) fn row() -> Vec<u8> {
    let mut random = Random::stream(SEED, "row");
    let values = (0..FEATURES).map(|_| random.unit() as f32);
    values.flat_map(f32::to_le_bytes).collect()
}

fn declaration() -> String {
    format!(
        r#"name = "{NAME}"
family = "mlp"

[[inputs]]
name = "features"
dtype = "FP32"
shape = [-1, {FEATURES}]

[[outputs]]
name = "scores"
dtype = "FP32"
shape = [-1, {OUTPUTS}]

[batching]
rows_max = {ROWS_MAX}

[mlp]
weights = "model.safetensors"
activation = "relu"
head = "none"
"#
    )
}

const OUTPUTS: usize = 16;
/// Inputs and outputs: 10.6 million products and sums a row.
const LAYERS: [[usize; 2]; 3] = [[FEATURES, 2_048], [2_048, 2_048], [2_048, OUTPUTS]];
