//! What a request says, in the form of the protocol that it came by.

use bytes::Bytes;
use paceline_protocol::traffic::Unit;
use paceline_protocol::{Epoch, Failure, Reading, Signature};

use crate::gateway::oip::{self, AnswerView, Envelope, ParseOptions, ParsedRequest, Rendered};
use crate::gateway::predict::{self, Predict};
use crate::gateway::text::{self, Texts};
use crate::telemetry::metrics::Protocol;

/// What a request says, in the form of its protocol; its answer has the same.
#[derive(Clone)]
pub enum Content<'a> {
    /// HTTP: JSON, with the length of it if binary tensors follow.
    Json {
        /// `Inference-Header-Content-Length`, if the header is there.
        json_bytes: Option<usize>,
        /// The body.
        body: Bytes,
    },
    /// HTTP: a prediction of TensorFlow Serving's or KServe's, whose outline has been read.
    Predict(&'a Predict<'a>),
    /// HTTP: texts of OpenAI's clients or TEI's, which have been read.
    Texts(&'a Texts),
    /// gRPC: a message that has been read.
    Message(&'a oip::Message<'a>),
}

impl Content<'_> {
    /// JSON without binary tensors.
    #[cfg(test)]
    pub(crate) fn json(body: impl Into<Bytes>) -> Self {
        Self::Json {
            json_bytes: None,
            body: body.into(),
        }
    }

    /// How it came in.
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Json { .. } | Self::Predict(_) | Self::Texts(_) => Protocol::Http,
            Self::Message(_) => Protocol::Grpc,
        }
    }

    /// What is in it, read by a version's signature.
    pub(super) fn parse(
        &self,
        signature: &Signature,
        options: ParseOptions,
    ) -> Result<ParsedRequest, Failure> {
        match self {
            Self::Json { json_bytes, body } => oip::parse(body, *json_bytes, signature, options),
            Self::Predict(outline) => outline.parse(signature, options),
            Self::Texts(texts) => texts.parse(signature, options),
            Self::Message(message) => message.parse(signature, options),
        }
    }

    /// How its texts are read.
    pub(super) fn reading(&self) -> Reading {
        match self {
            Self::Texts(texts) => texts.reading(),
            Self::Json { .. } | Self::Predict(_) | Self::Message(_) => Reading::default(),
        }
    }

    /// The sequence that it names, before it is held against a signature.
    pub(super) fn sequence(&self) -> Option<Unit> {
        match self {
            Self::Json { json_bytes, body } => oip::sequence(body, *json_bytes),
            Self::Predict(_) | Self::Texts(_) => None,
            Self::Message(message) => message.parameters().sequence.clone(),
        }
    }

    /// The answer, in the same form.
    pub(super) fn render(&self, view: &AnswerView<'_>, epoch: Epoch) -> Result<Rendered, Failure> {
        match self {
            Self::Json { .. } => oip::render(view),
            Self::Predict(outline) => predict::render(view, outline.form()),
            Self::Texts(texts) => text::render(view, texts),
            Self::Message(message) => {
                let envelope = match message.is_in_stream() {
                    true => Envelope::Stream(epoch),
                    false => Envelope::Unary,
                };
                oip::render_message(view, envelope)
            }
        }
    }
}
