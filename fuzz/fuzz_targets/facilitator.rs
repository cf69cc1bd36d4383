#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farewall_fuzz::properties::facilitator(data));
