//! What text encoders compute on a processor: dense layers, attention and layer normalisation.
//!
//! ```text
//!   Linear::run ─┐                        ┌─ Amx     tiles of bfloat16 ─┐
//!   attention   ─┼─ Kernels ── Level ─────┼─ Avx512  16 floats a vector │ the first that this
//!   layer_norm  ─┘  (Copy)                ├─ Avx2     8 floats a vector │ machine has
//!                                         └─ Plain    no vectors       ─┘
//! ```
//!
//! Read [`Kernels`] first, then [`Linear`]. All of it runs on the calling thread; whoever divides
//! work among threads gives each its own rows. It takes slices whose
//! lengths it checks, and panics when they do not fit together: callers have checked their model.
//!
//! **What shares a batch does not change an answer.** Every number is the sum of the same products in
//! the same order, whatever the number of rows and sequences beside it.
//!
//! What works on `f32` is written once, over [`pulp`]'s vectors, and has no `unsafe`. Only what pulp
//! does not know has: the dot products of bfloat16 and the tiles of AMX.

mod attention;
mod bf16;
mod curve;
mod level;
mod linear;
mod memory;
mod norm;
mod panels;
mod product;
mod then;

pub use attention::{Sequences, attention};
pub use level::{Kernels, Level, Precision, UnknownLevel, rounds_bf16};
pub use linear::Linear;
pub use memory::Scratch;
pub use norm::{Norm, layer_norm};
pub use then::Then;

#[cfg(test)]
mod noise;
