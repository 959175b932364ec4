use super::*;

fn names(read: &Read) -> Vec<&str> {
    read.seen.iter().map(|seen| seen.name.as_str()).collect()
}

const RULES: &str = "\
# first
---
groups:
- name: a
  rules:
  - {alert: RabbitmqNodeDown, expr: up == 0}
  - {record: x:y, expr: sum(up)}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
spec:
  groups:
  - name: b
    rules:
    - alert: CephOSDDown
      expr: ceph_health_detail{name=\"OSD_DOWN\"} == 1
      annotations: {summary: 'on {{ $labels.instance }}'}
---
kind: ConfigMap
data:
  x.rules: |
    groups:
    - name: c
      rules:
      - alert: InnerAlert
        expr: up == 0
";

#[test]
fn rule_files_in_their_shapes() {
    let found = read("x.yaml", RULES);
    assert_eq!(
        names(&found),
        ["RabbitmqNodeDown", "CephOSDDown", "InnerAlert"]
    );
    assert_eq!(found.errors, Vec::<String>::new());
    assert!(found.seen.iter().all(|seen| seen.labels.is_none()));
    let groups = read(
        "x.yaml",
        "- name: a\n  rules:\n  - alert: X\n    expr: up\n",
    );
    assert_eq!(
        names(&groups),
        ["X"],
        "a list of groups, as a service of ours has it"
    );
    let helm = read(
        "x.yaml",
        "conf:\n  rules:\n    ceph:\n      groups:\n      - name: a\n        rules: [{alert: Y, expr: up}]\n",
    );
    assert_eq!(names(&helm), ["Y"]);
}

#[test]
fn answers_and_bodies() {
    let webhook = r#"{"version": "4", "groupLabels": {"alertname": "G"}, "commonLabels": {"alertname": "G"},
        "alerts": [{"status": "firing", "labels": {"alertname": "A", "instance": "h:1"}, "startsAt": "2026-01-01T00:00:00Z"}]}"#;
    let found = read("x", webhook);
    assert_eq!(names(&found), ["A"]);
    assert_eq!(found.seen[0].labels.as_ref().unwrap()["instance"], "h:1");
    let v2 = r#"[{"labels": {"alertname": "B"}, "fingerprint": "1", "status": {"state": "active"}}, {"labels": {}, "startsAt": "2026-01-01T00:00:00Z"}]"#;
    assert_eq!(
        names(&read("x", v2)),
        ["B", ""],
        "an alert may have no name"
    );
    let prometheus = r#"{"status": "success", "data": {"alerts": [{"labels": {"alertname": "C"}, "state": "firing", "activeAt": "2026-01-01T00:00:00Z"}]}}"#;
    assert_eq!(names(&read("x", prometheus)), ["C"]);
    let rules = r#"{"status": "success", "data": {"groups": [{"name": "g", "rules": [{"type": "alerting", "name": "D", "query": "up",
        "alerts": [{"labels": {"alertname": "D"}, "activeAt": "x"}]}, {"type": "recording", "name": "r", "query": "up"}]}]}}"#;
    assert_eq!(names(&read("x", rules)), ["D"]);
}

#[test]
fn icinga_objects_and_events() {
    let objects = r#"{"results": [{"type": "Service", "name": "ctl1!db", "attrs": {"name": "db", "host_name": "ctl1", "check_command": "mysql", "state": 2}},
        {"type": "Host", "name": "ctl1", "attrs": {"name": "ctl1", "check_command": "hostalive"}}]}"#;
    let found = read("x", objects);
    assert_eq!(names(&found), ["db", "ctl1"]);
    assert_eq!(
        found.seen[0].labels.as_ref().unwrap()["check_command"],
        "mysql"
    );
    let stream = "{\"type\": \"StateChange\", \"host\": \"ctl1\", \"service\": \"db\", \"state\": 2}\n{\"type\": \"StateChange\", \"host\": \"ctl2\"}\n{broken\n";
    let found = read("x", stream);
    assert_eq!(names(&found), ["db", "ctl2"]);
    assert!(found.errors[0].starts_with("line 3:"), "{:?}", found.errors);
}

#[rstest::rstest]
#[case("{% raw %}\ngroups: []\n", "render it first")]
#[case(
    "local x = import 'a.libsonnet';\n{\n  prometheusAlerts+:: { groups+: [ ] },\n}\n",
    "line 3: this is not YAML"
)]
#[case("groups: [", "this is not YAML")]
#[case("<html><body>503</body></html>", "found none")]
#[case("{\"a\": 1}", "expected alerts; found none")]
#[case("{broken", "expected JSON")]
#[case(
    "groups:\n- name: a\n  rules:\n  - {alert: '{{ name }}Down', expr: up}\n",
    "a template that was not filled in"
)]
#[case("", "found none")]
fn what_is_none_is_an_error_with_its_reason(#[case] text: &str, #[case] part: &str) {
    let found = read("x.yaml", text);
    assert!(found.seen.is_empty(), "{:?}", found.seen);
    assert!(
        found.errors.iter().any(|error| error.contains(part)),
        "{:?}",
        found.errors
    );
}

#[test]
fn one_wrong_document_keeps_none_of_the_others_back() {
    let text = "groups:\n- rules: [{alert: A, expr: up}]\n---\na: [\n---\ngroups:\n- rules: [{alert: B, expr: up}]\n";
    let found = read("x.yaml", text);
    assert_eq!(names(&found), ["A", "B"]);
    assert_eq!(found.errors.len(), 1);
    assert!(found.errors[0].starts_with("line "), "{:?}", found.errors);
}
