//! What an encoder does with what inputs: told by its folder, and by a `model.toml` where that
//! says otherwise. No weights are needed to know it.

use paceline_protocol::{Dim, Dtype, ShapePattern, Signature, TensorSpec};
use serde::Deserialize;

use super::config::{Classifier, Config};
use super::error::EncoderError;
use super::settings::{Pooling, Settings};
use crate::engine::TextFacts;
use crate::family::{Head, Precision};
use crate::source::ModelSource;

/// `[encoder]` of a `model.toml`: what is to be otherwise than the folder says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EncoderSection {
    #[serde(default)]
    input: Option<Input>,
    #[serde(default)]
    task: Option<TaskName>,
    #[serde(default)]
    pooling: Option<Pooling>,
    #[serde(default)]
    normalize: Option<bool>,
    #[serde(default)]
    tokens_max: Option<usize>,
    #[serde(default)]
    precision: Option<Precision>,
}

/// What a request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Input {
    /// Texts, which are cut into tokens here.
    Text,
    /// Ids of tokens.
    Tokens,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TaskName {
    Embedding,
    Classification,
    Rerank,
}

/// What is made of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Task {
    /// One vector.
    Embedding { pooling: Pooling, normalize: bool },
    /// A score for each class.
    Classification(Classifier),
    /// How well a text answers a query.
    Rerank { scores: Head },
}

/// An encoder as its inputs and outputs show it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outline {
    pub(super) config: Config,
    pub(super) task: Task,
    pub(super) input: Input,
    /// Longest row in tokens, special ones included.
    pub(super) tokens_max: usize,
    pub(super) lower_case: bool,
    pub(super) precision: Precision,
}

impl Outline {
    /// Reads the folder's JSON files.
    ///
    /// # Errors
    /// [`EncoderError`] names the file and the field.
    pub(crate) fn read(
        source: &ModelSource,
        section: Option<&EncoderSection>,
    ) -> Result<Self, EncoderError> {
        let section = section.cloned().unwrap_or_default();
        let config = Config::read(source)?;
        let settings = Settings::read(source)?;
        let has_tokenizer = source.file("tokenizer.json").is_some();
        let input = match section.input {
            Some(input) => input,
            None if has_tokenizer => Input::Text,
            None => Input::Tokens,
        };
        if input == Input::Text && !has_tokenizer {
            return Err(EncoderError::Missing {
                file: "tokenizer.json",
                needs: "cuts texts into tokens; without it the input is \"tokens\"",
            });
        }
        let outline = Self {
            tokens_max: tokens_max(&config, &settings, &section)?,
            task: task(&config, &settings, &section)?,
            lower_case: settings.lower_case,
            precision: section.precision.unwrap_or_default(),
            input,
            config,
        };
        outline.check_pairs()?;
        Ok(outline)
    }

    /// What its author called it, or its architecture.
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// The tensors of a request and of its answer.
    pub(crate) fn signature(&self) -> Signature {
        let inputs = match (self.input, &self.task) {
            (Input::Text, Task::Rerank { .. }) => vec![column("query"), column("text")],
            (Input::Text, _) => vec![column("text")],
            (Input::Tokens, _) => {
                let names = ["input_ids", "attention_mask", "token_type_ids"];
                let count = if self.reads_segments() { 3 } else { 2 };
                let tokens = |name: &&str| spec(name, Dtype::Int64, Dim::Any);
                names.iter().take(count).map(tokens).collect()
            }
        };
        let numbers = |name, width| spec(name, Dtype::Fp32, Dim::Exactly(width as u64));
        let outputs = match &self.task {
            Task::Embedding { .. } => vec![
                numbers("embedding", self.config.width),
                spec("tokens", Dtype::Uint32, Dim::Exactly(1)),
            ],
            Task::Classification(Classifier { labels, .. }) => vec![
                numbers("scores", labels.len()),
                numbers("logits", labels.len()),
                column("label"),
            ],
            Task::Rerank { .. } => vec![numbers("score", 1), numbers("logit", 1)],
        };
        Signature { inputs, outputs }
    }

    /// What clients ask of it.
    pub(super) fn facts(&self) -> TextFacts {
        let (pooling, classes) = match &self.task {
            Task::Embedding { pooling, .. } => (Some(pooling.name()), Vec::new()),
            Task::Classification(classifier) => (None, classifier.labels.clone()),
            Task::Rerank { .. } => (None, Vec::new()),
        };
        TextFacts {
            tokens_max: u32::try_from(self.tokens_max).unwrap_or(u32::MAX),
            precision: match self.precision {
                Precision::F32 => "f32",
                Precision::Bf16 => "bf16",
                Precision::F16 => "f16",
            },
            pooling,
            classes,
        }
    }

    /// Whether rows are pairs of texts.
    pub(super) fn is_pairs(&self) -> bool {
        matches!(self.task, Task::Rerank { .. })
    }

    /// Whether token ids come with segments: of pairs, where the architecture has any.
    pub(super) fn reads_segments(&self) -> bool {
        self.is_pairs() && self.config.layout.tells_texts_apart()
    }

    /// Classes of the head, if it has one.
    pub(super) fn classes(&self) -> Option<usize> {
        match &self.task {
            Task::Embedding { .. } => None,
            Task::Classification(classifier) => Some(classifier.labels.len()),
            Task::Rerank { .. } => Some(1),
        }
    }

    fn check_pairs(&self) -> Result<(), EncoderError> {
        if self.reads_segments() && self.config.segments < 2 {
            return Err(EncoderError::Field {
                file: "config.json",
                field: "type_vocab_size".into(),
                value: self.config.segments.to_string(),
                allowed: "2 and more, where pairs of texts are read".into(),
            });
        }
        Ok(())
    }
}

fn column(name: &str) -> TensorSpec {
    spec(name, Dtype::Bytes, Dim::Exactly(1))
}

fn spec(name: &str, dtype: Dtype, columns: Dim) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: ShapePattern(vec![Dim::Any, columns]),
    }
}

fn tokens_max(
    config: &Config,
    settings: &Settings,
    section: &EncoderSection,
) -> Result<usize, EncoderError> {
    let most = config.tokens_max();
    if most == 0 {
        return Err(EncoderError::Field {
            file: "config.json",
            field: "max_position_embeddings".into(),
            value: config.positions.to_string(),
            allowed: format!("{} and more, after pad_token_id", config.pad + 2),
        });
    }
    match section.tokens_max {
        None => Ok(settings.tokens_max.unwrap_or(most).min(most)),
        Some(tokens) if (1..=most).contains(&tokens) => Ok(tokens),
        Some(tokens) => Err(declared("tokens_max", tokens, format!("1 to {most}"))),
    }
}

fn task(
    config: &Config,
    settings: &Settings,
    section: &EncoderSection,
) -> Result<Task, EncoderError> {
    let classifier = config.classifier.clone();
    let embedding = || Task::Embedding {
        pooling: section.pooling.unwrap_or(settings.pooling),
        normalize: section.normalize.unwrap_or(settings.normalize),
    };
    let task = match (section.task, classifier) {
        (Some(TaskName::Embedding), _) | (None, None) => embedding(),
        (None | Some(TaskName::Rerank), Some(classifier)) if classifier.labels.len() == 1 => {
            Task::Rerank {
                scores: classifier.scores,
            }
        }
        (None | Some(TaskName::Classification), Some(classifier)) => {
            Task::Classification(classifier)
        }
        (Some(TaskName::Rerank), Some(classifier)) => {
            let allowed = "one class, to score a pair of texts";
            let count = classifier.labels.len();
            return Err(declared(
                "task",
                format!("\"rerank\" of {count} classes"),
                allowed,
            ));
        }
        (Some(_), None) => {
            let allowed = "\"embedding\", as config.json has no ForSequenceClassification";
            return Err(declared("task", "a task of a head for classes", allowed));
        }
    };
    let of_embedding = [
        ("pooling", section.pooling.is_some()),
        ("normalize", section.normalize.is_some()),
    ];
    if let (Task::Classification(_) | Task::Rerank { .. }, Some((key, _))) =
        (&task, of_embedding.iter().find(|(_, is_set)| *is_set))
    {
        return Err(declared(
            key,
            "set",
            "left out, but for the task \"embedding\"",
        ));
    }
    Ok(task)
}

/// A key of `model.toml` with what it says.
fn declared(key: &str, value: impl ToString, allowed: impl Into<String>) -> EncoderError {
    EncoderError::Field {
        file: "model.toml",
        field: format!("encoder.{key}"),
        value: value.to_string(),
        allowed: allowed.into(),
    }
}
