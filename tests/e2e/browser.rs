//! The live page in a real browser: the map fills, its numbers agree with `/metrics`, a dead peer
//! shows as dead, and nothing is complained of.

use std::sync::Arc;

use relay::protocol::Message;
use serde_json::json;

use crate::programs::relay;
use crate::support::{
    chromium::Chromium,
    file::TestFile,
    honest::{Download, Origin},
    http,
    process::RelayProcess,
    wire::{Wire, origin_hello},
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

    // The peers that are left have everything: no cell of the living is empty.
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

/// Notes, from before the page's first script on, what it ever said while it knew nothing.
const WITNESS: &str = "window.said = new Set();
    const look = () => {
        const nobody = document.getElementById('nobody');
        if (nobody && !nobody.hidden) said.add('nobody');
        const rate = document.getElementById('out-rate');
        if (rate && !document.body.dataset.frames) said.add(rate.textContent);
    };
    new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });";

#[test]
fn a_page_that_knows_nothing_yet_says_that_it_loads() {
    let Some(mut browser) = Chromium::start() else { return };
    let relay = RelayProcess::start(relay(), &["--cores", "2", "--oversubscribe"]);
    let file = Arc::new(TestFile::new(12, (CHUNKS as usize) << 14, 14));
    let _origin = Origin::start(relay.addr, &file);
    relay.wait_metric("relay_peers", &[], 1.0);
    browser.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": WITNESS }));
    browser.open(&format!("http://{}/", relay.http));
    browser.wait("the file", "document.querySelector('article').dataset.peers === '1'");
    let said = browser.value("[...said].join()");
    assert_eq!(said, "–", "it never said that nobody is here, or a rate of nothing");
    assert_eq!(browser.value("document.getElementById('loading').hidden"), true);
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn the_page_tells_how_far_a_file_is_in_words_that_it_explains() {
    let Some(mut browser) = Chromium::start() else { return };
    let relay = RelayProcess::start(relay(), &["--cores", "2", "--oversubscribe"]);
    let file = Arc::new(TestFile::new(13, (CHUNKS as usize) << 16, 16));
    browser.open(&format!("http://{}/", relay.http));
    let mut wire = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let label = "<b>Big</b> & \"small\"";
    wire.send(&Message::Label { text: label.into() }).expect("sent");
    let _origin = Origin::serve(wire, &file);
    let mut client = Download::join(relay.addr, file.key()).expect("it may join");
    get(&mut client, 8);
    browser.wait("a quarter", "document.querySelector('.pace').textContent.startsWith('25 %')");
    get(&mut client, 16);
    browser.wait(
        "how fast, and how long",
        "/^50 % · [\\d.]+ [KM]iB\\/s · about \\d+ (s|min) left$/.test(document.querySelector('.pace').textContent)",
    );
    let done = "document.querySelector('.done').textContent";
    assert_eq!(browser.value(done), "0 of 1 peer has all of it, the origin is here");
    let shown = browser.value("document.querySelector('h2 .label').textContent");
    assert_eq!(shown, label, "it is text, whatever it holds");
    explains(&mut browser);
    has_addresses(&mut browser);
    fits(&mut browser);
    copies(&mut browser, &file);
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// One kind of unit, no word of the code, and each colour means one thing.
fn explains(browser: &mut Chromium) {
    let words = browser.value("document.body.innerText").as_str().expect("a text").to_owned();
    for foreign in ["kB", "MB", "GB", "edges", "xchanging", "home on"] {
        assert!(!words.contains(foreign), "the page says {foreign}: {words}");
    }
    assert!(words.contains("2 MiB in 32 chunks of 64 KiB"), "{words}");
    let colours =
        "['held', 'lacks', 'stalled', 'dead', 'left', 'cached', 'fetching', 'missing'].map(
        (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim())";
    assert_eq!(browser.value(&format!("new Set({colours}).size")), 8);
}

fn has_addresses(browser: &mut Chromium) {
    browser.value("document.querySelector('.peers').open = true");
    browser.wait("addresses", "document.querySelector('.peers tbody').rows.length === 2");
    let list = browser.value("document.querySelector('.peers tbody').innerText");
    let list = list.as_str().expect("a text");
    assert!(list.contains("127.0.0.1:") && list.contains("origin, has all of it"), "{list}");
}

/// The picture of the last seconds is as wide as there is room; on a telephone the map leaves room for more.
fn fits(browser: &mut Chromium) {
    let first = "(() => {
        const canvas = document.getElementById('spark');
        const probe = document.createElement('canvas').getContext('2d');
        probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--accent').trim();
        probe.fillRect(0, 0, 1, 1);
        const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
        const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let [first, last] = [width, 0];
        for (let i = 0; i < data.length; i += 4) {
            if (data[i] !== r || data[i + 1] !== g || data[i + 2] !== b) continue;
            first = Math.min(first, i / 4 % width);
            last = Math.max(last, i / 4 % width);
        }
        return (last - first) / width;
    })()";
    browser.wait("a picture across its width", &format!("{first} > 0.5"));
    let metrics = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true });
    browser.call("Emulation.setDeviceMetricsOverride", &metrics);
    browser.wait("a narrow page", "document.documentElement.clientWidth === 390");
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 390, "nothing is cut");
    browser.wait("a low map", "document.querySelector('.map').clientHeight < innerHeight / 3");
}

fn copies(browser: &mut Chromium, file: &TestFile) {
    browser.value(
        "navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); };
         document.querySelector('button.id').click()",
    );
    browser.wait("a copy", "document.querySelector('.copied').textContent === 'copied'");
    let id = blake3::hash(&file.bytes).to_hex();
    assert_eq!(browser.value("window.copied"), id.as_str());
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

#[test]
fn a_peer_that_died_before_the_page_was_opened_has_its_row_and_what_it_had_in_red() {
    let Some(mut browser) = Chromium::start() else { return };
    let relay = RelayProcess::start(relay(), &["--cores", "2"]);
    let file = Arc::new(TestFile::new(13, (CHUNKS as usize) << 14, 14));
    let _origin = Origin::start(relay.addr, &file);
    let mut peer = Download::join(relay.addr, file.key()).expect("it may join");
    get(&mut peer, CHUNKS as usize / 2);
    peer.into_wire().reset();
    crate::support::wait_until("its end", || relay.metric("relay_peers", &[]) == 1.0);

    browser.open(&format!("http://{}/", relay.http));
    browser.wait("one dead peer", "document.querySelector('article')?.dataset.dead === '1'");
    browser.wait("two rows", "document.querySelector('article').dataset.rows === '2'");
    pixels_become(&mut browser, "what it had", "dead", "> 0");
    assert!(pixels(&mut browser, "dead-lacks") > 0, "it lacked half of the file");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
