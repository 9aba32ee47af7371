//! Whole runs with a real relay: its own process, small files, both drivers.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use serde_json::json;

use crate::support::{LOADGEN, Relay, clean, command, run};

#[test]
fn everybody_gets_the_file_on_both_drivers_and_in_both_seedings() {
    for driver in ["io-uring", "epoll"] {
        for seeding in ["spread", "origin"] {
            let relay_args = format!("--driver {driver} --cores 2 --oversubscribe");
            let run = run(&[
                "--clients",
                "12",
                "--file",
                "3M",
                "--chunk",
                "64K",
                "--seeding",
                seeding,
                "--driver",
                driver,
                "--relay-args",
                &relay_args,
            ]);
            if run.stderr.contains("io_uring") && run.code != Some(0) {
                assert_eq!(driver, "io-uring", "only a system without io_uring may refuse it");
                continue;
            }
            run.assert_success();
            assert_eq!(run.number("/clients_verified"), 12.0);
            assert_eq!(run.report["driver"], driver);
            let amplification = run.number("/relay/ingress_amplification");
            // A spread that takes long, as on a busy machine, does not wait for those that had no turn.
            let range = if seeding == "spread" { 1.2..=2.3 } else { 1.0..=1.05 };
            assert!(range.contains(&amplification), "{seeding}: {amplification}");
            assert_eq!(run.number("/relay/egress_bytes"), 12.0 * f64::from(3 << 20));
        }
    }
}

#[test]
fn real_files_of_awkward_sizes_are_written_and_their_digests_printed() {
    let dir = tempfile::tempdir().unwrap();
    for size in [0usize, 1, 65_535, 65_536, 65_537] {
        let source = dir.path().join(format!("source-{size}"));
        let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
        std::fs::write(&source, &bytes).unwrap();
        let out = dir.path().join(format!("out-{size}"));
        let store = format!("dir:{}", out.display());
        let run = run(&[
            "--clients",
            "5",
            "--file",
            source.to_str().unwrap(),
            "--chunk",
            "64K",
            "--store",
            &store,
            "--relay-args",
            "--cores 1",
        ]);
        run.assert_success();
        let digest = blake3::hash(&bytes).to_hex().to_string();
        let lines: BTreeSet<&str> =
            run.stdout.lines().filter(|line| line.starts_with(&digest)).collect();
        let expected: BTreeSet<String> =
            (0..5).map(|client| format!("{digest}  client-{client}/source-{size}")).collect();
        assert_eq!(lines, expected.iter().map(String::as_str).collect());
        for client in 0..5 {
            let path = out.join(format!("client-{client}")).join(format!("source-{size}"));
            assert_eq!(std::fs::read(path).unwrap(), bytes);
        }
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 5, "exactly one file each");
    }
}

#[test]
fn every_order_and_several_files_work() {
    for order in ["relay", "sequential", "random"] {
        run(&[
            "--clients",
            "9",
            "--file",
            "1M",
            "--files",
            "3",
            "--order",
            order,
            "--chunk",
            "32K",
            "--relay-args",
            "--cores 2 --oversubscribe",
        ])
        .assert_success();
    }
}

#[test]
fn a_small_cache_and_limited_clients_are_enough_for_all() {
    let run = run(&[
        "--clients",
        "8",
        "--file",
        "1M",
        "--chunk",
        "32K",
        "--cache",
        "256K",
        "--seeding",
        "origin",
        "--slow",
        "2@1M",
    ]);
    run.assert_success();
    assert!(run.number("/relay/chunk_bytes_peak") <= f64::from(256 << 10));
    assert!(run.number("/client_seconds/max") >= 0.7, "1 MiB at 1 MiB/s takes about a second");
}

#[test]
fn who_vanishes_joins_late_or_lies_does_not_keep_the_others_from_the_file() {
    for seed in ["1", "2"] {
        let run = run(&[
            "--clients",
            "20",
            "--file",
            "2M",
            "--chunk",
            "32K",
            "--churn",
            "kill=4,join=4",
            "--corrupt",
            "3",
            "--seed",
            seed,
            "--relay-args",
            "--cores 2 --oversubscribe",
        ]);
        run.assert_success();
        let verified = run.number("/clients_verified");
        assert!((13.0..=17.0).contains(&verified), "{verified}");
    }
}

#[test]
fn a_token_opens_a_relay_that_wants_one_and_its_lack_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "open sesame\n").unwrap();
    let token = token.to_str().unwrap();
    let relay = Relay::start("127.0.0.1:0", &["--token-file", token]);
    let job = ["--clients", "3", "--file", "200K", "--relay", &relay.address];
    run(&[&job[..], &["--token-file", token]].concat()).assert_success();
    let refused = run(&job);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("--token-file"), "{}", refused.stderr);
}

#[test]
fn a_relay_that_is_killed_and_comes_back_is_gone_on_with() {
    let relay = Relay::start("127.0.0.1:0", &["--cores", "1"]);
    let address = relay.address.clone();
    let json = tempfile::NamedTempFile::new().unwrap();
    let run = command(&[
        "--clients",
        "6",
        "--file",
        "4M",
        "--chunk",
        "64K",
        "--seeding",
        "origin",
        "--rate",
        "1M",
        "--relay",
        &address,
        "--timeout",
        "90s",
        "--json",
        json.path().to_str().unwrap(),
    ])
    .spawn()
    .unwrap();
    // In the middle: at this rate the run takes four seconds, and it is not over before.
    std::thread::park_timeout(std::time::Duration::from_millis(1500));
    let address = relay.kill();
    let relay = Relay::start(&address, &["--cores", "1"]);
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "every client goes on where it was");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    assert_eq!(report["clients_verified"], 6);
    drop(relay);
}

#[test]
fn who_stays_does_so_after_the_figures_are_taken() {
    let job = ["--clients", "4", "--file", "1M", "--slow", "1@300K", "--relay-args", "--cores 1"];
    let run = run(&[&job[..], &["--stay", "700ms"]].concat());
    run.assert_success();
    assert!(run.stderr.contains("stays connected for 0.7 s"), "{}", run.stderr);
    let wall = run.number("/wall_seconds");
    assert!(run.number("/connect_seconds") > 0.0 && run.number("/connect_seconds") <= wall);
    // A quarter of a spread is theirs to wait for, but not the slow one's whole file.
    let (others, all) = ("/unlimited_client_seconds/max", "/client_seconds/max");
    assert!(run.number(others) > 0.0 && run.number(others) < run.number(all));
}

#[test]
fn a_relay_that_ends_while_all_stay_takes_nothing_of_the_run_away() {
    let job = ["--clients", "2", "--file", "1M", "--relay-args", "--cores 1", "--stay", "60s"];
    let json = tempfile::NamedTempFile::new().unwrap();
    let mut command = command(&job);
    command.arg("--json").arg(json.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let relay = lines.find_map(|line| {
        let (_, rest) = line.split_once("its own, process ")?;
        rest.split(' ').next()?.parse().ok()
    });
    assert!(lines.any(|line| line.contains("stays connected")));
    let relay = rustix::process::Pid::from_raw(relay.expect("it names its relay")).unwrap();
    rustix::process::kill_process(relay, rustix::process::Signal::KILL).unwrap();
    assert!(lines.all(|line| !line.contains("error")), "the run was over");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    assert_eq!((&report["clients_verified"], &report["errors"]), (&2.into(), &json!([])));
}

#[test]
fn there_are_descriptors_for_sockets_of_both_kinds_and_for_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"small").unwrap();
    let path = file.path().to_str().unwrap();
    let job = format!(
        "ulimit -Sn 192 && exec '{LOADGEN}' --clients 100 --file '{path}' --transport udp-data \
         --timeout 60s --relay-args '--cores 1'"
    );
    let output = clean("sh").args(["-c", &job]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
}

#[test]
fn clients_that_choose_the_order_may_be_few() {
    // Each gets half of the file by the spread, unasked: four times what it may ask for at once.
    for order in ["sequential", "random"] {
        let args = ["--clients", "2", "--file", "64M", "--chunk", "1M", "--order", order];
        let run = run(&[&args[..], &["--relay-args", "--cores 1", "--timeout", "60s"]].concat());
        run.assert_success();
        assert_eq!(run.number("/clients_verified"), 2.0);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_loop_whose_clients_are_done_lends_its_core() {
    /// Of this process's loops, those on one core and those that may run on more, as proc(5) shows cores:
    /// 0-1, or 0,3.
    fn loops(process: u32) -> (usize, usize) {
        let (mut single, mut many) = (0, 0);
        let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            // It may have ended meanwhile.
            let text = |what| std::fs::read_to_string(task.path().join(what)).unwrap_or_default();
            if !text("comm").starts_with("loadgen-") {
                continue;
            }
            let status = text("status");
            let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            match cores.map(|list| list.contains([',', '-'])) {
                Some(true) => many += 1,
                Some(false) => single += 1,
                None => {}
            }
        }
        (single, many)
    }
    /// Ends with the test, however that ends.
    struct Running(std::process::Child);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return;
    }
    // One of the two needs many seconds for what the other has within one: long enough to be seen at work.
    let args =
        ["--clients", "2", "--cores", "2", "--seeding", "origin", "--file", "1M", "--rate", "1M"];
    let mut command = command(&[&args[..], &["--slow", "1@128K", "--timeout", "60s"]].concat());
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut running = Running(child);
    let mut wait_for = |wanted| {
        while loops(running.0.id()) != wanted {
            assert!(running.0.try_wait().unwrap().is_none(), "it ended before {wanted:?}");
            std::thread::yield_now();
        }
    };
    // A new thread may run everywhere until it has chosen its core.
    wait_for((2, 0));
    wait_for((1, 1));
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn sealed_content_is_sealed_opened_and_checked_by_every_client() {
    let dir = tempfile::tempdir().unwrap();
    let out = format!("dir:{}", dir.path().join("out").display());
    let common = ["--clients", "8", "--chunk", "64K", "--sealed"];
    for more in [
        &["--file", "2M"][..],
        &["--file", "2M", "--seeding", "origin", "--order", "sequential"],
        &["--file", "1M", "--files", "3"],
        &["--file", "2M", "--corrupt", "2", "--churn", "kill=1,join=2"],
        &["--file", "2M", "--rate", "2M"],
        &["--file", "1000001", "--store", &out],
        &["--file", "0"],
    ] {
        let run = run(&[&common[..], more].concat());
        run.assert_success();
        assert_eq!(run.report["sealed"], json!(true), "{more:?}");
        assert!(run.stdout.contains(", sealed, seed"), "{}", run.stdout);
    }
    let plain = run(&["--clients", "2", "--file", "1000001", "--chunk", "64K"]);
    plain.assert_success();
    assert_eq!(plain.report["sealed"], json!(false));
    // What clients of the sealed run wrote is the file of this seed, as it is.
    let written = std::fs::read(dir.path().join("out/client-3/file-0.bin")).unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, &written).unwrap();
    let source = source.to_str().unwrap();
    let again = dir.path().join("again");
    let store = format!("dir:{}", again.display());
    let run = run(&["--clients", "2", "--file", source, "--sealed", "--store", &store]);
    run.assert_success();
    assert!(std::fs::read(again.join("client-1/source")).unwrap() == written);
    let digest = blake3::hash(&written).to_hex();
    assert!(run.stdout.contains(&format!("{digest}  client-1/source")), "{}", run.stdout);
}
