//! Frames between engine and agent, both ways: whatever comes, nothing panics, and what was read is written the same.
#![no_main]

use deploy_engine::wire::{Event, Reply, Request, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((request, used))) = decode::<Request>(rest) {
        let written = encode(&request).expect("what was read can be written");
        let (again, _) = decode::<Request>(&written)
            .expect("and read")
            .expect("whole");
        assert_eq!(encode(&again).ok().as_deref(), Some(&written[..]));
        rest = &rest[used..];
    }
    let _ = decode::<Reply>(bytes);
    let _ = decode::<Event>(bytes);
});
