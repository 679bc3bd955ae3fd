//! `paceline model push`: a folder becomes a version. Only what the node lacks is uploaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use paceline_protocol::operator::{BlobQuery, PrecisionChoice, PublishAnswer, PublishRequest};
use paceline_protocol::{Digest, ErrorCode, Manifest, ModelName, OpId};
use serde::Serialize;

use super::deploy::{Deployed, Rollout, Wish};
use super::precision::{PrecisionArgs, told};
use crate::api::{OperatorClient, UploadSource};
use crate::cli::artifact::{Folder, FolderFile};
use crate::cli::connection::{Connection, Output};
use crate::cli::failure::Failure;
use crate::cli::operation::{Expectation, Operation, fresh, unsettled};
use crate::cli::progress::{Progress, Totals};
use crate::cli::table::fields;
use crate::cli::target::parse_name;
use crate::cli::terminal::{Talk, Terminal};
use crate::cli::units;

/// Arguments of `paceline model push`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The same folder pushed again is the same version: nothing is uploaded and nothing changes.
Hidden files are left out. Links must stay inside the folder.

Examples:
  paceline model push digits examples/models/digits
  paceline model push digits . --deploy --replicas each
  paceline model push minilm . --precision bf16 --calibration questions.txt
  paceline model push digits . -o json | jq .version")]
pub struct PushArgs {
    /// The model: [a-z0-9][a-z0-9._-]*
    #[arg(value_parser = parse_name)]
    name: ModelName,
    /// The model's folder, or the model.toml in it
    path: PathBuf,
    /// Deploy the version at once, and wait until it serves
    #[arg(long)]
    deploy: bool,
    #[command(flatten)]
    rollout: Rollout,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    expectation: Expectation,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Publishing loads the model and runs it: a large one takes minutes.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How often what is missing is asked for and uploaded: another node may answer each time.
const ROUNDS: usize = 3;

/// What was pushed, as JSON has it.
#[derive(Serialize)]
struct Pushed {
    #[serde(flatten)]
    answer: PublishAnswer,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<Deployed>,
}

impl PushArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        if !self.deploy && self.rollout.is_given() {
            let wrong = "--replicas and --detach say how to deploy; they need --deploy";
            return Err(Failure::Usage(wrong.into()));
        }
        let talk = terminal.talk();
        let folder = Folder::read(&self.path)?;
        let manifest = folder.manifest(&mut Progress::reading(talk.clone(), folder.totals()))?;
        announce(&talk, &folder);
        let client = self.connection.client(terminal, TIMEOUT)?;
        let client = client.expecting(self.expectation.revision());
        let push = Push {
            client: &client,
            expectation: self.expectation,
            talk: &talk,
            path: &self.path,
            folder: &folder,
            manifest: &manifest,
            precision: self.precision.choice()?,
        };
        let answer = push.publish(&self.name, self.operation.op()?)?;
        let deployment = if self.deploy {
            let wish = Wish {
                name: self.name.clone(),
                version: answer.version,
                rollout: self.rollout,
                expectation: Expectation::default(),
                op: fresh()?,
            };
            Some(wish.fulfil(&self.connection, terminal)?)
        } else {
            let (name, version) = (&self.name, answer.version);
            talk.say(&match answer.created {
                true => format!("Deploy it with `paceline model deploy {name}@{version}`."),
                false => format!("`paceline model show {name}` says whether it serves."),
            });
            None
        };
        terminal.show(self.output.format, &Pushed { answer, deployment }, text)
    }
}

struct Push<'a> {
    client: &'a OperatorClient,
    expectation: Expectation,
    talk: &'a Talk,
    path: &'a Path,
    folder: &'a Folder,
    manifest: &'a Manifest,
    precision: Option<PrecisionChoice>,
}

impl Push<'_> {
    fn publish(&self, name: &ModelName, op: OpId) -> Result<PublishAnswer, Failure> {
        let request = PublishRequest {
            manifest: self.manifest.clone(),
            op,
            precision: self.precision.clone(),
        };
        let mut round = 1;
        loop {
            self.upload_missing()?;
            self.talk
                .update("publishing: the node reads, loads and measures the model");
            match self.client.publish(name, &request) {
                Ok(answer) => return Ok(answer),
                // A node that has lost its disk since it was asked, or another node.
                Err(error)
                    if error.code() == Some(ErrorCode::ArtifactMissing) && round < ROUNDS =>
                {
                    self.talk.say(&format!("uploading again: {error}"));
                    round += 1;
                }
                Err(error) => {
                    let command = format!("model push {name} {}", self.path.display());
                    let command = self.expectation.added_to(command);
                    return Err(unsettled(&command, op)(error));
                }
            }
        }
    }

    fn upload_missing(&self) -> Result<(), Failure> {
        // Two files with the same bytes are one blob.
        let by_digest: BTreeMap<Digest, &FolderFile> = self
            .manifest
            .files
            .iter()
            .zip(&self.folder.files)
            .map(|(entry, file)| (entry.sha256, file))
            .collect();
        let digests = by_digest.keys().copied().collect();
        let missing = self.client.missing(&BlobQuery { digests })?.missing;
        let mut files = Vec::with_capacity(missing.len());
        for digest in missing {
            let file = by_digest.get(&digest).ok_or_else(|| {
                Failure::Failed(format!(
                    "the node asks for {digest}, which is not in the model"
                ))
            })?;
            files.push((digest, *file));
        }
        let totals = Totals {
            files: files.len(),
            bytes: files.iter().map(|(_, file)| file.bytes).sum(),
        };
        if files.is_empty() {
            self.talk.say("the node has every file already");
        }
        let mut progress = Progress::uploading(self.talk.clone(), totals);
        for (digest, file) in files {
            let source = UploadSource {
                path: &file.path,
                bytes: file.bytes,
            };
            self.client
                .upload(digest, source, &mut |sent| progress.at(sent))?;
            progress.file_done(&file.name, file.bytes);
        }
        Ok(())
    }
}

fn announce(talk: &Talk, folder: &Folder) {
    let Totals { files, bytes } = folder.totals();
    let hidden = match folder.hidden {
        0 => String::new(),
        hidden => format!(" ({hidden} hidden left out)"),
    };
    talk.say(&format!(
        "{}, {}{hidden}",
        units::counted(files, "file"),
        units::bytes(bytes)
    ));
}

fn text(pushed: &Pushed) -> String {
    let PublishAnswer {
        model,
        version,
        created,
        record,
        epoch,
        precision,
    } = &pushed.answer;
    let news = if *created {
        "new"
    } else {
        "the same artifact was known before"
    };
    let full = format!(
        "{} for {} rows",
        units::nanoseconds(record.full_batch_ns),
        record.rows_max
    );
    let mut pairs = vec![
        ("model", model.to_string()),
        ("version", format!("{version} ({news})")),
        ("digest", record.digest.to_string()),
        ("family", record.family.clone()),
        ("size", units::bytes(record.artifact_bytes)),
        ("memory", units::bytes(record.memory_bytes)),
        ("one row", units::nanoseconds(record.one_row_ns)),
        ("full batch", full),
        ("epoch", epoch.to_string()),
    ];
    let told = precision.as_ref().map(told);
    if let Some([chosen, cosine, speed]) = told {
        pairs.push(("precision", chosen));
        pairs.push(("cosine", cosine));
        pairs.push(("speed", speed));
    }
    if let Some(deployed) = &pushed.deployment {
        pairs.push(("deployed", deployed.sentence()));
    }
    fields(&pairs)
}
