//! Replays the corpus of the fuzz targets, and scripts by chance: what a fuzzer found once is
//! found again by every run of the tests.

use std::path::Path;

use super::ALL;
use crate::rng::Rng;

/// Scripts by chance, of each target.
const RANDOM_SCRIPTS: u64 = 2000;

#[test]
fn what_fuzzing_has_found_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, run) in ALL {
        let entries = std::fs::read_dir(corpus.join(name)).expect("each target has a corpus");
        let mut count = 0;
        for entry in entries {
            let path = entry.expect("a directory can be read").path();
            let script = std::fs::read(&path).expect("a script can be read");
            println!("{}", path.display());
            run(&script);
            count += 1;
        }
        assert!(count > 10, "the corpus of {name} has {count} scripts");
    }
}

#[test]
fn scripts_by_chance_break_nothing() {
    for (name, run) in ALL {
        for seed in 0..RANDOM_SCRIPTS {
            let mut rng = Rng::new(seed, 0);
            let length = rng.below(400);
            let script: Vec<u8> = (0..length).map(|_| rng.below(256).to_le_bytes()[0]).collect();
            println!("{name}, seed {seed}");
            run(&script);
        }
    }
}
