//! A line through what batches of each size took, and how far it is from them.

use serde::Serialize;

/// What batches of one size took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Size {
    pub(super) rows: u32,
    /// Nanoseconds, rising; at least one.
    pub(super) nanos: Vec<u64>,
}

/// A batch of `n` rows takes `fixed_ns + n × row_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    pub(super) fixed_ns: f64,
    /// Two standard errors: the truth is within them 95 times of a hundred, if there is a line.
    pub(super) fixed_error_ns: f64,
    pub(super) row_ns: f64,
    pub(super) row_error_ns: f64,
    /// The largest distance from a size's median, as a share of the median, and where it is.
    pub(super) worst_share: f64,
    pub(super) worst_rows: u32,
    /// Nine of ten batches of a size are within so many thousandths of their median, in the middle
    /// of all sizes.
    pub(super) noise_permille: u64,
}

impl Size {
    pub(super) fn new(rows: u32, mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        Self { rows, nanos }
    }

    pub(super) fn median(&self) -> f64 {
        self.nanos[self.nanos.len() / 2] as f64
    }

    /// How far nine of ten batches are from the median at most, as a share of it.
    fn spread(&self) -> f64 {
        let median = self.median().max(1.0);
        let away = self
            .nanos
            .iter()
            .map(|nanos| (*nanos as f64 - median).abs());
        let mut away: Vec<f64> = away.collect();
        away.sort_by(f64::total_cmp);
        away[(away.len() * 9 / 10).min(away.len() - 1)] / median
    }
}

impl Line {
    /// The line with the least squares of distances relative to the medians: to be wrong by a tenth
    /// is as bad for a row as for a full batch. Neither of its parts is negative.
    ///
    /// # Panics
    /// If there is no size.
    pub(super) fn through(sizes: &[Size]) -> Self {
        assert!(!sizes.is_empty(), "a line goes through something");
        let (fixed_ns, row_ns) = parts(sizes);
        let (fixed_error_ns, row_error_ns) = errors(sizes, (fixed_ns, row_ns));
        let mut worst = (0.0, sizes[0].rows);
        for size in sizes {
            let share = off(size, (fixed_ns, row_ns)).abs();
            if share > worst.0 {
                worst = (share, size.rows);
            }
        }
        let mut spreads: Vec<f64> = sizes.iter().map(Size::spread).collect();
        spreads.sort_by(f64::total_cmp);
        let noise = spreads[spreads.len() / 2] * 1_000.0;
        Self {
            fixed_ns,
            fixed_error_ns,
            row_ns,
            row_error_ns,
            worst_share: worst.0,
            worst_rows: worst.1,
            noise_permille: (noise.round() as u64).min(1_000),
        }
    }

    pub(super) fn at(self, rows: u32) -> f64 {
        self.fixed_ns + f64::from(rows) * self.row_ns
    }
}

/// By how much the line is above a size's median, as a share of it.
fn off(size: &Size, (fixed, row): (f64, f64)) -> f64 {
    (fixed + f64::from(size.rows) * row) / size.median().max(1.0) - 1.0
}

/// Sums of the normal equations, each weighted by 1 / median².
fn sums(sizes: &[Size]) -> [f64; 5] {
    let mut sums = [0.0; 5];
    for size in sizes {
        let (n, m) = (f64::from(size.rows), size.median().max(1.0));
        let w = 1.0 / (m * m);
        for (sum, more) in sums.iter_mut().zip([w, w * n, w * n * n, w * m, w * n * m]) {
            *sum += more;
        }
    }
    sums
}

fn parts(sizes: &[Size]) -> (f64, f64) {
    let [one, n, nn, m, nm] = sums(sizes);
    let determinant = one * nn - n * n;
    // With sizes that are all the same, the line through nothing and them.
    let proportional = (0.0, nm / nn);
    if determinant <= one * nn * 1e-12 {
        return proportional;
    }
    let fixed = (nn * m - n * nm) / determinant;
    let row = (one * nm - n * m) / determinant;
    match (fixed < 0.0, row < 0.0) {
        (true, _) => proportional,
        (_, true) => (m / one, 0.0),
        _ => (fixed, row),
    }
}

/// Two standard errors of both parts; 0 where there are no more sizes than parts.
fn errors(sizes: &[Size], line: (f64, f64)) -> (f64, f64) {
    let [one, n, nn, ..] = sums(sizes);
    let determinant = one * nn - n * n;
    if sizes.len() < 3 || determinant <= one * nn * 1e-12 {
        return (0.0, 0.0);
    }
    let squares: f64 = sizes.iter().map(|size| off(size, line).powi(2)).sum();
    let variance = squares / (sizes.len() - 2) as f64;
    let error = |share: f64| 2.0 * (variance * share / determinant).sqrt();
    (error(nn), error(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(of: impl Fn(u32) -> u64) -> Vec<Size> {
        let rows = [1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 17, 24, 32];
        rows.map(|rows| Size::new(rows, vec![of(rows); 9])).into()
    }

    #[test]
    fn a_line_is_found_exactly() {
        let line = Line::through(&sizes(|rows| 40_000 + 1_500 * u64::from(rows)));
        assert!((line.fixed_ns - 40_000.0).abs() < 0.01, "{line:?}");
        assert!((line.row_ns - 1_500.0).abs() < 0.01, "{line:?}");
        assert!(
            line.worst_share < 1e-6 && line.fixed_error_ns < 1.0,
            "{line:?}"
        );
        assert_eq!(line.noise_permille, 0);
        assert!((line.at(10) - 55_000.0).abs() < 0.1);
    }

    /// An engine that fills up to multiples of four rows takes for five what it takes for eight.
    #[test]
    fn steps_are_no_line_and_it_is_said_where() {
        let of = |rows: u32| 1_000 * u64::from(rows.next_multiple_of(4));
        let line = Line::through(&sizes(of));
        assert!(line.worst_share > 0.2, "{line:?}");
        let off = line.at(line.worst_rows) / of(line.worst_rows) as f64 - 1.0;
        assert!((off.abs() - line.worst_share).abs() < 1e-9, "{line:?}");
        assert!(line.row_error_ns > 10.0, "{line:?}");
    }

    #[test]
    fn no_part_is_negative() {
        let falling = Line::through(&sizes(|rows| 10_000 - 100 * u64::from(rows)));
        assert_eq!(falling.row_ns, 0.0);
        let steep = Line::through(&sizes(|rows| 100 * u64::from(rows * rows)));
        assert_eq!(steep.fixed_ns, 0.0);
        let one = Line::through(&[Size::new(1, vec![700])]);
        assert_eq!((one.fixed_ns, one.row_ns.round()), (0.0, 700.0));
        assert_eq!(one.worst_rows, 1);
    }

    #[test]
    fn noise_is_what_nine_of_ten_are_within() {
        let nanos: Vec<u64> = (0..=100).map(|step| 950 + step).collect();
        let all = [1, 2, 4].map(|rows| Size::new(rows, nanos.clone()));
        assert_eq!(Line::through(&all).noise_permille, 45);
    }
}
