//! A package that no repository has.

use std::fs;

use serde_json::json;

use super::hosts::{deploy_in_part, refusals};
use super::{active, in_small_lab, small_with};

const GHOST: &str = "service: ghost
title: Ghost
group: Test
topology: per_host
packages: [no-such-package-anywhere]
resources: []
";

#[test]
fn a_package_that_cannot_be_had() {
    in_small_lab("badpackage", 2, |lab| {
        let installation = small_with(lab, [("service_dirs", json!(["services"]))]);
        let service = installation.folder().join("services/ghost");
        fs::create_dir_all(&service).unwrap();
        fs::write(service.join("service.yaml"), GHOST).unwrap();
        let site = fs::read_to_string(installation.folder().join("site.yaml")).unwrap();
        installation
            .write_site(&format!("{site}  ghost: {{on: ctl2}}\n"))
            .unwrap();
        let plan = installation.plan("site").unwrap();
        let why = refusals(&plan);
        assert!(
            why.contains("no-such-package-anywhere") && why.contains("ctl2"),
            "{plan}"
        );
        // What does not need it is done, and what was left out is said again.
        let said = deploy_in_part(&installation, &plan);
        assert!(said.contains("no-such-package-anywhere"), "{said}");
        assert!(active(lab, "ctl1", "memcached"), "{said}");
        installation.write_site(&site).unwrap();
        installation.deploy_alone("site").unwrap();
        assert!(active(lab, "ctl2", "memcached"));
    });
}
