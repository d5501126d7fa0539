#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thence_fuzz::bodies::backup(data));
