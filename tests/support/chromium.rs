//! A real browser without a window, spoken to over a pipe in its own debugging protocol.
//!
//! No port, no driver program: messages are JSON, each ended by a zero byte, on descriptors 3 and
//! 4. It has a profile of its own, and ends with the test.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PATIENCE, in_background, wait_for};

/// Names under which it is installed.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Without a sandbox of its own: tests run as root in containers, and it sees our page only.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
];

/// A browser with one page.
pub(crate) struct Chromium {
    child: Child,
    to: ChildStdin,
    from: mpsc::Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// What the page's console and policy complained of.
    pub(crate) complaints: Vec<String>,
    _profile: TempDir,
}

impl Chromium {
    /// Starts it on an empty page; `None` if there is none here and none is demanded.
    ///
    /// # Panics
    /// There is none though `TEST_TOOLS=required`, or it does not come up.
    pub(crate) fn start() -> Option<Self> {
        let name = super::tool(&NAMES, "chromium")?;
        let profile = tempfile::tempdir().expect("a temporary directory can be made");
        let data = format!("--user-data-dir={}", profile.path().display());
        // The shell only moves its ends of the pipes to where the browser looks for them.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2"])
            .arg(name)
            .args(FLAGS)
            .args([&data, "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser can be started");
        let to = child.stdin.take().expect("stdin is a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let (heard, from) = mpsc::channel();
        in_background(move || {
            let mut line = Vec::new();
            while lines.read_until(0, &mut line).is_ok_and(|count| count > 0) {
                let message = serde_json::from_slice(line.strip_suffix(&[0]).unwrap_or(&line));
                line.clear();
                if heard.send(message.unwrap_or(Value::Null)).is_err() {
                    break;
                }
            }
        });
        let (session, complaints) = (None, Vec::new());
        let mut browser =
            Self { child, to, from, session, calls: 0, complaints, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.call(domain, &json!({}));
        }
        Some(browser)
    }

    /// One call and its result.
    ///
    /// # Panics
    /// It fails, or is not answered.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.ask(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// One call, and its result or the browser's error.
    ///
    /// # Panics
    /// It is not answered.
    fn ask(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).expect("JSON");
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser listens");
        loop {
            let heard = self.from.recv_timeout(PATIENCE);
            let mut heard = heard.unwrap_or_else(|why| panic!("no answer to {method}: {why}"));
            if heard["id"] == self.calls {
                let error = heard["error"].take();
                return if error.is_null() { Ok(heard["result"].take()) } else { Err(error) };
            }
            self.note(&heard);
        }
    }

    fn note(&mut self, event: &Value) {
        let is_complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        if is_complaint {
            self.complaints.push(event["params"].to_string());
        }
    }

    /// Opens an address.
    pub(crate) fn open(&mut self, address: &str) {
        self.call("Page.navigate", &json!({ "url": address }));
    }

    /// What an expression is in the page.
    ///
    /// # Panics
    /// It throws, or the page goes away meanwhile.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        self.evaluate(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// What an expression is in the page, or the browser's error if there is no page to ask.
    fn evaluate(&mut self, expression: &str) -> Result<Value, Value> {
        let params = json!({ "expression": expression, "returnByValue": true });
        let mut result = self.ask("Runtime.evaluate", &params)?;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        Ok(result["result"]["value"].take())
    }

    /// Does something in the page that leads away from it. It happens after the answer: a page that
    /// goes away first takes the answer with it.
    pub(crate) fn leave_by(&mut self, action: &str) {
        self.value(&format!("setTimeout(() => {{ {action} }}, 0)"));
    }

    /// Waits until an expression is true in the page; `what` says what is waited for.
    pub(crate) fn wait(&mut self, what: &str, expression: &str) {
        wait_for(what, || {
            // While a page is loading there may be nothing to ask, and one that is being left
            // answers with an error of the browser: either is "not yet".
            let safe = format!(
                "(() => {{ try {{ return !!({expression}) }} catch {{ return false }} }})()"
            );
            let answer = self.evaluate(&safe).unwrap_or_else(|error| {
                println!("while waiting for {what}: {error}");
                Value::Null
            });
            (answer == true).then_some(())
        });
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Nothing is to be done about a browser that is gone already; its parts end with it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
