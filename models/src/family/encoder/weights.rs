//! The tensors of an encoder, by the names that its architecture gives them.

use safetensors::Dtype;
use safetensors::tensor::{SafeTensors, TensorView};

use super::config::Config;
use super::error::{EncoderError, shown};
use super::layout::Part;

/// `x · Wᵀ + b`.
pub(super) struct Linear {
    /// `[outputs, inputs]`
    pub(super) weight: Vec<f32>,
    /// `[outputs]`
    pub(super) bias: Vec<f32>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// A layer normalization, each `[width]`.
#[derive(Clone)]
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// One layer of the encoder.
pub(super) struct Layer {
    /// Queries, keys and values in one: `[3 · width, width]`.
    pub(super) qkv: Linear,
    pub(super) output: Linear,
    pub(super) attention_norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) norm: Norm,
}

/// The tables that a token's first vector is the sum of, row by row.
pub(super) struct Tables {
    pub(super) words: Vec<f32>,
    pub(super) positions: Vec<f32>,
    /// Empty where an architecture has none.
    pub(super) segments: Vec<f32>,
    pub(super) norm: Norm,
}

/// The head for classes.
pub(super) struct Classes {
    pub(super) first: Linear,
    pub(super) second: Linear,
}

/// A file of weights that was checked against its configuration: every tensor that is used is
/// there, of a type that is read and of its shape, and no layer is left over.
pub(super) struct Reader<'a> {
    config: &'a Config,
    tensors: SafeTensors<'a>,
    /// What the names of the encoder's own tensors begin with: nothing, or its name.
    prefix: String,
    /// Whether normalizations are written the old way, `gamma` and `beta`.
    gamma: bool,
}

/// Types whose values are read.
const DTYPES: &str = "F32, F16 or BF16";

impl<'a> Reader<'a> {
    /// Checks names, types and shapes; looks at no value.
    ///
    /// # Errors
    /// [`EncoderError`] names the tensor.
    pub(super) fn new(
        config: &'a Config,
        tensors: SafeTensors<'a>,
        classes: Option<usize>,
    ) -> Result<Self, EncoderError> {
        let prefix = format!("{}.", config.layout.name());
        let is_part = tensors.names().iter().any(|name| name.starts_with(&prefix));
        let prefix = if is_part { prefix } else { String::new() };
        let old = format!("{prefix}embeddings.LayerNorm.gamma");
        let reader = Self {
            gamma: tensors.tensor(&old).is_ok(),
            config,
            tensors,
            prefix,
        };
        for (name, shape) in reader.wanted(classes) {
            reader.find(&name, &shape)?;
        }
        reader.check_layers()?;
        Ok(reader)
    }

    /// Every tensor that is used, with its shape.
    fn wanted(&self, classes: Option<usize>) -> Vec<(String, Vec<usize>)> {
        let Config {
            width,
            inner,
            vocabulary,
            positions,
            segments,
            ..
        } = *self.config;
        let mut wanted = vec![
            (self.table("word"), vec![vocabulary, width]),
            (self.table("position"), vec![positions, width]),
        ];
        if segments > 0 {
            wanted.push((self.table("token_type"), vec![segments, width]));
        }
        let norm = |wanted: &mut Vec<_>, name: &str| {
            wanted.extend(self.norm_names(name).map(|name| (name, vec![width])));
        };
        let linear = |wanted: &mut Vec<_>, name: &str, outputs: usize, inputs: usize| {
            wanted.push((format!("{name}.weight"), vec![outputs, inputs]));
            wanted.push((format!("{name}.bias"), vec![outputs]));
        };
        norm(&mut wanted, &self.embedding_norm());
        for layer in 0..self.config.layers {
            for part in [Part::Query, Part::Key, Part::Value, Part::Output] {
                linear(&mut wanted, &self.part(layer, part), width, width);
            }
            linear(&mut wanted, &self.part(layer, Part::Up), inner, width);
            linear(&mut wanted, &self.part(layer, Part::Down), width, inner);
            norm(&mut wanted, &self.part(layer, Part::AttentionNorm));
            norm(&mut wanted, &self.part(layer, Part::Norm));
        }
        if let Some(classes) = classes {
            let (first, second) = self.classifier();
            linear(&mut wanted, &first, width, width);
            linear(&mut wanted, &second, classes, width);
        }
        wanted
    }

    /// A layer more than the configuration speaks of is a lie of one of the two.
    fn check_layers(&self) -> Result<(), EncoderError> {
        let start = format!("{}{}", self.prefix, self.config.layout.layers());
        let mut names = self.tensors.names();
        names.sort_unstable();
        for name in names {
            let number = name
                .strip_prefix(&start)
                .and_then(|rest| rest.split('.').next());
            let is_layer = |number: &str| {
                number
                    .parse()
                    .is_ok_and(|number: usize| number < self.config.layers)
            };
            if number.is_some_and(|number| !is_layer(number)) {
                return Err(EncoderError::LayerBeyond {
                    tensor: shown(name),
                    layers: self.config.layers,
                });
            }
        }
        Ok(())
    }

    /// Cost: one pass over them.
    pub(super) fn tables(&self) -> Result<Tables, EncoderError> {
        let Config {
            width,
            vocabulary,
            positions,
            segments,
            ..
        } = *self.config;
        let table = |name, rows| self.values(&self.table(name), &[rows, width]);
        Ok(Tables {
            words: table("word", vocabulary)?,
            positions: table("position", positions)?,
            segments: match segments {
                0 => Vec::new(),
                rows => table("token_type", rows)?,
            },
            norm: self.norm(&self.embedding_norm())?,
        })
    }

    /// Layer `layer`, counted from 0. Cost: one pass over it.
    pub(super) fn layer(&self, layer: usize) -> Result<Layer, EncoderError> {
        let Config { width, inner, .. } = *self.config;
        let part = |part| self.part(layer, part);
        let mut qkv = self.linear(&part(Part::Query), width, width)?;
        for other in [Part::Key, Part::Value] {
            let other = self.linear(&part(other), width, width)?;
            qkv.weight.extend(other.weight);
            qkv.bias.extend(other.bias);
        }
        qkv.outputs = 3 * width;
        Ok(Layer {
            qkv,
            output: self.linear(&part(Part::Output), width, width)?,
            attention_norm: self.norm(&part(Part::AttentionNorm))?,
            up: self.linear(&part(Part::Up), inner, width)?,
            down: self.linear(&part(Part::Down), width, inner)?,
            norm: self.norm(&part(Part::Norm))?,
        })
    }

    /// The head for classes.
    pub(super) fn classes(&self, classes: usize) -> Result<Classes, EncoderError> {
        let (first, second) = self.classifier();
        let width = self.config.width;
        Ok(Classes {
            first: self.linear(&first, width, width)?,
            second: self.linear(&second, classes, width)?,
        })
    }

    fn table(&self, what: &str) -> String {
        format!("{}embeddings.{what}_embeddings.weight", self.prefix)
    }

    fn embedding_norm(&self) -> String {
        format!("{}embeddings.LayerNorm", self.prefix)
    }

    fn part(&self, layer: usize, part: Part) -> String {
        let layout = self.config.layout;
        format!(
            "{}{}{layer}.{}",
            self.prefix,
            layout.layers(),
            layout.part(part)
        )
    }

    fn classifier(&self) -> (String, String) {
        let parts = self.config.layout.classifier();
        let prefix = if parts.first_is_prefixed {
            &self.prefix
        } else {
            ""
        };
        (format!("{prefix}{}", parts.first), parts.second.to_owned())
    }

    fn norm_names(&self, name: &str) -> [String; 2] {
        let (weight, bias) = if self.gamma {
            ("gamma", "beta")
        } else {
            ("weight", "bias")
        };
        [format!("{name}.{weight}"), format!("{name}.{bias}")]
    }

    fn norm(&self, name: &str) -> Result<Norm, EncoderError> {
        let [weight, bias] = self.norm_names(name);
        let width = [self.config.width];
        Ok(Norm {
            weight: self.values(&weight, &width)?,
            bias: self.values(&bias, &width)?,
        })
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, EncoderError> {
        Ok(Linear {
            weight: self.values(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: self.values(&format!("{name}.bias"), &[outputs])?,
            inputs,
            outputs,
        })
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, EncoderError> {
        let missing = |_| EncoderError::TensorMissing {
            tensor: name.to_owned(),
        };
        let tensor = self.tensors.tensor(name).map_err(missing)?;
        let is_read = matches!(tensor.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16);
        if !is_read || tensor.shape() != shape {
            let got: Vec<_> = tensor.shape().iter().take(SHOWN_DIMS_MAX).collect();
            return Err(EncoderError::Tensor {
                tensor: name.to_owned(),
                wanted: format!("{DTYPES} {shape:?}"),
                got: format!("{:?} {got:?}", tensor.dtype()),
            });
        }
        Ok(tensor)
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EncoderError> {
        let values = widened(&self.find(name, shape)?);
        match values.iter().position(|value| !value.is_finite()) {
            Some(element) => Err(EncoderError::NotFinite {
                tensor: name.to_owned(),
                element,
            }),
            None => Ok(values),
        }
    }
}

/// Dimensions of a tensor's shape in a message.
const SHOWN_DIMS_MAX: usize = 8;

fn widened(tensor: &TensorView<'_>) -> Vec<f32> {
    let data = tensor.data();
    let halves = |convert: fn([u8; 2]) -> f32| {
        data.as_chunks::<2>()
            .0
            .iter()
            .map(|chunk| convert(*chunk))
            .collect()
    };
    match tensor.dtype() {
        Dtype::F16 => halves(|bytes| half::f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => halves(|bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        _ => crate::weights::f32_values(tensor).expect("other types are refused"),
    }
}
