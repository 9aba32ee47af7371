//! Charts: marks between two axes, as SVG.
//!
//! A chart is told what to draw and chooses its axes so that all of it fits.

use std::fmt::Write;

use super::{
    Figure, LEVELS, WIDTH_NARROW, escape,
    scale::{Scale, Unit, round_up},
};

/// Of a chart that takes half of the page, and of one that takes all of it.
const WIDTHS: [f64; 2] = [560.0, 1160.0];
const HEIGHT: f64 = 270.0;
/// What is left free around the marks: for the axes' texts.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 40.0;

/// Points of one line, at most: more than a screen has columns would only grow the page.
const POINTS_MAX: usize = 600;

/// Two lines that are nowhere further apart look like one.
const APART_MIN: f64 = 5.0;

/// Room that a text of an axis takes, by its letters.
const LETTER_WIDTH: f64 = 6.4;

/// One axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) unit: Unit,
    pub(crate) is_log: bool,
    /// Reaches at least to here.
    pub(crate) reach: Option<f64>,
    /// Names at places, instead of ticks.
    pub(crate) names: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to what there is.
    pub(crate) fn new(label: &str, unit: Unit) -> Self {
        Self { label: label.into(), unit, is_log: false, reach: None, names: Vec::new() }
    }

    /// By powers of ten.
    pub(crate) fn log(label: &str, unit: Unit) -> Self {
        Self { is_log: true, ..Self::new(label, unit) }
    }

    /// At least to here.
    pub(crate) fn to(self, reach: f64) -> Self {
        Self { reach: Some(reach), ..self }
    }

    fn scale(
        &self,
        values: impl Iterator<Item = f64>,
        from: f64,
        to: f64,
        is_rounded: bool,
    ) -> Scale {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in
            values.chain(self.reach).filter(|v| v.is_finite() && (!self.is_log || *v > 0.0))
        {
            (low, high) = (low.min(value), high.max(value));
        }
        match (self.is_log, is_rounded) {
            (true, _) => Scale::log(low, high, from, to),
            (false, true) => Scale::linear(0.0, round_up(high, self.unit), from, to),
            (false, false) => Scale::linear(0.0, high, from, to),
        }
    }

    /// What it counts, and that it does so by powers of ten.
    fn caption(&self) -> String {
        match (self.is_log, self.label.as_str()) {
            (false, label) => label.into(),
            (true, "") => "logarithmic".into(),
            (true, label) => format!("{label} (logarithmic)"),
        }
    }

    fn ticks(&self, scale: &Scale) -> Vec<(f64, String)> {
        if !self.names.is_empty() {
            return self.names.clone();
        }
        let ticks = scale.ticks(self.unit);
        ticks.into_iter().map(|tick| (tick, self.unit.write(tick))).collect()
    }
}

/// What is drawn; `class` is its colour.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    /// Through points, with a gap where a value is not a number.
    Line { class: &'static str, points: Vec<(f64, f64)> },
    /// A line so thin that a hundred of them can be seen.
    Thin { class: &'static str, points: Vec<(f64, f64)> },
    /// Between two lines: x, low, high.
    Band { class: &'static str, points: Vec<(f64, f64, f64)>, is_solid: bool },
    /// From the foot of the chart: from x, to x, high, what it says.
    Bars { class: &'static str, bars: Vec<(f64, f64, f64, String)> },
    /// Points with what each says.
    Dots { class: &'static str, dots: Vec<(f64, f64, String)> },
    /// A line from top to bottom with a name.
    Upright { class: &'static str, x: f64, name: String },
    /// Cells behind the rest: x, width, y, height, darkness from 0 to 7.
    Cells { cells: Vec<(f64, f64, f64, f64, usize)> },
}

/// A chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) marks: Vec<Mark>,
    pub(crate) legend: Vec<(&'static str, String)>,
    pub(crate) is_wide: bool,
}

impl Chart {
    /// Of nothing yet.
    pub(crate) fn new(title: &str, text: impl Into<String>, x: Axis, y: Axis) -> Self {
        let (marks, legend) = (Vec::new(), Vec::new());
        Self { title: title.into(), text: text.into(), x, y, marks, legend, is_wide: false }
    }

    /// One more mark, without a name.
    pub(crate) fn mark(mut self, mark: Mark) -> Self {
        self.marks.push(mark);
        self
    }

    /// One more line, with a name.
    pub(crate) fn line(self, class: &'static str, name: &str, points: Vec<(f64, f64)>) -> Self {
        self.named(class, name).mark(Mark::Line { class, points })
    }

    /// A name of a colour.
    pub(crate) fn named(mut self, class: &'static str, name: &str) -> Self {
        self.legend.push((class, name.into()));
        self
    }

    /// Takes the whole width.
    pub(crate) fn wide(self) -> Self {
        Self { is_wide: true, ..self }
    }

    /// The picture with its words.
    pub(crate) fn draw(&self) -> Figure {
        Figure {
            title: self.title.clone(),
            text: self.text.clone(),
            legend: self
                .legend
                .iter()
                .map(|(class, name)| ((*class).into(), name.clone()))
                .collect(),
            svg: self.svg(WIDTHS[usize::from(self.is_wide)]),
            svg_narrow: self.svg(WIDTH_NARROW),
            is_wide: self.is_wide,
        }
    }

    fn svg(&self, width: f64) -> String {
        let x = self.x.scale(self.values(|x, _| x), LEFT, width - RIGHT, false);
        let y = self.y.scale(self.values(|_, y| y), HEIGHT - BOTTOM, TOP, true);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&format!("{}: {}", self.title, self.text))
        );
        // Cells lie behind the grid.
        let (behind, above): (Vec<&Mark>, Vec<&Mark>) =
            self.marks.iter().partition(|mark| matches!(mark, Mark::Cells { .. }));
        behind.iter().for_each(|mark| draw_mark(&mut svg, mark, &x, &y));
        self.draw_axes(&mut svg, &x, &y, width);
        above.iter().for_each(|mark| draw_mark(&mut svg, mark, &x, &y));
        svg.push_str("</svg>");
        svg
    }

    /// Whether two of its lines lie so close to each other all along that only one of them is seen.
    pub(crate) fn hides_lines(&self) -> bool {
        let y = self.y.scale(self.values(|_, y| y), HEIGHT - BOTTOM, TOP, true);
        let lines = self.marks.iter().filter_map(|mark| match mark {
            Mark::Line { points, .. } => Some(points),
            _ => None,
        });
        let lines: Vec<&Vec<(f64, f64)>> = lines.collect();
        let is_hidden = |a: &[(f64, f64)], b: &[(f64, f64)]| {
            let at = |x: f64| b.iter().find(|point| point.0 == x).map(|point| point.1);
            let pairs = a.iter().filter_map(|&(x, value)| Some((value, at(x)?)));
            let pairs: Vec<(f64, f64)> =
                pairs.filter(|(a, b)| a.is_finite() && b.is_finite()).collect();
            let is_near = |&(a, b): &(f64, f64)| (y.place(a) - y.place(b)).abs() < APART_MIN;
            pairs.len() > 1 && pairs.iter().all(is_near)
        };
        lines.iter().enumerate().any(|(n, a)| lines[n + 1..].iter().any(|b| is_hidden(a, b)))
    }

    /// All values that must fit on one axis.
    fn values<'a>(&'a self, pick: impl Fn(f64, f64) -> f64 + 'a) -> impl Iterator<Item = f64> + 'a {
        let points = |mark: &Mark| -> Vec<(f64, f64)> {
            match mark {
                Mark::Line { points, .. } | Mark::Thin { points, .. } => points.clone(),
                Mark::Band { points, .. } => {
                    points.iter().flat_map(|&(x, low, high)| [(x, low), (x, high)]).collect()
                }
                Mark::Bars { bars, .. } => bars
                    .iter()
                    .flat_map(|&(from, to, high, _)| [(from, high), (to, high)])
                    .collect(),
                Mark::Dots { dots, .. } => dots.iter().map(|&(x, y, _)| (x, y)).collect(),
                Mark::Upright { x, .. } => vec![(*x, f64::NAN)],
                Mark::Cells { cells } => cells
                    .iter()
                    .flat_map(|&(x, width, y, height, _)| [(x, y), (x + width, y + height)])
                    .collect(),
            }
        };
        self.marks.iter().flat_map(points).map(move |(x, y)| pick(x, y))
    }

    fn draw_axes(&self, svg: &mut String, x: &Scale, y: &Scale, width: f64) {
        let foot = HEIGHT - BOTTOM;
        for (value, name) in self.y.ticks(y) {
            let at = y.place(value);
            push(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                    width - RIGHT,
                    LEFT - 7.0,
                    at + 4.0,
                    escape(&name)
                ),
            );
        }
        push(
            svg,
            format_args!(
                "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{foot}\" y2=\"{foot}\"/>\n",
                width - RIGHT
            ),
        );
        let mut free_from = f64::NEG_INFINITY;
        for (value, name) in self.x.ticks(x) {
            // The text stays within the picture, and clear of the one before.
            let half = name.chars().count() as f64 * LETTER_WIDTH / 2.0;
            let at = x.place(value);
            let middle = at.min(width - half - 5.0);
            if middle - half < free_from {
                continue;
            }
            free_from = middle + half + LETTER_WIDTH;
            push(
                svg,
                format_args!(
                    "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{foot}\" y2=\"{:.1}\"/>\
                 <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                    foot + 4.0,
                    foot + 17.0,
                    escape(&name)
                ),
            );
        }
        push(
            svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"4\" y=\"11\">{}</text>\n",
                width - RIGHT,
                HEIGHT - 6.0,
                escape(&self.x.caption()),
                escape(&self.y.caption())
            ),
        );
    }
}

fn draw_mark(svg: &mut String, mark: &Mark, x: &Scale, y: &Scale) {
    match mark {
        Mark::Line { class, points } => draw_line(svg, class, "line", points, x, y),
        Mark::Thin { class, points } => draw_line(svg, class, "thin", points, x, y),
        Mark::Band { class, points, is_solid } => {
            let kind = if *is_solid { "solid" } else { "area" };
            let upper = points.iter().map(|&(px, _, high)| (px, high));
            let lower = points.iter().rev().map(|&(px, low, _)| (px, low));
            let path = path(upper.chain(lower).filter(|p| p.1.is_finite()), x, y);
            if !path.is_empty() {
                push(svg, format_args!("<path class=\"{class} {kind}\" d=\"{path}Z\"/>\n"));
            }
        }
        Mark::Bars { class, bars } => draw_bars(svg, class, bars, x, y),
        Mark::Dots { class, dots } => {
            for (dx, dy, says) in dots.iter().filter(|dot| dot.1.is_finite()) {
                push(
                    svg,
                    format_args!(
                        "<circle class=\"{class} dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\">\
                     <title>{}</title></circle>\n",
                        x.place(*dx),
                        y.place(*dy),
                        escape(says)
                    ),
                );
            }
        }
        Mark::Upright { class, x: value, name } => {
            let (at, foot) = (x.place(*value), HEIGHT - BOTTOM);
            push(
                svg,
                format_args!(
                    "<line class=\"{class} rule\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" \
                 y2=\"{foot}\"/><text class=\"strong\" x=\"{at:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{}</text>\n",
                    TOP - 6.0,
                    escape(name)
                ),
            );
        }
        Mark::Cells { cells } => draw_cells(svg, cells, x, y),
    }
}

fn draw_line(
    svg: &mut String,
    class: &str,
    kind: &str,
    points: &[(f64, f64)],
    x: &Scale,
    y: &Scale,
) {
    // Every n-th is enough, and the last.
    let every = points.len().div_ceil(POINTS_MAX).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.iter().enumerate().filter(|(n, _)| n % every == 0 || *n == last);
    let kept: Vec<(f64, f64)> = kept.map(|(_, &point)| point).collect();
    let runs = kept.split(|point| !point.1.is_finite());
    let path: String = runs.map(|run| path(run.iter().copied(), x, y)).collect();
    if !path.is_empty() {
        push(svg, format_args!("<path class=\"{class} {kind}\" d=\"{path}\"/>\n"));
    }
}

fn path(points: impl Iterator<Item = (f64, f64)>, x: &Scale, y: &Scale) -> String {
    let mut path = String::new();
    for (n, (px, py)) in points.enumerate() {
        let letter = if n == 0 { 'M' } else { 'L' };
        push(&mut path, format_args!("{letter}{:.1} {:.1}", x.place(px), y.place(py)));
    }
    // A single point shows as a dot.
    if !path.is_empty() && !path.contains('L') { path + "h0.1" } else { path }
}

fn draw_bars(
    svg: &mut String,
    class: &str,
    bars: &[(f64, f64, f64, String)],
    x: &Scale,
    y: &Scale,
) {
    let foot = HEIGHT - BOTTOM;
    for (from, to, high, says) in bars.iter().filter(|bar| bar.2 > 0.0) {
        let (left, right, top) = (x.place(*from), x.place(*to), y.place(*high));
        push(
            svg,
            format_args!(
                "<rect class=\"{class} solid\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
             height=\"{:.1}\" rx=\"2\"><title>{}</title></rect>\n",
                (right - left).max(1.0),
                (foot - top).max(0.5),
                escape(says)
            ),
        );
    }
}

/// One path for each darkness: thousands of cells in a few kilobytes.
fn draw_cells(svg: &mut String, cells: &[(f64, f64, f64, f64, usize)], x: &Scale, y: &Scale) {
    for level in 0..LEVELS {
        let mut path = String::new();
        for (cx, width, cy, height, _) in cells.iter().filter(|cell| cell.4 == level) {
            let (left, right) = (x.place(*cx), x.place(cx + width));
            let (low, high) = (y.place(*cy), y.place(cy + height));
            push(&mut path, format_args!("M{left:.1} {high:.1}H{right:.1}V{low:.1}H{left:.1}Z"));
        }
        if !path.is_empty() {
            push(svg, format_args!("<path class=\"h{level}\" d=\"{path}\"/>\n"));
        }
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("text grows");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart::new("t", "t", Axis::new("x", Unit::Seconds), Axis::log("y", Unit::Seconds))
    }

    #[test]
    fn what_is_not_a_number_is_a_gap_and_never_in_the_picture() {
        let points =
            vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0), (4.0, f64::INFINITY)];
        let band = points.iter().map(|&(x, y)| (x, y / 2.0, y)).collect();
        let chart = chart()
            .line("s1", "a", points.clone())
            .mark(Mark::Thin { class: "s1", points: vec![(0.0, 0.0)] })
            .mark(Mark::Band { class: "s1", points: band, is_solid: false })
            .mark(Mark::Dots { class: "s2", dots: vec![(1.0, f64::NAN, "none".into())] });
        let svg = chart.draw().svg;
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let line = svg.lines().find(|line| line.contains("s1 line")).unwrap();
        assert_eq!(line.matches('M').count(), 2, "{line}");
    }

    #[test]
    fn lines_that_lie_on_each_other_are_noticed_and_an_axis_says_that_it_is_logarithmic() {
        let line = |y: f64| vec![(1.0, y), (2.0, y), (3.0, y)];
        let apart = chart().line("s1", "a", line(1.0)).line("s2", "b", line(2.0));
        assert!(!apart.hides_lines());
        assert!(apart.line("s3", "c", line(2.01)).hides_lines());
        let cross =
            chart().line("s1", "a", line(1.0)).line("s2", "b", vec![(1.0, 1.0), (2.0, 3.0)]);
        assert!(!cross.hides_lines());
        let mut chart = chart();
        chart.x = Axis::new("time", Unit::Seconds);
        chart.y = Axis::new("latency", Unit::Seconds);
        assert!(!chart.draw().svg.contains("logarithmic"));
        chart.y = Axis::log("latency", Unit::Seconds);
        assert!(chart.draw().svg.contains("latency (logarithmic)"));
    }

    #[test]
    fn a_chart_of_nothing_is_an_empty_picture() {
        let svg = chart().line("s1", "a", Vec::new()).draw().svg;
        assert!(!svg.contains("NaN") && svg.ends_with("</svg>"), "{svg}");
    }

    #[test]
    fn a_line_of_a_million_points_is_as_small_as_one_of_a_few() {
        let points = (0..1_000_000).map(|n| (f64::from(n), f64::from(n))).collect();
        let svg = chart().line("s1", "a", points).draw().svg;
        assert!(svg.len() < 20_000, "{}", svg.len());
    }

    #[test]
    fn texts_of_an_axis_never_overlap() {
        let mut chart = chart().line("s1", "a", vec![(0.0, 1.0), (10.0, 1.0)]);
        chart.x.names = (0..200).map(|n| (f64::from(n) / 20.0, format!("number {n}"))).collect();
        let count = chart.draw().svg.matches(">number ").count();
        assert!((3..=8).contains(&count), "{count}");
    }
}
