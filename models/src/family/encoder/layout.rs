//! What the architectures call their parts: keys of `config.json`, and names of tensors.
//!
//! Names are those that `transformers` gives to the modules of `BertModel`, `RobertaModel`
//! (XLM-R is the same) and `DistilBertModel`, and to their heads for sequence classification.

/// Architectures that name their parts alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Bert,
    /// RoBERTa and XLM-R: positions are counted from behind the padding token's id.
    Roberta,
    /// No segments.
    DistilBert,
}

/// Keys of `config.json` that differ.
pub(super) struct Keys {
    pub(super) width: &'static str,
    pub(super) heads: &'static str,
    pub(super) layers: &'static str,
    pub(super) inner: &'static str,
    pub(super) activation: &'static str,
}

/// A dense layer or a normalization of one layer of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Query,
    Key,
    Value,
    /// Behind the attention.
    Output,
    /// Behind the attention and what went around it.
    AttentionNorm,
    Up,
    Down,
    /// At the layer's end.
    Norm,
}

impl Layout {
    /// Every `model_type`, as messages list them.
    pub(super) const SERVED: &'static str = "bert, roberta, xlm-roberta, distilbert";

    /// The layout of a `model_type`.
    pub(super) fn of(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" => Some(Self::Bert),
            "roberta" | "xlm-roberta" => Some(Self::Roberta),
            "distilbert" => Some(Self::DistilBert),
            _ => None,
        }
    }

    /// What tensors' names begin with where the encoder is a part of a larger model.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::DistilBert => "distilbert",
        }
    }

    /// Whether the two texts of a pair differ in their segments. RoBERTa has a table of segments,
    /// but its tokenizers always say 0; DistilBERT has none.
    pub(super) const fn tells_texts_apart(self) -> bool {
        matches!(self, Self::Bert)
    }

    pub(super) const fn keys(self) -> Keys {
        match self {
            Self::Bert | Self::Roberta => Keys {
                width: "hidden_size",
                heads: "num_attention_heads",
                layers: "num_hidden_layers",
                inner: "intermediate_size",
                activation: "hidden_act",
            },
            Self::DistilBert => Keys {
                width: "dim",
                heads: "n_heads",
                layers: "n_layers",
                inner: "hidden_dim",
                activation: "activation",
            },
        }
    }

    /// What the tensors of layer *N* begin with, before *N*.
    pub(super) const fn layers(self) -> &'static str {
        match self {
            Self::Bert | Self::Roberta => "encoder.layer.",
            Self::DistilBert => "transformer.layer.",
        }
    }

    /// A part of a layer; `.weight` and `.bias` follow.
    pub(super) const fn part(self, part: Part) -> &'static str {
        match (self, part) {
            (Self::DistilBert, Part::Query) => "attention.q_lin",
            (Self::DistilBert, Part::Key) => "attention.k_lin",
            (Self::DistilBert, Part::Value) => "attention.v_lin",
            (Self::DistilBert, Part::Output) => "attention.out_lin",
            (Self::DistilBert, Part::AttentionNorm) => "sa_layer_norm",
            (Self::DistilBert, Part::Up) => "ffn.lin1",
            (Self::DistilBert, Part::Down) => "ffn.lin2",
            (Self::DistilBert, Part::Norm) => "output_layer_norm",
            (_, Part::Query) => "attention.self.query",
            (_, Part::Key) => "attention.self.key",
            (_, Part::Value) => "attention.self.value",
            (_, Part::Output) => "attention.output.dense",
            (_, Part::AttentionNorm) => "attention.output.LayerNorm",
            (_, Part::Up) => "intermediate.dense",
            (_, Part::Down) => "output.dense",
            (_, Part::Norm) => "output.LayerNorm",
        }
    }

    /// The two dense layers of the head for classes, the first inside the encoder's own name in
    /// one of the architectures, and what is between them.
    pub(super) const fn classifier(self) -> ClassifierParts {
        match self {
            Self::Bert => ClassifierParts {
                first: "pooler.dense",
                first_is_prefixed: true,
                second: "classifier",
                relu: false,
            },
            Self::Roberta => ClassifierParts {
                first: "classifier.dense",
                first_is_prefixed: false,
                second: "classifier.out_proj",
                relu: false,
            },
            Self::DistilBert => ClassifierParts {
                first: "pre_classifier",
                first_is_prefixed: false,
                second: "classifier",
                relu: true,
            },
        }
    }
}

/// A head for classes: dense, an activation, dense; over the first token.
pub(super) struct ClassifierParts {
    pub(super) first: &'static str,
    pub(super) first_is_prefixed: bool,
    pub(super) second: &'static str,
    /// Otherwise the hyperbolic tangent.
    pub(super) relu: bool,
}
