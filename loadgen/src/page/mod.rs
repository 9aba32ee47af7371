//! A page to look at: one file of HTML with its pictures (SVG) and style in it, which loads nothing.
//!
//! ```text
//!  scale    values to places, ticks
//!  chart    lines, bands, bars, dots between two axes
//!  heat     maps of cells
//!  mod      the page around them
//! ```
//!
//! Colours are classes, and the style gives each its value for light and for dark. No script runs:
//! what there is to read is on the page, the rest in the files beside it.

pub(crate) mod chart;
pub(crate) mod heat;
pub(crate) mod scale;

use std::fmt::Write;

/// A figure's width on a page as narrow as a telephone: texts stay as large as they are.
const WIDTH_NARROW: f64 = 330.0;

/// Shades of a map; the style has a class for each.
pub(crate) const LEVELS: usize = 8;

/// Given to the page as it is.
const STYLE: &str = include_str!("style.css");

/// What the page is allowed: its own style. A browser then refuses everything else, even if some
/// text were to find its way in.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// A page that grows from top to bottom.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    title: String,
    body: String,
}

/// A figure that says one thing.
#[derive(Clone, Debug)]
pub(crate) struct Tile {
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) note: String,
}

impl Tile {
    /// With a name, a value, and a remark that may be empty.
    pub(crate) fn new(label: &str, value: impl Into<String>, note: impl Into<String>) -> Self {
        Self { label: label.into(), value: value.into(), note: note.into() }
    }
}

impl Page {
    /// With a heading and a line below it.
    pub(crate) fn new(title: &str, subtitle: &str) -> Self {
        let body = format!(
            "<header><h1>{}</h1>\n<p class=\"sub\">{}</p></header>\n",
            escape(title),
            escape(subtitle)
        );
        Self { title: title.into(), body }
    }

    /// A line that says whether all is well.
    pub(crate) fn verdict(&mut self, is_good: bool, text: &str) {
        let (class, sign) = if is_good { ("good", "✓") } else { ("bad", "✗") };
        let text = escape(text);
        self.push(&format!("<p class=\"verdict {class}\"><span>{sign}</span> {text}</p>\n"));
    }

    /// A row of figures.
    pub(crate) fn tiles(&mut self, tiles: &[Tile]) {
        self.push("<dl class=\"tiles\">\n");
        for Tile { label, value, note } in tiles {
            let note = match note.as_str() {
                "" => String::new(),
                note => format!("<dd class=\"note\">{}</dd>", escape(note)),
            };
            let (label, value) = (escape(label), escape(value));
            self.push(&format!("<div><dt>{label}</dt><dd>{value}</dd>{note}</div>\n"));
        }
        self.push("</dl>\n");
    }

    /// A heading within the page.
    pub(crate) fn heading(&mut self, text: &str) {
        self.push(&format!("<h2>{}</h2>\n", escape(text)));
    }

    /// A paragraph.
    pub(crate) fn text(&mut self, text: &str) {
        self.push(&format!("<p>{}</p>\n", escape(text)));
    }

    /// A list of sentences.
    pub(crate) fn list(&mut self, lines: &[String]) {
        self.push("<ul>\n");
        lines.iter().for_each(|line| self.push(&format!("<li>{}</li>\n", escape(line))));
        self.push("</ul>\n");
    }

    /// Pictures beside each other, as many as fit.
    pub(crate) fn figures(&mut self, figures: &[Figure]) {
        self.push("<div class=\"figures\">\n");
        for figure in figures.iter() {
            let class = if figure.is_wide { " class=\"wide\"" } else { "" };
            let (title, text) = (escape(&figure.title), escape(&figure.text));
            let legend = legend(&figure.legend);
            // One of the two is shown, by the width of the page.
            let plot = match figure.svg_narrow.as_str() {
                "" => figure.svg.clone(),
                narrow => format!(
                    "<div class=\"roomy\">{}</div><div class=\"tight\">{narrow}</div>",
                    figure.svg
                ),
            };
            self.push(&format!(
                "<figure{class}>\n<figcaption><h3>{title}</h3><p>{text}</p>{legend}</figcaption>\n\
                 <div class=\"plot\">{plot}</div>\n</figure>\n"
            ));
        }
        self.push("</div>\n");
    }

    /// A table behind a line that opens it. The first column is a name, the others are figures.
    pub(crate) fn table(&mut self, summary: &str, head: &[&str], rows: &[Vec<String>]) {
        let summary = escape(summary);
        self.push(&format!("<details><summary>{summary}</summary>\n"));
        self.push(&format!("<div class=\"plot\">{}</div></details>\n", table(head, rows)));
    }

    /// Text as it would stand in a terminal.
    pub(crate) fn verbatim(&mut self, text: &str) {
        self.push(&format!("<pre class=\"plot\">{}</pre>\n", escape(text)));
    }

    /// Links to files beside the page.
    pub(crate) fn links(&mut self, before: &str, names: &[String]) {
        let links: Vec<String> =
            names.iter().map(|n| format!("<a href=\"{0}\">{0}</a>", escape(n))).collect();
        self.push(&format!("<p class=\"sub\">{} {}</p>\n", escape(before), links.join(" · ")));
    }

    /// The whole page.
    pub(crate) fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n\
             </body>\n</html>\n",
            escape(&self.title),
            self.body
        )
    }

    fn push(&mut self, html: &str) {
        self.body.push_str(html);
    }
}

/// A picture with its words.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) title: String,
    /// What is to be seen.
    pub(crate) text: String,
    /// Names of what is drawn, by the class of its colour.
    pub(crate) legend: Vec<(String, String)>,
    pub(crate) svg: String,
    /// The figure for a narrow page; nothing if that takes the first one as well.
    pub(crate) svg_narrow: String,
    /// Takes the whole width.
    pub(crate) is_wide: bool,
}

fn legend(entries: &[(String, String)]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let mut html = String::from("<ul class=\"legend\">");
    for (class, name) in entries {
        let (class, name) = (escape(class), escape(name));
        write!(html, "<li><i class=\"{class}\"></i>{name}</li>").expect("text grows");
    }
    html + "</ul>"
}

/// On a narrow page each row is a list, in which each cell has its column's name.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let names: String = head.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
    let mut html = format!("<table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n");
    for row in rows {
        let cell = |(text, name): (&String, &&str)| {
            let (text, name) = (escape(text), escape(name));
            format!("<td data-name=\"{name}\">{text}</td>")
        };
        let cells: String = row.iter().zip(head).map(cell).collect();
        writeln!(html, "<tr>{cells}</tr>").expect("text grows");
    }
    html + "</tbody></table>"
}

impl Figure {
    /// A table in the place of a picture.
    pub(crate) fn of_table(title: &str, text: &str, head: &[&str], rows: &[Vec<String>]) -> Self {
        Self {
            title: title.into(),
            text: text.into(),
            legend: Vec::new(),
            svg: table(head, rows),
            svg_narrow: String::new(),
            is_wide: false,
        }
    }
}

/// Text that means nothing to a browser, in elements and in attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_written_on_a_page_is_markup() {
        let evil = "<script>alert('&\"')</script>";
        let mut page = Page::new(evil, evil);
        page.verdict(true, evil);
        page.tiles(&[Tile::new(evil, evil, evil)]);
        page.heading(evil);
        page.text(evil);
        page.list(&[evil.into()]);
        page.table(evil, &[evil], &[vec![evil.into()]]);
        page.verbatim(evil);
        page.links(evil, &[evil.into()]);
        page.figures(&[Figure {
            title: evil.into(),
            text: evil.into(),
            legend: vec![(evil.into(), evil.into())],
            svg: String::new(),
            svg_narrow: String::new(),
            is_wide: false,
        }]);
        page.figures(&[Figure::of_table(evil, evil, &[evil], &[vec![evil.into()]])]);
        let html = page.finish();
        assert!(!html.contains("<script"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"));
    }
}
