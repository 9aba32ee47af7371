//! The live page in a real browser: the map fills, its numbers agree with `/metrics`, a dead peer
//! shows as dead, and nothing is complained of.

use std::{process::Command, sync::Arc};

use serde_json::json;

use crate::support::{
    chromium::Chromium,
    file::TestFile,
    honest::{Download, Origin},
    http,
    process::RelayProcess,
};

/// Chunks of the test's file.
const CHUNKS: u32 = 32;

/// Counts the map's pixels of a colour that the style sheet names.
const COUNT: &str = "(name) => {
    const canvas = document.querySelector('.map');
    const probe = document.createElement('canvas').getContext('2d');
    probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
    probe.fillRect(0, 0, 1, 1);
    const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) {
        if (data[i] === r && data[i + 1] === g && data[i + 2] === b) count++;
    }
    return count;
}";

fn relay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_relay"))
}

/// Pixels of that colour, in parts of the map.
fn pixels(browser: &mut Chromium, colour: &str) -> u64 {
    browser.value(&format!("({COUNT})('{colour}')")).as_u64().expect("a count")
}

fn pixels_become(browser: &mut Chromium, what: &str, colour: &str, condition: &str) {
    browser.wait(what, &format!("({COUNT})('{colour}') {condition}"));
}

fn get(client: &mut Download, chunks: usize) {
    while client.have_count() < chunks {
        client.step().expect("chunks come");
    }
}

#[test]
fn the_map_fills_numbers_agree_and_the_dead_are_shown() {
    let Some(mut browser) = Chromium::start() else { return };
    let relay = RelayProcess::start(relay(), &["--cores", "2"]);
    let file = Arc::new(TestFile::new(11, (CHUNKS as usize) << 14, 14));
    browser.open(&format!("http://{}/", relay.http));
    browser.wait("a live page", "document.getElementById('status').textContent === 'live'");
    assert_eq!(browser.value("document.getElementById('nobody').hidden"), false);

    let _origin = Origin::start(relay.addr, &file);
    let mut first = Download::join(relay.addr, file.key()).expect("it may join");
    let mut second = Download::join(relay.addr, file.key()).expect("it may join");
    get(&mut first, 8);
    browser.wait("three rows", "document.querySelector('article').dataset.rows === '3'");
    // A third of the map is the origin's, and full.
    pixels_become(&mut browser, "the origin's row", "held", "> 0");
    let before = pixels(&mut browser, "held");
    get(&mut first, CHUNKS as usize);
    get(&mut second, CHUNKS as usize / 2);
    pixels_become(&mut browser, "a fuller map", "held", &format!("> {before} * 1.5"));
    assert!(pixels(&mut browser, "lacks") > 0, "one peer lacks something");
    assert_eq!(pixels(&mut browser, "dead"), 0, "nobody has died");

    agrees_with_metrics(&mut browser, &relay);
    dies(&mut browser, second);
    reads_by_keyboard(&mut browser, &file);
    darkens(&mut browser);

    // Who is left has everything: no cell of the living is empty.
    browser.wait("two whole peers", "document.querySelector('article').dataset.whole === '2'");
    drop(first);
    browser.wait(
        "one who left",
        "document.querySelector('.progress').textContent.includes('1 left with it')",
    );
    assert_eq!(browser.complaints, Vec::<String>::new());
}

fn agrees_with_metrics(browser: &mut Chromium, relay: &RelayProcess) {
    let figure = |name: &str| format!("document.querySelector('[data-figure={name}]').textContent");
    for (name, metric) in [
        ("delivered", "relay_chunks_delivered_total"),
        ("peers", "relay_peers"),
        ("swarms", "relay_swarms"),
    ] {
        let shown = figure(name);
        crate::support::wait_until(name, || {
            let value = http::metric(&http::metrics(relay.http), metric, &[]);
            browser.value(&shown).as_str() == Some(value.to_string().as_str())
        });
    }
    let sum = browser.value("[...document.querySelectorAll('article')].map(a => +a.dataset.peers).reduce((a, b) => a + b)");
    assert_eq!(sum.as_f64(), Some(relay.metric("relay_peers", &[])));
}

fn dies(browser: &mut Chromium, peer: Download) {
    peer.into_wire().reset();
    browser.wait("one dead peer", "document.querySelector('article').dataset.dead === '1'");
    pixels_become(browser, "its row in red", "dead", "> 0");
    pixels_become(browser, "what it lacked in pale red", "dead-lacks", "> 0");
    assert_eq!(browser.value("document.querySelector('article').dataset.peers"), "2");
    browser.wait("words", "document.querySelector('.progress').textContent.includes('1 dead')");
}

fn reads_by_keyboard(browser: &mut Chromium, file: &TestFile) {
    let press = "new KeyboardEvent('keydown', { key: 'ArrowRight', cancelable: true })";
    browser.value(&format!("document.querySelector('.map').dispatchEvent({press})"));
    let read = browser.value("document.querySelector('.readout').textContent");
    assert!(read.as_str().is_some_and(|text| text.contains("chunk 1: has it")), "{read}");
    let label = browser.value("document.querySelector('.map').getAttribute('aria-label')");
    assert!(label.as_str().is_some_and(|text| text.contains("by 32 chunks")), "{label}");
    assert_eq!(
        browser.value("document.querySelector('article').dataset.id"),
        json!(blake3::hash(&file.bytes).to_hex().as_str())
    );
}

fn darkens(browser: &mut Chromium) {
    let background = "getComputedStyle(document.body).backgroundColor";
    let light = browser.value(background);
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.call("Emulation.setEmulatedMedia", &dark);
    assert_ne!(browser.value(background), light);
    pixels_become(browser, "the map in dark colours", "held", "> 0");
}

#[test]
fn a_person_types_the_token_once() {
    let Some(mut browser) = Chromium::start() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "open sesame\n").expect("written");
    let path = path.display().to_string();
    let relay = RelayProcess::start(relay(), &["--http-token-file", &path]);
    browser.open(&format!("http://{}/", relay.http));
    let submit = |token: &str| {
        format!(
            "document.getElementById('token').value = '{token}'; document.querySelector('button').click()"
        )
    };
    browser.wait("the form", "document.getElementById('token')");
    browser.leave_by(&submit("open barley"));
    browser.wait(
        "a refusal",
        "document.querySelector('[role=alert]').textContent.includes('not this relay')",
    );
    browser.leave_by(&submit("open sesame"));
    browser.wait("a live page", "document.getElementById('status').textContent === 'live'");
    assert_eq!(browser.value("document.cookie"), "", "no script sees the cookie");
}
