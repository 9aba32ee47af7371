//! Maps of cells: rows by columns, the darker the more.
//!
//! Neighbours of one colour in a column become one piece, and all pieces of a colour one path, so
//! that a map of thousands of cells stays small.

use std::fmt::Write;

use super::{Figure, LEVELS, WIDTH_NARROW, escape};

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 40.0;
/// Of the cells all together: a row is as high as there is room for.
const CELLS_HEIGHT: std::ops::RangeInclusive<f64> = 120.0..=420.0;
const ROW_HEIGHT: f64 = 8.0;

/// A map.
#[derive(Clone, Debug)]
pub(crate) struct HeatMap<'a> {
    pub(crate) title: &'a str,
    pub(crate) text: String,
    /// What rows are, with the first and the last one's name.
    pub(crate) rows: (&'a str, String, String),
    /// What columns are, with the first and the last one's name.
    pub(crate) columns: (&'a str, String, String),
    pub(crate) column_count: usize,
    /// Row by row, from the top; not a number where there is nothing.
    pub(crate) cells: &'a [f64],
    /// What the darkest shade stands for, and how the lightest and the darkest are called.
    pub(crate) most: f64,
    pub(crate) shades: (String, String),
}

impl HeatMap<'_> {
    /// The picture with its words.
    pub(crate) fn draw(&self) -> Figure {
        Figure {
            title: self.title.into(),
            text: self.text.clone(),
            legend: Vec::new(),
            svg: self.svg(WIDTH),
            svg_narrow: self.svg(WIDTH_NARROW),
            is_wide: true,
        }
    }

    fn svg(&self, width: f64) -> String {
        let row_count = self.cells.len() / self.column_count.max(1);
        let height =
            (row_count as f64 * ROW_HEIGHT).clamp(*CELLS_HEIGHT.start(), *CELLS_HEIGHT.end());
        let (cell_width, cell_height) = (
            (width - LEFT - RIGHT) / self.column_count.max(1) as f64,
            height / row_count.max(1) as f64,
        );
        let mut paths = vec![String::new(); LEVELS];
        for column in 0..self.column_count {
            let level = |row: usize| level(self.cells[row * self.column_count + column], self.most);
            let mut row = 0;
            while row < row_count {
                let first = row;
                while row < row_count && level(row) == level(first) {
                    row += 1;
                }
                if let Some(level) = level(first) {
                    let x = LEFT + column as f64 * cell_width;
                    let y = TOP + first as f64 * cell_height;
                    let piece = (row - first) as f64 * cell_height;
                    // A hair wider, or the seams show.
                    let wide = cell_width + 0.3;
                    write!(paths[level], "M{x:.1} {y:.1}h{wide:.1}v{piece:.1}h-{wide:.1}z")
                        .expect("text grows");
                }
            }
        }
        let cells: String = paths
            .iter()
            .enumerate()
            .filter(|(_, path)| !path.is_empty())
            .map(|(level, path)| format!("<path class=\"h{level}\" d=\"{path}\"/>\n"))
            .collect();
        format!(
            "<svg viewBox=\"0 0 {width} {total}\" role=\"img\" aria-label=\"{label}\">\n{cells}{axes}</svg>",
            total = TOP + height + BOTTOM,
            label = escape(&format!("{}: {}", self.title, self.text)),
            axes = self.axes(width, height),
        )
    }

    fn axes(&self, width: f64, height: f64) -> String {
        let (rows, columns) = (&self.rows, &self.columns);
        let foot = TOP + height;
        let mut svg = String::new();
        let mut text = |x: f64, y: f64, anchor: &str, text: &str| {
            let text = escape(text);
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
                .expect("text grows");
        };
        text(4.0, 11.0, "start", rows.0);
        text(LEFT - 7.0, TOP + 10.0, "end", &rows.1);
        text(LEFT - 7.0, foot - 2.0, "end", &rows.2);
        text(LEFT, foot + 17.0, "start", &columns.1);
        text(width - RIGHT, foot + 17.0, "end", &columns.2);
        text(width - RIGHT, foot + 34.0, "end", columns.0);
        // The shades, in the middle below; on a narrow page to the left.
        let (left, shade) = if width == WIDTH { (WIDTH / 2.0 - 88.0, 22.0) } else { (46.0, 12.0) };
        text(left - 8.0, foot + 27.0, "end", &self.shades.0);
        text(left + shade * LEVELS as f64 + 8.0, foot + 27.0, "start", &self.shades.1);
        for level in 0..LEVELS {
            let x = left + shade * level as f64;
            let y = foot + 18.0;
            writeln!(
                svg,
                "<rect class=\"h{level}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{shade}\" height=\"10\"/>"
            )
            .expect("text grows");
        }
        svg
    }
}

/// The shade of a value; none for what is not a number.
pub(crate) fn level(value: f64, most: f64) -> Option<usize> {
    if !value.is_finite() {
        return None;
    }
    let share = if most > 0.0 { value / most } else { 0.0 };
    // As many equal steps as there are shades.
    (0..LEVELS).rev().find(|&level| share >= level as f64 / LEVELS as f64).or(Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(cells: &[f64], column_count: usize) -> String {
        let name = || String::from("name");
        HeatMap {
            title: "t",
            text: name(),
            rows: ("rows", name(), name()),
            columns: ("columns", name(), name()),
            column_count,
            cells,
            most: 1.0,
            shades: (name(), name()),
        }
        .draw()
        .svg
    }

    #[test]
    fn shades_are_equal_steps_from_nothing_to_the_most() {
        assert_eq!(level(0.0, 2.0), Some(0));
        assert_eq!(level(0.99, 2.0), Some(3));
        assert_eq!(level(2.0, 2.0), Some(LEVELS - 1));
        assert_eq!(level(9.0, 2.0), Some(LEVELS - 1));
        assert_eq!(level(-1.0, 2.0), Some(0));
        assert_eq!(level(f64::NAN, 2.0), None);
    }

    #[test]
    fn equal_neighbours_of_a_column_are_one_piece_and_gaps_stay_gaps() {
        // Two columns: one all alike, one with a gap in the middle.
        let svg = map(&[0.0, 1.0, 0.0, f64::NAN, 0.0, 1.0], 2);
        let pieces = |class: &str| {
            let line = svg.lines().find(|line| line.contains(&format!("path class=\"{class}\"")));
            line.map_or(0, |line| line.matches('M').count())
        };
        assert_eq!((pieces("h0"), pieces("h7")), (1, 2));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn a_map_without_cells_is_drawn() {
        assert!(map(&[], 0).ends_with("</svg>"));
    }
}
