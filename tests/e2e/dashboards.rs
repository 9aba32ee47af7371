//! Dashboards against the real thing: promtool checks files and a live scrape, and every query of the
//! board and of the rules returns data from a Prometheus that has scraped a relay at work. And that
//! sums reconcile: what came in was passed on, dropped for a reason, or is still cached.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
};

use relay::protocol::{Message, limits::FRAME_PAYLOAD_BYTES_MAX};
use serde_json::Value;

use crate::programs::relay;
use crate::support::{
    PATIENCE,
    file::TestFile,
    honest::{Download, Origin, download},
    http, in_background,
    process::{RelayProcess, drivers},
    wait_for, wait_until,
    wire::{Heard, Wire, hello, origin_hello},
};

fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn text(name: &str) -> String {
    fs::read_to_string(dashboards().join(name)).expect("a dashboard's file can be read")
}

/// The page in which Grafana's variables have a value.
fn filled_in(query: &str) -> String {
    query.replace("$__rate_interval", "10s").replace("$__range", "1m").replace("$instance", ".*")
}

/// All queries of the board.
fn board_queries() -> Vec<String> {
    let board: Value = serde_json::from_str(&text("grafana.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

/// All queries of the rules. An alert that does not fire returns nothing, so its comparisons are
/// made to answer yes or no.
fn rule_queries() -> Vec<String> {
    let rules = text("rules.yml");
    let mut lines = rules.lines().peekable();
    let mut queries = Vec::new();
    let mut is_alert = false;
    while let Some(line) = lines.next() {
        let line = line.trim().trim_start_matches("- ");
        is_alert = line.starts_with("alert:") || is_alert && !line.starts_with("record:");
        let Some(query) = line.strip_prefix("expr:") else { continue };
        let mut query = query.trim().to_owned();
        if query == ">-" {
            query.clear();
            while let Some(more) = lines.next_if(|more| more.starts_with("          ")) {
                query.push_str(more.trim());
                query.push(' ');
            }
        }
        if is_alert {
            query = query.replace(" > ", " > bool ").replace(" == ", " == bool ");
        }
        queries.push(query);
    }
    queries
}

/// A Prometheus of the test's own.
struct Prometheus {
    child: Child,
    addr: SocketAddr,
}

impl Prometheus {
    fn start(program: &str, config: &Path, data: &Path) -> Self {
        let mut child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Prometheus can be started");
        let lines = BufReader::new(child.stderr.take().expect("stderr is a pipe")).lines();
        let (found, address) = mpsc::channel();
        in_background(move || {
            // It goes on reading: a full pipe would stop Prometheus.
            for line in lines.map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if line["msg"] == "Listening on" {
                    found.send(line["address"].as_str().map(str::to_owned)).ok();
                }
            }
        });
        let addr = address.recv_timeout(PATIENCE).expect("it says where it listens");
        let addr = addr.and_then(|addr| addr.parse().ok()).expect("an address");
        Self { child, addr }
    }

    /// Nothing while it is still starting.
    fn query(&self, query: &str) -> Option<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = http::get_plain(self.addr, &format!("/api/v1/query?query={encoded}"));
        let answer = answer.expect("Prometheus answers");
        let value = serde_json::from_str(&answer.body).ok();
        let is_starting = answer.body.trim() == "Service Unavailable";
        assert!(value.is_some() || is_starting, "{query}: {}", answer.body);
        value
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Nothing is to be done about a process that is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn promtool(args: &[&str], input: Option<&str>) {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be started");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(input.unwrap_or_default().as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_accepts_the_files_and_the_rules_do_what_their_cases_say() {
    if crate::support::tool(&["promtool"], "prometheus").is_none() {
        return;
    }
    let path = |name: &str| dashboards().join(name).display().to_string();
    promtool(&["check", "config", &path("prometheus.yml")], None);
    promtool(&["check", "rules", &path("rules.yml")], None);
    promtool(&["test", "rules", &path("rules_test.yml")], None);
}

#[test]
fn every_query_returns_data_from_a_prometheus_that_scraped_a_run() {
    let Some(program) = crate::support::tool(&["prometheus"], "prometheus") else { return };
    let relay = RelayProcess::start(relay(), &["--cores", "2"]);
    promtool(&["check", "metrics"], Some(&http::metrics(relay.http)));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = text("prometheus.yml").replace("127.0.0.1:7441", &relay.http.to_string());
    assert!(config.contains(&relay.http.to_string()), "the target is where it is looked for");
    let path = dir.path().join("prometheus.yml");
    fs::write(&path, config).expect("written");
    fs::write(dir.path().join("rules.yml"), text("rules.yml")).expect("written");
    let prometheus = Prometheus::start(program, &path, &dir.path().join("data"));
    let file = Arc::new(TestFile::new(21, 1 << 20, 16));
    let _origin = Origin::start(relay.addr, &file);
    download(relay.addr, &file);
    let mut queries: Vec<String> = board_queries().iter().map(|query| filled_in(query)).collect();
    queries.extend(rule_queries());
    assert!(queries.len() > 60, "the queries are where they are looked for: {}", queries.len());
    let mut last = Value::Null;
    for query in queries {
        wait_for(&format!("data for {query}"), || {
            last = prometheus.query(&query)?;
            assert_eq!(last["status"], "success", "{query}: {last}");
            let result = last["data"]["result"].as_array().cloned().unwrap_or_default();
            (!result.is_empty()).then_some(())
        });
    }
    let alerts = prometheus.query("ALERTS{alertstate=\"firing\"}").expect("it has started");
    assert_eq!(alerts["data"]["result"], Value::Array(Vec::new()), "a healthy relay is quiet");
    promtool(&["check", "metrics"], Some(&http::metrics(relay.http)));
}

#[test]
fn the_board_can_be_imported_anywhere() {
    let board: Value = serde_json::from_str(&text("grafana.json")).expect("JSON");
    let variables = board["templating"]["list"].as_array().expect("variables");
    assert!(variables.iter().any(|variable| variable["type"] == "datasource"));
    let panels = board["panels"].as_array().expect("panels");
    let rows: Vec<_> = panels.iter().filter(|panel| panel["type"] == "row").collect();
    let titles: Vec<_> = rows.iter().filter_map(|row| row["title"].as_str()).collect();
    assert_eq!(titles, ["Overview", "Shards", "Swarms", "Cache", "Faults", "Datagrams", "Uplinks"]);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "no two panels have one id");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()));
    }
}

#[test]
fn an_import_asks_for_the_data_source_and_the_board_fits_the_scrape() {
    let text_of_board = text("grafana.json");
    let board: Value = serde_json::from_str(&text_of_board).expect("JSON");
    let inputs = board["__inputs"].as_array().expect("what an import asks for");
    assert_eq!(inputs.len(), 1);
    assert_eq!(
        (&inputs[0]["type"], &inputs[0]["pluginId"]),
        (&"datasource".into(), &"prometheus".into())
    );
    // What is answered goes where the board's data source is chosen, and nothing else is asked for.
    let name = inputs[0]["name"].as_str().expect("a name");
    let variables = board["templating"]["list"].as_array().expect("variables");
    let source = variables.iter().find(|variable| variable["type"] == "datasource");
    assert_eq!(source.expect("one")["current"]["value"], format!("${{{name}}}"));
    assert_eq!(text_of_board.matches("${DS_").count(), 2, "its value and its name");
    // A rate needs to know how often there is something new; a refresh has something to show.
    let config = text("prometheus.yml");
    let scrape = config.lines().find_map(|line| line.trim().strip_prefix("scrape_interval: "));
    let seconds = |text: &str| text.strip_suffix('s').and_then(|count| count.parse::<u32>().ok());
    let scrape = scrape.expect("an interval");
    for panel in board["panels"].as_array().expect("panels") {
        let is_row = panel["type"] == "row";
        assert!(is_row || panel["interval"] == scrape, "{}", panel["title"]);
    }
    let refresh = seconds(board["refresh"].as_str().expect("a refresh")).expect("seconds");
    // Grafana refuses boards that refresh more often than every 5 s, unless it is told otherwise.
    assert!(refresh >= 5 && refresh.is_multiple_of(seconds(scrape).expect("seconds")));
}

/// What came in, and what became of it.
fn assert_reconciled(relay: &RelayProcess, dropped: &[(&str, u64)]) {
    let mut last = String::new();
    let reconciled = || {
        let page = http::metrics(relay.http);
        let value = |name: &str, labels: &[&str]| http::metric(&page, name, labels);
        let came_in = value("relay_bytes_total", &["direction=\"in\"", "kind=\"data\""]);
        let passed_on = value("relay_data_passed_on_bytes_total", &[]);
        let all_dropped = value("relay_data_dropped_bytes_total", &[]);
        let unsent = value("relay_data_unsent_bytes", &[]);
        last = format!("{came_in} = {passed_on} + {all_dropped} + {unsent}\n{page}");
        #[expect(clippy::cast_precision_loss, reason = "small files")]
        let as_told = dropped.iter().all(|&(reason, least)| {
            let label = format!("reason=\"{reason}\"");
            value("relay_data_dropped_bytes_total", &[&label]) >= least as f64
        });
        came_in > 0.0 && came_in == passed_on + all_dropped + unsent && as_told
    };
    let mut reconciled = reconciled;
    let mut is_so = false;
    for _ in 0..500 {
        is_so = reconciled();
        if is_so {
            break;
        }
        crate::support::pause(std::time::Duration::from_millis(20));
    }
    assert!(is_so, "{last}");
}

#[test]
fn what_came_in_was_passed_on_dropped_for_a_reason_or_is_still_cached() {
    for driver in drivers(relay) {
        let args = ["--driver", driver, "--cores", "2", "--oversubscribe", "--cache", "512K"];
        let relay = RelayProcess::start(relay(), &args);
        let file = Arc::new(TestFile::new(31, 1 << 20, 16));
        let origin = Origin::start(relay.addr, &file);
        download(relay.addr, &file);
        assert_reconciled(&relay, &[]);
        // A peer that claims everything and lies, one that dies in the middle of a chunk, and
        // one that sends what was not asked for.
        let other = TestFile::new(32, 1 << 20, 16);
        for (fault, reason) in [
            (Fault::Lies, "wrong_digest"),
            (Fault::Dies, "unfinished"),
            (Fault::Babbles, "protocol"),
        ] {
            misbehave(&relay, &other, fault);
            assert_reconciled(&relay, &[(reason, 1)]);
        }
        download(relay.addr, &file);
        assert!(origin.is_serving());
        drop(origin);
        assert_reconciled(&relay, &[("wrong_digest", 1 << 16), ("unfinished", 1), ("protocol", 1)]);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Lies,
    Dies,
    Babbles,
}

/// An origin of that file, which answers the first fetch badly.
fn misbehave(relay: &RelayProcess, file: &TestFile, fault: Fault) {
    let mut origin = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let mut client = Wire::join(relay.addr, hello(file.key())).expect("it may join");
    client.send(&Message::Progress { received_bytes: 0, granted_bytes: 1 << 20 }).expect("sent");
    loop {
        match origin.hear().expect("it is asked") {
            Heard::Control(Message::ManifestRequest) => {
                for part in file.manifest.parts(0) {
                    origin.send(&part).expect("sent");
                }
            }
            Heard::Control(Message::Fetch { fetch_id, chunk }) => {
                let bytes = file.chunk(chunk);
                match fault {
                    Fault::Lies => {
                        let wrong: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
                        origin.send_chunk(fetch_id, chunk, &wrong).expect("sent");
                    }
                    Fault::Dies => {
                        // The first frame of several.
                        let part = &bytes[..FRAME_PAYLOAD_BYTES_MAX];
                        origin.send_chunk(fetch_id, chunk, part).expect("sent");
                        origin.shut_write();
                    }
                    Fault::Babbles => {
                        origin.send_chunk(fetch_id + 1000, chunk, bytes).expect("sent");
                    }
                }
                origin.hear_end();
                return;
            }
            _ => {}
        }
    }
}

#[test]
fn peers_that_wait_and_chunks_that_nobody_has_are_counted() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(41, 1 << 20, 16));
    let origin = Origin::start(relay.addr, &file);
    let mut client = Download::join(relay.addr, file.key()).expect("it may join");
    while client.have_count() < 4 {
        client.step().expect("chunks come");
    }
    assert_eq!(relay.metric("relay_chunks_missing", &[]), 0.0);
    drop((client, origin));
    // Alone, without any holder, and ready to take everything.
    let mut alone =
        Wire::join(relay.addr, hello(TestFile::new(42, 1 << 20, 16).key())).expect("it may join");
    alone.send(&Message::Progress { received_bytes: 0, granted_bytes: 1 << 20 }).expect("sent");
    wait_until("a peer that waits", || relay.metric("relay_peers_starving", &[]) == 1.0);
    wait_until("chunks that nobody has", || relay.metric("relay_chunks_missing", &[]) == 16.0);
}
