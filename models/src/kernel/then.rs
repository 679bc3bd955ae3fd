//! What follows a product, on numbers that are still in the first cache.

use pulp::{Simd, bytemuck};

use super::curve;

/// What a layer does with `x · Wᵀ + b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Writes it.
    Nothing,
    /// Writes its GELU, by the error function.
    Gelu,
    /// Writes its GELU, by the tanh approximation.
    GeluTanh,
    /// Writes max(x, 0).
    Relu,
    /// Writes its hyperbolic tangent.
    Tanh,
    /// Adds it to what the output holds: a residual connection.
    Add,
}

impl Then {
    /// Replaces each number of a part of a row by what its curve makes of it.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(self, simd: S, part: &mut [f32]) {
        if matches!(self, Self::Nothing | Self::Add) {
            return;
        }
        let (whole, rest) = S::as_mut_simd_f32s(part);
        for x in whole {
            *x = self.curve(simd, *x);
        }
        if !rest.is_empty() {
            let mut last = [simd.splat_f32s(0.0)];
            let lanes = bytemuck::cast_slice_mut::<_, f32>(&mut last);
            lanes[..rest.len()].copy_from_slice(rest);
            let last = [self.curve(simd, last[0])];
            let lanes = bytemuck::cast_slice::<_, f32>(&last);
            rest.copy_from_slice(&lanes[..rest.len()]);
        }
    }

    /// A method instead of closures: these would be compiled without the level's instructions.
    #[inline(always)]
    fn curve<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        match self {
            Self::Nothing | Self::Add => x,
            Self::Gelu => curve::gelu(simd, x),
            Self::GeluTanh => curve::gelu_tanh(simd, x),
            Self::Relu => curve::relu(simd, x),
            Self::Tanh => curve::tanh(simd, x),
        }
    }
}
