#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| comfy_router_fuzz::socket(data));
