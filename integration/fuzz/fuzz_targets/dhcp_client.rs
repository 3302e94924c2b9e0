#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pearp_fuzz::dhcp_client(data));
