//! The precision of an encoder: measured both ways, then written into what is published.

use bytes::Bytes;
use paceline_models::{
    EncoderPrecision, Engine, PrecisionError, PrecisionFigures, calibration_texts,
    compare_precisions, declared,
};
use paceline_protocol::limits::{
    ARTIFACT_CHUNK_BYTES, CALIBRATION_TEXTS_MAX, PRECISION_COSINE_LEAST_PPM,
};
use paceline_protocol::operator::{Precision, PrecisionChoice, PrecisionReport};
use paceline_protocol::{Digest, ErrorCode, Failure, Manifest, ManifestFile};
use sha2::{Digest as _, Sha256};

use crate::artifacts::{ArtifactError, Artifacts};

/// Measures both precisions of an artifact whose files have been uploaded, and stores it with the
/// chosen one in its `model.toml`. Blocks, for some seconds or minutes.
///
/// # Errors
/// `TOO_INEXACT` where rounding turns vectors too far, and what is wrong with the artifact or the
/// texts.
pub(super) fn choose(
    artifacts: &Artifacts,
    engine: &dyn Engine,
    manifest: &Manifest,
    choice: &PrecisionChoice,
) -> Result<((Digest, u64), PrecisionReport), Failure> {
    let texts = match choice.calibration.len() {
        0 => calibration_texts(),
        1..=CALIBRATION_TEXTS_MAX => choice.calibration.clone(),
        count => {
            let message =
                format!("{count} texts to calibrate by; at most {CALIBRATION_TEXTS_MAX} are read");
            return Err(Failure::new(ErrorCode::TooLarge, message));
        }
    };
    let source = artifacts.source(artifacts.store(manifest)?)?;
    let precision = match choice.precision {
        Precision::F32 => EncoderPrecision::F32,
        Precision::Bf16 => EncoderPrecision::Bf16,
    };
    let figures = compare_precisions(engine, &source, &texts).map_err(refusal)?;
    let report = report(choice.precision, &figures);
    let is_exact = report.cosine_min_ppm >= PRECISION_COSINE_LEAST_PPM;
    if precision == EncoderPrecision::Bf16 && !is_exact && !choice.force {
        return Err(Failure::new(ErrorCode::TooInexact, too_far(&report)));
    }
    let toml = declared(&source, precision).map_err(refusal)?;
    let changed = with_file(artifacts, manifest, &toml)?;
    Ok(((artifacts.store(&changed)?, changed.bytes()), report))
}

fn report(precision: Precision, figures: &PrecisionFigures) -> PrecisionReport {
    // Rounded down, so that no cosine looks better than it is.
    let millionths = |cosine: f64| (cosine * 1e6).floor() as i32;
    PrecisionReport {
        precision,
        texts: figures.texts,
        cosine_min_ppm: millionths(figures.cosine_min),
        cosine_mean_ppm: millionths(figures.cosine_mean),
        f32_text_ns: figures.f32_text_ns,
        bf16_text_ns: figures.bf16_text_ns,
        is_rounded: figures.is_rounded,
    }
}

fn too_far(report: &PrecisionReport) -> String {
    let cosine = |millionths: i32| f64::from(millionths) / 1e6;
    format!(
        "in bf16 vectors turn too far: of {} texts the least cosine is {:.6}, the mean {:.6}, and {:.3} \
         is needed; a text takes {} ns in f32 and {} in bf16",
        report.texts,
        cosine(report.cosine_min_ppm),
        cosine(report.cosine_mean_ppm),
        cosine(PRECISION_COSINE_LEAST_PPM),
        report.f32_text_ns,
        report.bf16_text_ns
    )
}

/// The manifest with another `model.toml`, which is stored.
fn with_file(
    artifacts: &Artifacts,
    manifest: &Manifest,
    toml: &Bytes,
) -> Result<Manifest, ArtifactError> {
    let sha256 = Digest(Sha256::digest(toml).into());
    if !artifacts.missing(&[sha256])?.is_empty() {
        let mut upload = artifacts.upload()?;
        upload.write(toml)?;
        upload.finish(sha256)?;
    }
    let chunks = toml.chunks(ARTIFACT_CHUNK_BYTES);
    let file = ManifestFile {
        path: MODEL.to_owned(),
        bytes: toml.len() as u64,
        sha256,
        chunks: chunks
            .map(|chunk| Digest(blake3::hash(chunk).into()))
            .collect(),
    };
    let others = manifest.files.iter().filter(|file| file.path != MODEL);
    let mut files: Vec<ManifestFile> = others.cloned().chain([file]).collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Manifest { files })
}

fn refusal(error: PrecisionError) -> Failure {
    let code = match &error {
        PrecisionError::Recognise(_) | PrecisionError::Declaration(_) => ErrorCode::ArtifactInvalid,
        PrecisionError::Family { .. } | PrecisionError::Tokens | PrecisionError::Texts { .. } => {
            ErrorCode::ParameterInvalid
        }
        PrecisionError::Load(_) | PrecisionError::Run(_) => ErrorCode::LoadFailed,
    };
    Failure::new(code, error.to_string())
}

const MODEL: &str = "model.toml";

#[cfg(test)]
mod tests;
