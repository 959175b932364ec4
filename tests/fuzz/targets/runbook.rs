//! Runbook files: as site files.
#![no_main]

use deploy_engine::model::parse_document;
use libfuzzer_sys::fuzz_target;
use runbooks::format::Runbook;

fuzz_target!(|text: &str| {
    if let Err(errors) = parse_document::<Runbook>("runbook.yaml", text) {
        assert!(!errors.to_string().is_empty());
    }
});
