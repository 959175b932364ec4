use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use super::{catalogue::Folder, *};
use crate::wire::Resource;

/// A test file holds several files, each after a line `=== NAME`.
fn sections(text: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        match line.strip_prefix("=== ") {
            Some(next) => next.clone_into(&mut name),
            None => {
                let file: &mut String = files.entry(name.clone()).or_default();
                file.push_str(line);
                file.push('\n');
            }
        }
    }
    files
}

/// Built-in services and those of the test file.
fn folders(files: &BTreeMap<String, String>) -> Result<BTreeMap<ServiceName, Folder>, Diagnostics> {
    static BUILT_IN: LazyLock<BTreeMap<ServiceName, Folder>> =
        LazyLock::new(|| catalogue::load(&[]).unwrap_or_else(|errors| panic!("{errors}")));
    let mut folders = BUILT_IN.clone();
    let mut own: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (name, text) in files {
        if let Some((folder, file)) = name.rsplit_once('/') {
            let folder = own.entry(folder.to_owned()).or_default();
            folder.insert(file.to_owned(), text.clone());
        }
    }
    let mut errors = Diagnostics::default();
    for (origin, files) in own {
        match catalogue::folder(origin, files) {
            Ok(folder) => {
                folders.insert(folder.document.value.service.clone(), folder);
            }
            Err(more) => errors.extend(more),
        }
    }
    errors.or(folders)
}

pub fn load(text: &str) -> Result<Model, Diagnostics> {
    let files = sections(text);
    let folders = folders(&files)?;
    let site = parse_document("site.yaml", &files["site.yaml"])?;
    Model::build(site, &folders, Path::new("/etc/nightshift"))
}

#[rstest::rstest]
fn bad_files_are_explained(#[files("src/model/testdata/*.txt")] path: PathBuf) {
    let text = std::fs::read_to_string(&path).unwrap();
    let errors = load(&text).expect_err("the file is wrong on purpose");
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    insta::with_settings!({snapshot_suffix => name, omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("bad", errors.to_string());
    });
}

const THREE: &str = "=== site.yaml
site: demo
ssh: {identity: keys/id, known_hosts: keys/known_hosts}
hosts:
  ctl1: {address: 10.77.0.11, groups: [control], rack: r1}
  ctl2: {address: 10.77.0.12, groups: [control], rack: r2}
  ctl3: {address: 10.77.0.13, groups: [control], rack: r3}
services:
  memcached: {on: [control, ctl1], settings: {memory_megabytes: 32}}
";

#[test]
fn a_site_gives_members_settings_and_rendered_resources() {
    let model = load(THREE).unwrap();
    let memcached: ServiceName = "memcached".parse().unwrap();
    let ctl2: HostName = "ctl2".parse().unwrap();
    assert_eq!(model.members(&memcached).len(), 3);
    let identity = model.site.ssh.identity.as_deref();
    assert_eq!(identity, Some(Path::new("/etc/nightshift/keys/id")));
    let member = model.member(&memcached, &ctl2).unwrap();
    insta::assert_json_snapshot!(
        "memcached_ctl2",
        member
            .resources
            .iter()
            .map(|r| (format!("{:?}", r.phase), &r.resource))
            .collect::<Vec<_>>()
    );
    insta::assert_json_snapshot!("memcached_removal", member.removal);
    let context = model.probe_context(Some(&memcached), &ctl2).unwrap();
    assert_eq!(context.address, "10.77.0.12");
    assert_eq!(context.members.len(), 3);
    assert_eq!(context.settings["port"], 11211);
}

#[test]
fn services_see_each_other_through_scrapes_front_ends_rules_and_secrets() {
    let text = format!(
        "{THREE}  web: {{on: ctl3}}\n  watcher: {{on: ctl1}}\n{}",
        "
=== services/web/service.yaml
service: web
title: Web
group: Test
topology: single
settings:
  port: {type: port, default: 8080, doc: Port}
secrets: [token]
metrics: [{job: web, port: '{{ settings.port }}'}]
balance: [{listen: 80, port: '{{ settings.port }}', mode: http, check: {http: /ok}}]
alerts: alerts.yaml
=== services/web/alerts.yaml
- name: web
  rules:
    - alert: WebDown
      expr: up{job=\"web\"} == 0
      annotations: {summary: '{{ $labels.instance }} of [[ services.web.settings.port ]]'}
=== services/watcher/service.yaml
service: watcher
title: Watcher
group: Test
topology: clustered
after: [web]
resources:
  - {file: /etc/watcher.json, template: all.j2, only: single}
  - {file: /etc/cluster, content: never, only: clustered}
=== services/watcher/all.j2
{{ scrapes | tojson }}
{{ backends | tojson }}
{{ rules | tojson }}
{{ services.web.secret.token }} {{ first }} {{ clustered }} {{ hosts | length }} {{ host.rack }}
"
    );
    let model = load(&text).unwrap();
    let rendered = model.rendered(&"watcher".parse().unwrap(), &"ctl1".parse().unwrap());
    assert_eq!(rendered.len(), 1);
    let Resource::File { content, .. } = &rendered[0].resource else {
        panic!("expected a file")
    };
    insta::assert_snapshot!("watcher", content);
    assert_eq!(
        model.secret_names().into_iter().collect::<Vec<_>>(),
        ["nightshift.steps", "web.token"]
    );
}

#[test]
fn checks_and_certificates_reach_templates() {
    let text = format!(
        "{THREE}  web: {{on: ctl3}}\n  watcher: {{on: ctl1}}\n{}",
        "
=== services/web/service.yaml
service: web
title: Web
group: Test
topology: single
ports: ['{{ host.address }}:80 127.0.0.1:9000', 8443]
=== services/watcher/service.yaml
service: watcher
title: Watcher
group: Test
topology: single
certificates: true
resources:
  - {file: /etc/watcher, template: all.j2}
=== services/watcher/all.j2
{% for one in checks if one.host == 'ctl3' %}
{{ one.check }} {{ one.command }} {{ one.like }} {{ one.vars.tcp_port }} {{ one.service }}
{% endfor %}
{{ tls.authority }} {{ tls.certificate }} {{ tls.key }}
"
    );
    let model = load(&text).unwrap();
    let rendered = model.rendered(&"watcher".parse().unwrap(), &"ctl1".parse().unwrap());
    let Resource::File { content, .. } = &rendered[0].resource else {
        panic!("expected a file")
    };
    assert_eq!(
        content,
        "memcached memcached tcp 11211 memcached\n\
         web-80 tcp None 80 web\n\
         web-8443 tcp None 8443 web\n\
         ⟦secret:watcher.tls/ca⟧ ⟦secret:watcher.tls/@ctl1⟧ ⟦secret:watcher.tls/@ctl1/key⟧\n"
    );
    let names = model.secret_names();
    assert!(
        names.contains("watcher.tls/ca/key") && names.len() == 5,
        "{names:?}"
    );
}

#[test]
fn a_check_of_more_than_one_line_is_an_error() {
    let text = format!(
        "{THREE}  web: {{on: ctl3}}\n{}",
        "
=== services/web/service.yaml
service: web
title: Web
group: Test
topology: single
checks:
  - {check: web, command: http, vars: {http_uri: \"/\\nobject Host\"}}
"
    );
    let errors = load(&text).unwrap_err().to_string();
    assert!(
        errors.contains("`http_uri` cannot be a check's parameter"),
        "{errors}"
    );
}

#[test]
fn user_folders_override_built_in_services() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("memcached");
    std::fs::create_dir(&own).unwrap();
    let text = "service: memcached\ntitle: Ours\ngroup: g\ntopology: per_host\n";
    std::fs::write(own.join("service.yaml"), text).unwrap();
    let dirs = [folder.path().to_path_buf()];
    let loaded = catalogue::load(&dirs).unwrap();
    assert_eq!(
        loaded[&"memcached".parse().unwrap()].document.value.title,
        "Ours"
    );
    let missing = [folder.path().join("nothing")];
    assert!(
        catalogue::load(&missing)
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
}

#[test]
fn schemas_of_both_formats_have_every_key() {
    let site = schema::<SiteFile>();
    assert!(site.pointer("/properties/hosts").is_some(), "{site}");
    let service = schema::<ServiceSpec>();
    assert!(
        service.pointer("/properties/rollout").is_some(),
        "{service}"
    );
    assert_eq!(service["additionalProperties"], false);
}
