//! Which instructions this machine has, and which of them a model computes with.

use std::fmt;
use std::str::FromStr;

use pulp::{Scalar, Simd, WithSimd};
use thiserror::Error;

use super::bf16::Unit;
#[cfg(target_arch = "x86_64")]
use super::bf16::amx::Amx;

/// A set of instructions, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Matrix tiles of bfloat16; what is not a product in bfloat16 runs as on [`Level::Avx512`].
    Amx,
    /// Vectors of 16 floats.
    Avx512,
    /// Vectors of 8 floats, with fused multiply-add.
    Avx2,
    /// What every machine has.
    Plain,
}

/// How products of weights and activations are computed. Sums are in `f32` either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Everything in `f32`.
    #[default]
    F32,
    /// Factors rounded to bfloat16 where the machine multiplies these faster, else as
    /// [`Precision::F32`].
    Bf16,
}

/// What a model computes with. Cheap to copy; decided once, when the model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    level: Level,
    precision: Precision,
}

/// A level that was asked for by name and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{VARIABLE} is {asked:?}: this machine has {}", Names(available))]
pub struct UnknownLevel {
    /// What was asked for.
    pub asked: String,
    /// What would have been accepted.
    pub available: Vec<Level>,
}

/// The environment variable that forces a level: `amx`, `avx512`, `avx2` or `plain`.
const VARIABLE: &str = "PACELINE_KERNELS";

/// Whether factors are rounded to bfloat16 where that is asked for: whether this machine, or the
/// level that is forced, multiplies them faster.
pub fn rounds_bf16() -> bool {
    Kernels::new(Precision::Bf16).is_ok_and(|kernels| Unit::of(kernels).is_some())
}

impl Kernels {
    /// The best that this machine has, or what the environment variable `PACELINE_KERNELS` names.
    ///
    /// # Errors
    /// [`UnknownLevel`] when the variable names no level, or one that this machine lacks.
    pub fn new(precision: Precision) -> Result<Self, UnknownLevel> {
        let level = match std::env::var_os(VARIABLE) {
            None => Level::best(),
            Some(asked) => Level::named(&asked.to_string_lossy())?,
        };
        Ok(Self { level, precision })
    }

    /// A level of this machine: one of [`Level::available`].
    ///
    /// # Panics
    /// If this machine does not have the level.
    pub fn on(level: Level, precision: Precision) -> Self {
        assert!(level.is_available(), "this machine has no {level}");
        Self { level, precision }
    }

    /// The instructions.
    pub fn level(self) -> Level {
        self.level
    }

    /// What was asked for.
    pub fn precision(self) -> Precision {
        self.precision
    }

    /// Runs `f32` work with the vectors of this level.
    pub(super) fn dispatch<W: WithSimd>(self, work: W) -> W::Output {
        #[cfg(target_arch = "x86_64")]
        match self.level {
            Level::Amx | Level::Avx512 => {
                let simd = pulp::x86::V4::try_new().expect("the level was available");
                return Simd::vectorize(simd, work);
            }
            Level::Avx2 => {
                let simd = pulp::x86::V3::try_new().expect("the level was available");
                return Simd::vectorize(simd, work);
            }
            Level::Plain => {}
        }
        Simd::vectorize(Scalar::new(), work)
    }

    /// Floats in a vector of this level.
    pub(super) fn lanes(self) -> usize {
        self.dispatch(Lanes)
    }
}

/// What products are computed with: `avx512 f32`, or `amx bf16`.
impl fmt::Display for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = match Unit::of(*self) {
            Some(_) => "bf16",
            None => "f32",
        };
        write!(f, "{} {precision}", self.level)
    }
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

impl Level {
    /// In the order in which they are preferred.
    const ALL: [Self; 4] = [Self::Amx, Self::Avx512, Self::Avx2, Self::Plain];

    /// The first that this machine has.
    pub fn best() -> Self {
        Self::first(Self::is_available)
    }

    fn first(is_available: impl Fn(Self) -> bool) -> Self {
        let mut levels = Self::ALL.into_iter();
        let first = levels.find(|level| is_available(*level));
        first.unwrap_or(Self::Plain)
    }

    /// All that this machine has, the best first.
    pub fn available() -> Vec<Self> {
        let levels = Self::ALL.into_iter();
        levels.filter(|level| level.is_available()).collect()
    }

    fn named(asked: &str) -> Result<Self, UnknownLevel> {
        let level = Self::from_str(asked).ok();
        level
            .filter(|level| level.is_available())
            .ok_or_else(|| UnknownLevel {
                asked: asked.to_owned(),
                available: Self::available(),
            })
    }

    /// Asks the processor; pulp remembers its answers.
    fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            // What is no product runs with vectors.
            Self::Amx => Self::Avx512.is_available() && Amx::detect().is_some(),
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            Self::Plain => true,
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Self::Plain;
    }

    fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let mut levels = Self::ALL.into_iter();
        levels.find(|level| level.name() == name).ok_or(())
    }
}

/// Levels with commas between them.
struct Names<'a>(&'a [Level]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, level) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{level}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_level_comes_first_and_plain_is_always_there() {
        let available = Level::available();
        assert_eq!(available.first(), Some(&Level::best()));
        assert_eq!(available.last(), Some(&Level::Plain));
        assert!(available.is_sorted());
    }

    #[test]
    fn a_machine_takes_the_next_level_for_one_that_it_lacks() {
        for (lacked, next) in Level::ALL.iter().zip(&Level::ALL[1..]) {
            assert_eq!(Level::first(|level| level > *lacked), *next);
        }
        assert_eq!(Level::first(|_| true), Level::Amx);
        #[cfg(target_arch = "x86_64")]
        if Amx::detect().is_none() {
            println!("this machine has no AMX, or may not use it");
            assert!(Level::best() > Level::Amx);
            assert!(Level::named("amx").is_err());
        }
    }

    #[test]
    fn a_level_is_had_by_its_name_or_the_error_says_which_there_are() {
        for level in Level::ALL {
            let named = Level::named(level.name());
            if level.is_available() {
                assert_eq!(named, Ok(level));
            } else {
                let error = named.unwrap_err().to_string();
                assert!(error.contains(level.name()), "{error}");
            }
        }
        for asked in ["", "AVX2", "avx", "plain "] {
            let error = Level::named(asked).unwrap_err();
            assert_eq!(error.available, Level::available());
            let text = error.to_string();
            assert!(text.starts_with(&format!("PACELINE_KERNELS is {asked:?}: this machine has ")));
            assert!(text.ends_with("plain"), "{text}");
        }
    }
}
