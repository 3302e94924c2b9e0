#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pearp_fuzz::fragments(data));
