//! From values to places on a page: scales, their ticks, and how values are written there.
//!
//! Pure arithmetic; draws nothing.

use crate::units;

/// Ticks that an axis has, about.
const TICKS_WANTED: f64 = 5.0;

/// Powers of ten that a logarithmic axis spans, at most: what is lower is drawn at its foot.
const DECADES_MAX: i32 = 9;

/// What an axis counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// Times.
    Seconds,
    /// Sizes.
    Bytes,
    /// Bytes a second.
    Rate,
    /// Anything that is counted.
    Count,
    /// Shares of one, as percent.
    Share,
    /// Processor cores.
    Cores,
}

impl Unit {
    /// A value as people read it.
    pub(crate) fn write(self, value: f64) -> String {
        match self {
            Self::Seconds if value == 0.0 => "0 s".into(),
            Self::Seconds => units::seconds(value),
            Self::Bytes => units::size(units::whole(value)),
            Self::Rate => units::rate(value),
            Self::Share => format!("{}%", trimmed(value * 100.0)),
            Self::Count | Self::Cores => trimmed(value),
        }
    }

    /// Steps of sizes and rates are powers of two.
    fn is_binary(self) -> bool {
        matches!(self, Self::Bytes | Self::Rate)
    }
}

/// Without needless zeros, thousands apart.
pub(crate) fn trimmed(value: f64) -> String {
    if value.abs() >= 10_000.0 {
        return units::thousands(units::whole(value.abs()));
    }
    let text = match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// An axis: a range of values on a range of places.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// From `low` to at least `high`, evenly.
    pub(crate) fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        let high = if high > low && high.is_finite() { high } else { low + 1.0 };
        Self { low, high, is_log: false, from, to }
    }

    /// From the power of ten below `low` to the one above `high`.
    pub(crate) fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        let high = if high > 0.0 && high.is_finite() { high } else { 1.0 };
        let top = 10f64.powf(high.log10().ceil());
        let least = top / 10f64.powi(DECADES_MAX);
        let low = if low > 0.0 && low < high { low.max(least) } else { high / 10.0 };
        let bottom = 10f64.powf(low.log10().floor()).min(top / 10.0);
        Self { low: bottom, high: top, is_log: true, from, to }
    }

    /// The place of a value; values outside are at the edge.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.is_log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// Values to be marked.
    pub(crate) fn ticks(&self, unit: Unit) -> Vec<f64> {
        if self.is_log {
            let count = (self.high / self.low).log10().round();
            return (0..=DECADES_MAX)
                .take_while(|&decade| f64::from(decade) <= count)
                .map(|decade| self.low * 10f64.powi(decade))
                .collect();
        }
        let step = step(self.high - self.low, unit);
        let first = (self.low / step).ceil();
        (0..20)
            .map(|n| (first + f64::from(n)) * step)
            .take_while(|&tick| tick <= self.high * (1.0 + 1e-9))
            .collect()
    }
}

/// A step that reads well, so that a range has about [`TICKS_WANTED`] of them.
fn step(range: f64, unit: Unit) -> f64 {
    let rough = range / TICKS_WANTED;
    if unit.is_binary() {
        return rough.log2().ceil().max(0.0).exp2();
    }
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().find(|s| s * power >= rough).unwrap_or(10.0) * power;
    if unit == Unit::Count { step.max(1.0) } else { step }
}

/// The end of an axis that begins at zero and has room for `high`: a tick, or just above the value.
pub(crate) fn round_up(high: f64, unit: Unit) -> f64 {
    if high <= 0.0 || !high.is_finite() {
        return 1.0;
    }
    let step = step(high, unit);
    (high / step * 0.999).ceil() * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_read_well_and_lie_within_the_axis() {
        for (high, unit, last) in [
            (2.38, Unit::Seconds, 2.0),
            (100.0, Unit::Count, 100.0),
            (3.0, Unit::Count, 3.0),
            (128.0 * 1024.0, Unit::Bytes, 128.0 * 1024.0),
            (1.0, Unit::Share, 1.0),
        ] {
            let ticks = Scale::linear(0.0, high, 0.0, 1.0).ticks(unit);
            assert!((3..=12).contains(&ticks.len()), "{high}: {ticks:?}");
            assert!((ticks.last().unwrap() - last).abs() < 1e-9, "{high}: {ticks:?}");
        }
        let ticks = Scale::log(0.002, 3.0, 0.0, 1.0).ticks(Unit::Seconds);
        assert_eq!(ticks.len(), 5, "{ticks:?}");
    }

    #[test]
    fn places_grow_with_values_and_stay_on_the_axis() {
        for scale in [Scale::linear(0.0, 10.0, 300.0, 20.0), Scale::log(0.1, 1000.0, 300.0, 20.0)] {
            assert_eq!(scale.place(-5.0), 300.0);
            assert_eq!(scale.place(1e9), 20.0);
            assert!(scale.place(2.0) > scale.place(3.0));
        }
    }

    #[test]
    fn ranges_of_nothing_are_axes_all_the_same() {
        for scale in [
            Scale::linear(0.0, 0.0, 0.0, 1.0),
            Scale::linear(0.0, f64::NAN, 0.0, 1.0),
            Scale::log(0.0, 0.0, 0.0, 1.0),
            Scale::log(f64::NAN, f64::INFINITY, 0.0, 1.0),
            Scale::log(1e-30, 1e3, 0.0, 1.0),
        ] {
            assert!(scale.place(0.5).is_finite());
            assert!(scale.ticks(Unit::Seconds).len() < 20);
        }
        assert_eq!(round_up(0.0, Unit::Count), 1.0);
        assert_eq!(round_up(2.38, Unit::Seconds), 2.5);
        assert_eq!(round_up(100.0, Unit::Count), 100.0);
    }

    #[test]
    fn values_are_written_without_needless_digits() {
        assert_eq!(Unit::Share.write(0.5), "50%");
        assert_eq!(Unit::Count.write(20_000.0), "20,000");
        assert_eq!(Unit::Seconds.write(0.0), "0 s");
        assert_eq!(Unit::Cores.write(0.25), "0.25");
    }
}
