//! Fuzz target: see `src/exercise/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| relay::exercise::datagrams(script));
