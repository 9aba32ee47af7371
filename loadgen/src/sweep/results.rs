//! What runs came to, kept in the sweep's directory by their flags.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{Analysis, Cell};

/// In the sweep's directory.
const FILE: &str = "results.json";

/// Results of another version of this program are not those of this one.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Figures that the CSV has of each run, by their place in its report.
const FIGURES: [&str; 16] = [
    "/clients",
    "/clients_verified",
    "/file_size_bytes",
    "/chunk_size_bytes",
    "/wall_seconds",
    "/seeding_seconds",
    "/exchange_seconds",
    "/goodput_bytes_per_second",
    "/client_seconds/p50",
    "/chunk_latency_seconds/mean",
    "/chunk_latency_seconds/p50",
    "/chunk_latency_seconds/p99",
    "/relay/cache_hits",
    "/relay/cache_misses",
    "/relay/ingress_amplification",
    "/relay/cpu_seconds",
];

/// All results, of this sweep and of what was in its directory.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    version: String,
    /// By flags.
    runs: BTreeMap<String, CellResult>,
}

/// What one run came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CellResult {
    /// Its whole report, if it made one.
    pub(crate) report: Value,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
    /// (first chunk, mean seconds), where that was asked for.
    #[serde(default)]
    pub(crate) by_chunk: Vec<(f64, f64)>,
}

impl CellResult {
    /// Whether all clients had the file.
    pub(crate) fn is_success(&self) -> bool {
        self.error.is_none() && self.report.is_object()
    }

    /// A figure of its report; not a number where there is none.
    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.report.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    /// Share of deliveries that found their chunk cached.
    pub(crate) fn hit_rate(&self) -> f64 {
        let (hits, misses) = (self.number("/relay/cache_hits"), self.number("/relay/cache_misses"));
        // Nothing was asked of the cache: no share of it was answered.
        if hits + misses == 0.0 { 0.0 } else { hits / (hits + misses) }
    }
}

impl Results {
    /// Those in the directory, or none.
    ///
    /// # Errors
    /// There is a file that can't be read as results.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let none = || Self { version: VERSION.into(), runs: BTreeMap::new() };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(none()),
            Err(error) => {
                return Err(error).with_context(|| format!("could not read {}", path.display()));
            }
        };
        let results: Self = serde_json::from_slice(&bytes).with_context(|| {
            format!("{} holds no results of a sweep: name another --report", path.display())
        })?;
        if results.version != VERSION {
            relay::stderr::say(format_args!(
                "loadgen: {} is of version {}: all runs anew",
                path.display(),
                results.version
            ));
            return Ok(none());
        }
        Ok(results)
    }

    /// One more.
    pub(crate) fn add(&mut self, cell: &Cell, result: CellResult) {
        self.runs.insert(cell.args.join(" "), result);
    }

    /// The result of a run with these flags.
    pub(crate) fn of(&self, cell: &Cell) -> Option<&CellResult> {
        self.runs.get(&cell.args.join(" "))
    }

    /// Whether it need not be run again: it ended well, or is one that need not.
    pub(crate) fn is_settled(&self, cell: &Cell) -> bool {
        self.of(cell)
            .is_some_and(|result| result.is_success() || cell.may_fail && result.report.is_object())
    }

    /// Keeps them; a reader finds the old ones or the new ones, never half of either.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        let text = serde_json::to_vec(self).context("results are plain values")?;
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// One line for each run that is there.
    pub(crate) fn to_csv(&self, analyses: &[Analysis]) -> String {
        let figures = FIGURES.map(|pointer| pointer[1..].replace('/', "_")).join(",");
        let mut text = format!("analysis,series,x,flags,error,hit_rate,{figures}\n");
        for (analysis, cell) in
            analyses.iter().flat_map(|analysis| analysis.cells.iter().map(move |c| (analysis, c)))
        {
            let Some(result) = self.of(cell) else { continue };
            let words = [
                quoted(analysis.name),
                quoted(&cell.series),
                cell.x.to_string(),
                quoted(&cell.args.join(" ")),
                quoted(result.error.as_deref().unwrap_or_default()),
            ];
            let numbers = std::iter::once(result.hit_rate())
                .chain(FIGURES.map(|pointer| result.number(pointer)))
                .map(|number| if number.is_finite() { number.to_string() } else { String::new() });
            text.push_str(&words.into_iter().chain(numbers).collect::<Vec<_>>().join(","));
            text.push('\n');
        }
        text
    }
}

/// As CSV has texts.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\"").replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::plan, *};

    #[test]
    fn what_was_kept_is_found_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let analyses = plan::analyses(plan::Scale::Quick, 1);
        let cells: Vec<&Cell> = analyses.iter().flat_map(|analysis| &analysis.cells).collect();
        let lru = cells.iter().find(|cell| cell.may_fail).unwrap();
        let failed = CellResult {
            report: json!({ "wall_seconds": 1.5, "relay": { "cache_hits": 3, "cache_misses": 1 } }),
            error: Some("timed \"out\"\nafter".into()),
            by_chunk: Vec::new(),
        };
        let good = CellResult { error: None, ..failed.clone() };
        let mut results = Results::open(dir.path()).unwrap();
        results.add(cells[0], good.clone());
        results.add(cells[1], failed.clone());
        results.add(lru, failed);
        results.write(dir.path()).unwrap();
        let again = Results::open(dir.path()).unwrap();
        assert!(again.is_settled(cells[0]));
        assert!(!again.is_settled(cells[1]), "what should end well is tried again");
        assert!(again.is_settled(lru), "that it doesn't end is a result");
        assert_eq!(again.of(cells[0]).unwrap().hit_rate(), 0.75);
        let csv = again.to_csv(&analyses);
        assert!(csv.lines().count() >= 4, "{csv}");
        assert!(csv.contains("\"timed \"\"out\"\" after\""), "{csv}");
        let fields = csv.lines().next().unwrap().split(',').count();
        assert_eq!(fields, 6 + FIGURES.len());
    }

    #[test]
    fn a_file_that_holds_something_else_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "mine").unwrap();
        let error = Results::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another --report"), "{error}");
    }

    #[test]
    fn results_of_another_version_are_run_anew() {
        let dir = tempfile::tempdir().unwrap();
        let analyses = plan::analyses(plan::Scale::Quick, 1);
        let cell = &analyses[0].cells[0];
        let result = CellResult { report: json!({}), error: None, by_chunk: Vec::new() };
        let runs = BTreeMap::from([(cell.args.join(" "), result)]);
        Results { version: "0.0.1".into(), runs }.write(dir.path()).unwrap();
        assert!(!Results::open(dir.path()).unwrap().is_settled(cell));
    }
}
