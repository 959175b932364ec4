//! Site and service files: every text is either understood or refused with a place.
#![no_main]

use deploy_engine::model::{ServiceSpec, SiteFile, parse_document};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(errors) = parse_document::<SiteFile>("site.yaml", text) {
        assert!(!errors.to_string().is_empty());
    }
    let _ = parse_document::<ServiceSpec>("service.yaml", text);
});
