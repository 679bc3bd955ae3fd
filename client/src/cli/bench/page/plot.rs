//! Drawing in SVG: axes, lines and bars, as text that a browser shows without any script.
//!
//! Colours are the page's CSS variables, so that a drawing follows its reader's light or dark.

use std::fmt::Write;

/// Where a drawing's parts are, in its own units; it is scaled to the page's width.
pub(super) const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Values of an axis that are named.
const TICKS_AIM: f64 = 5.0;

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From 0.
    Linear { most: f64 },
    /// By their logarithm, between whole powers of ten.
    Log { least: f64, most: f64 },
}

/// A value of an axis that is named.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) name: String,
}

/// A drawing under way.
pub(super) struct Plot {
    svg: String,
    across: Scale,
    up: Scale,
}

impl Scale {
    /// Up to the next round number.
    pub(super) fn linear(most: f64) -> Self {
        let most = most.max(1.0);
        let step = step(most);
        Self::Linear {
            most: (most / step).ceil() * step,
        }
    }

    /// From the power of ten below `least` to the one above `most`.
    pub(super) fn log(least: f64, most: f64) -> Self {
        let least = least.max(1.0).log10().floor();
        let most = most.max(1.0).log10().ceil().max(least + 1.0);
        Self::Log {
            least: 10f64.powf(least),
            most: 10f64.powf(most),
        }
    }

    /// From 0 to 1 along the axis; what is outside is at its end.
    fn share(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { most } => value / most,
            Self::Log { least, most } => {
                (value.max(least) / least).log10() / (most / least).log10()
            }
        };
        share.clamp(0.0, 1.0)
    }

    /// Round values, each with its name.
    pub(super) fn ticks(self, name: impl Fn(f64) -> String) -> Vec<Tick> {
        let mut values = Vec::new();
        match self {
            Self::Linear { most } => {
                let step = step(most);
                let mut number = 0.0;
                while number * step <= most * 1.000_001 {
                    values.push(number * step);
                    number += 1.0;
                }
            }
            Self::Log { least, most } => {
                let mut decade = least;
                while decade <= most * 1.000_001 {
                    values.push(decade);
                    decade *= 10.0;
                }
            }
        }
        let tick = |at| Tick { at, name: name(at) };
        values.into_iter().map(tick).collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that an axis has about five of them.
fn step(most: f64) -> f64 {
    let rough = most / TICKS_AIM;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let enough = steps.iter().find(|step| **step * power >= rough);
    (enough.unwrap_or(&10.0) * power).max(1.0)
}

impl Plot {
    /// An empty one; `told` says in words what is drawn. Both are HTML already.
    pub(super) fn new((id, title, told): (&str, &str, &str), across: Scale, up: Scale) -> Self {
        let svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{told}</desc>\n"
        );
        Self { svg, across, up }
    }

    /// Names the values of both axes, with lines across.
    pub(super) fn axes(&mut self, across: &[Tick], up: &[Tick], label: &str) {
        for tick in up {
            let y = self.y(tick.at);
            self.add(format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"></line>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                tick.name
            ));
        }
        let foot = HEIGHT - BOTTOM;
        for tick in across {
            let x = self.x(tick.at);
            self.add(format_args!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{foot}\"></line>\
                 <text class=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>\n",
                foot + 16.0,
                tick.name
            ));
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        self.add(format_args!(
            "<text class=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{label}</text>\n",
            HEIGHT - 6.0
        ));
    }

    /// A line through points; none where there is no value.
    pub(super) fn line(&mut self, class: &str, points: &[(f64, Option<f64>)]) {
        let mut path = String::new();
        let mut is_down = false;
        for (x, y) in points {
            let Some(y) = y else {
                is_down = false;
                continue;
            };
            let (command, x, y) = (if is_down { 'L' } else { 'M' }, self.x(*x), self.y(*y));
            let _infallible = write!(path, "{command}{x:.1} {y:.1}");
            if !is_down {
                // A point on its own is a dot.
                let _infallible = write!(path, "h0.1");
            }
            is_down = true;
        }
        if !path.is_empty() {
            self.add(format_args!(
                "<path class=\"{class}\" d=\"{path}\"></path>\n"
            ));
        }
    }

    /// A line across at one value, with its name.
    pub(super) fn mark(&mut self, value: f64, name: &str) {
        let y = self.y(value);
        self.add(format_args!(
            "<line class=\"mark\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"></line>\
             <text x=\"{:.1}\" y=\"{:.1}\">{name}</text>\n",
            WIDTH - RIGHT,
            LEFT + 6.0,
            y - 4.0
        ));
    }

    /// A bar between two values of each axis.
    pub(super) fn bar(&mut self, class: &str, (from, to): (f64, f64), (low, high): (f64, f64)) {
        let (x, y) = (self.x(from), self.y(high));
        // A hair of room between neighbours, as long as they are wider than that.
        let width = (self.x(to) - x - 0.5).max(0.5);
        let height = self.y(low) - y;
        if height > 0.0 {
            self.add(format_args!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.2}\" width=\"{width:.1}\" height=\"{height:.2}\"></rect>\n"
            ));
        }
    }

    pub(super) fn end(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.across.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let height = HEIGHT - TOP - BOTTOM;
        TOP + (1.0 - self.up.share(value)) * height
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        let _infallible = self.svg.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(scale: Scale) -> Vec<String> {
        let ticks = scale.ticks(|value| format!("{value}"));
        ticks.into_iter().map(|tick| tick.name).collect()
    }

    #[test]
    fn axes_end_at_round_numbers_and_name_some() {
        assert_eq!(
            names(Scale::linear(1_930.0)),
            ["0", "500", "1000", "1500", "2000"]
        );
        assert_eq!(names(Scale::linear(3.0)), ["0", "1", "2", "3"]);
        assert_eq!(names(Scale::linear(0.0)), ["0", "1"]);
        assert_eq!(
            names(Scale::log(1_500.0, 90_000.0)),
            ["1000", "10000", "100000"]
        );
        assert_eq!(names(Scale::log(10.0, 10.0)), ["10", "100"]);
    }

    #[test]
    fn what_is_outside_is_drawn_at_the_edge() {
        let log = Scale::log(1_000.0, 100_000.0);
        assert!((log.share(10_000.0) - 0.5).abs() < 1e-9);
        assert_eq!((log.share(1.0), log.share(1e9)), (0.0, 1.0));
        let scale = Scale::linear(10.0);
        let mut plot = Plot::new(("a", "b", "c"), scale, scale);
        plot.line("p99", &[(0.0, Some(1.0)), (1.0, None), (2.0, Some(99.0))]);
        let drawn = plot.end();
        assert_eq!(drawn.matches('M').count(), 2, "a gap is a gap: {drawn}");
        assert!(!drawn.contains("NaN"));
    }
}
