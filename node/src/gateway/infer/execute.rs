//! A request as a whole: cut into parts that replicas take, put together again, and pinned anew
//! if its version went away under it.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use paceline_core::failover::Terms;
use paceline_protocol::frame::Execution;
use paceline_protocol::limits::REROUTES_MAX;
use paceline_protocol::{Epoch, ErrorCode, Failure, Tensor};

use super::missed::{Gone, Missed, Unanswered, gone};
use super::{Pinned, Serving, Target};

impl Serving {
    /// Runs the request. It keeps its version and epoch; only if no replica of that version is
    /// left and nothing was executed is it pinned anew, at the newest epoch, provided that the
    /// version there takes the same inputs.
    pub(super) async fn execute(
        &self,
        pinned: Pinned,
        inputs: Vec<Tensor>,
        terms: Terms,
        target: Target<'_>,
    ) -> Result<(Vec<Tensor>, Pinned), Unanswered> {
        let copied = self.copied(&pinned, &inputs, (terms, target));
        let ended = self.execute_alone(pinned, inputs, terms, target).await;
        if let Some(copied) = copied {
            let answered = ended.as_ref().ok();
            copied.send(answered.map(|(outputs, pinned)| (&outputs[..], pinned)));
        }
        ended
    }

    async fn execute_alone(
        &self,
        mut pinned: Pinned,
        mut inputs: Vec<Tensor>,
        terms: Terms,
        target: Target<'_>,
    ) -> Result<(Vec<Tensor>, Pinned), Unanswered> {
        for _ in 0..=REROUTES_MAX {
            let rows = inputs.first().map_or(0, Tensor::rows);
            let ran = if rows <= u64::from(pinned.version.rows_max) {
                self.run_part(&pinned, inputs, terms).await
            } else {
                self.run_sharded(&pinned, inputs, terms).await
            };
            let left = match ran {
                Ok(outputs) => return Ok((outputs, pinned)),
                Err(Missed::Ended(unanswered)) => return Err(unanswered),
                Err(Missed::Gone(left)) => left,
            };
            let Some(newest) = self.pin_anew(&pinned, left.epoch, target).await else {
                break;
            };
            (pinned, inputs) = (newest, left.inputs);
        }
        Err(gone().into())
    }

    /// What a request is pinned to whose version has no replica left, if that takes the same
    /// inputs. `heard` is the newest epoch that the request has heard of.
    pub(super) async fn pin_anew(
        &self,
        pinned: &Pinned,
        heard: Epoch,
        target: Target<'_>,
    ) -> Option<Pinned> {
        // Who says so has applied more than this node's routes show.
        self.catch_up(heard.max(Epoch(pinned.epoch.0 + 1))).await;
        let mut newest = self.pin(target).ok()?;
        newest.times = pinned.times.anew();
        newest.reading = pinned.reading;
        (newest.version.signature == pinned.version.signature).then_some(newest)
    }

    /// Several replicas, or several batches of one, take rows of the request; the answers are
    /// put together in order. A shard without an answer ends the request.
    async fn run_sharded(
        &self,
        pinned: &Pinned,
        inputs: Vec<Tensor>,
        terms: Terms,
    ) -> Result<Vec<Tensor>, Missed> {
        let rows = inputs.first().map_or(0, Tensor::rows);
        let step = u64::from(pinned.version.rows_max);
        let shards = (0..rows).step_by(step as usize).enumerate();
        let mut running: FuturesUnordered<_> = shards
            .map(|(place, start)| {
                let range = start..(start + step).min(rows);
                let part = inputs.iter().map(|tensor| tensor.slice_rows(range.clone()));
                let part: Vec<Tensor> = part.collect();
                async move { (place, self.run_part(pinned, part, terms).await) }
            })
            .collect();
        let mut answers = vec![None; running.len()];
        let mut left: Option<Gone> = None;
        let mut is_answered = false;
        while let Some((place, ran)) = running.next().await {
            match ran {
                Ok(outputs) => {
                    answers[place] = Some(outputs);
                    is_answered = true;
                }
                Err(Missed::Ended(unanswered)) => return Err(unanswered.among(is_answered).into()),
                Err(Missed::Gone(gone)) => left = Some(gone),
            }
            if is_answered && left.is_some() {
                // Its version is gone, and part of it ran.
                return Err(Unanswered::from(gone()).among(true).into());
            }
        }
        if let Some(left) = left {
            return Err(Missed::Gone(Gone { inputs, ..left }));
        }
        let parts: Vec<Vec<Tensor>> = answers.into_iter().flatten().collect();
        // As many as the signature has, but for what texts may be asked beside it.
        let outputs = 0..parts.first().map_or(0, Vec::len);
        outputs.map(|output| gather(&parts, output)).collect()
    }
}

impl Unanswered {
    /// The end of a request of which this is a part, if others of its parts were answered.
    pub(super) fn among(self, is_answered: bool) -> Self {
        if is_answered {
            let execution = Execution::Executed;
            Self { execution, ..self }
        } else {
            // The other parts are cancelled wherever they are.
            let execution = match self.execution {
                Execution::NotExecuted => Execution::Unknown,
                known => known,
            };
            Self { execution, ..self }
        }
    }
}

/// One output of all shards, in order.
fn gather(parts: &[Vec<Tensor>], output: usize) -> Result<Tensor, Missed> {
    let parts: Option<Vec<&Tensor>> = parts.iter().map(|part| part.get(output)).collect();
    let whole = parts.and_then(|parts| Tensor::concat_rows(&parts));
    whole.ok_or_else(|| {
        let message = "shards of the answer do not fit together";
        Missed::Ended(Unanswered {
            failure: Failure::new(ErrorCode::EngineFailed, message),
            execution: Execution::Executed,
        })
    })
}
