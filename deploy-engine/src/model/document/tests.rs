use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;
use crate::model::HostName;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Example {
    /// What it is called.
    title: String,
    #[serde(default)]
    hosts: BTreeMap<HostName, Host>,
    #[serde(default)]
    things: Vec<Thing>,
    #[serde(default)]
    mode: Option<Mode>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Host {
    address: String,
    #[schemars(range(min = 1))]
    port: Option<u16>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Thing {
    Word(String),
    File(FileThing),
    Directory(DirectoryThing),
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FileThing {
    file: String,
    mode: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DirectoryThing {
    directory: String,
    mode: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Fast,
    Safe,
}

fn errors(text: &str) -> String {
    parse_document::<Example>("example.yaml", text)
        .expect_err("the text is wrong on purpose")
        .to_string()
}

#[test]
fn a_good_document_keeps_its_places() {
    let text = "title: t\nhosts:\n  ctl1: {address: 10.0.0.1, port: 22}\nthings: [word, {file: /a, mode: '0644'}]\nmode: safe\n";
    let document = parse_document::<Example>("example.yaml", text).unwrap();
    let port = document.error_at(&["hosts", "ctl1", "port"], "here");
    assert_eq!((port.line, port.column, port.width), (3, 35, 2));
    let host = document.error_at_key(&["hosts", "ctl1"], "here");
    assert_eq!((host.line, host.column, host.width), (3, 3, 4));
    let second = document.error_at(&["things", "1", "file"], "here");
    assert_eq!((second.line, second.column), (4, 23));
    assert_eq!(document.value.things.len(), 2);
}

#[test]
fn all_errors_come_at_once_with_their_places() {
    insta::assert_snapshot!(errors(
        "titel: t\nhosts:\n  Ctl1: {address: x}\n  ctl2: {adress: x, port: 70000}\n  ctl3: {address: [1]}\nmode: quick\nmode: safe\n"
    ));
}

#[test]
fn a_choice_is_explained_by_the_form_that_was_meant() {
    insta::assert_snapshot!(errors(
        "title: t\nthings:\n  - {file: /a, mod: '0644'}\n  - {directry: /a}\n  - 17\n"
    ));
}

#[rstest::rstest]
#[case::empty("", "the document is wrong")]
#[case::broken("title: [", "this is not YAML")]
#[case::twice("title: a\ntitle: b\n", "`title` is given twice")]
#[case::tag("title: !secret a\n", "tags")]
#[case::second("title: a\n---\ntitle: b\n", "a second document")]
#[case::alias("title: *x\n", "not YAML")]
#[case::infinite("title: .inf\n", "not a number")]
fn odd_documents_are_refused(#[case] text: &str, #[case] says: &str) {
    let errors = errors(text);
    assert!(errors.contains(says), "{errors}");
}

#[test]
fn deep_nesting_and_alias_bombs_end_early() {
    let deep = format!("title: {}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(errors(&deep).contains("nested too deep") || errors(&deep).contains("not YAML"));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let before = level - 1;
        let list = vec![format!("*a{before}"); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert!(errors(&bomb).contains("aliases expand to too much"));
}

#[test]
fn a_missing_or_binary_file_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.yaml");
    assert!(
        load_document::<Example>(&path)
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(
        load_document::<Example>(&path)
            .unwrap_err()
            .to_string()
            .contains("UTF-8")
    );
}

#[test]
fn what_is_right_in_a_wrong_document_can_be_used() {
    let text = "title: t\nhosts:\n  ctl1: {address: x, prot: 1}\n  ctl2: {adress: x}\nthings: [word, 17, word]\nmod: safe\n";
    let partly = parse_partly::<Example>("example.yaml", text);
    let document = partly.document.unwrap();
    // ctl2 has no address; what follows a wrong entry of a list goes with it.
    let hosts: Vec<&str> = document.value.hosts.keys().map(|h| h.as_str()).collect();
    assert_eq!(hosts, ["ctl1"]);
    assert_eq!(document.value.things.len(), 1);
    let doubtful: Vec<&str> = partly.doubtful.iter().map(String::as_str).collect();
    assert_eq!(doubtful, ["hosts", "mode", "things"]);
    assert_eq!(partly.errors.0.len(), 5, "{}", partly.errors);
    let none = parse_partly::<Example>("example.yaml", "hosts: {}\n");
    assert!(none.document.is_none() && !none.errors.is_empty());
}
