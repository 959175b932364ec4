use super::*;

#[test]
fn the_embedded_library_is_without_errors_and_complete() {
    let library = Library::embedded().unwrap_or_else(|errors| panic!("{errors}"));
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/library")).unwrap();
    let mut files: Vec<String> = folder
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let names: Vec<String> = library
        .iter()
        .map(|runbook| format!("{}.yaml", runbook.runbook))
        .collect();
    assert_eq!(files, names, "every file of the folder is embedded");
}

#[test]
fn a_runbook_file_named_after_its_id_and_with_drills() {
    for (name, text) in embedded(&EMBEDDED) {
        let runbook = parse_document::<Runbook>(name, text).unwrap().value;
        assert_eq!(format!("{}.yaml", runbook.runbook), name);
        let drilled = !runbook.drill.is_empty() && runbook.counter_drills.len() >= 3;
        assert!(drilled || runbook.class == Class::Diagnosis, "{name}");
        assert!(
            runbook.about.len() > 80,
            "{name}: expected to say what is left to people"
        );
    }
}

#[test]
fn settings_are_overridden_by_known_names_only() {
    let library = Library::embedded().unwrap();
    let runbook = library.get(&RunbookId("MEM-1".into())).unwrap();
    let site = [
        ("quiet".to_owned(), "5s".into()),
        ("odd".to_owned(), 1.into()),
    ]
    .into();
    let settings = settings(runbook, &site);
    assert_eq!(
        settings,
        [
            ("confirm".to_owned(), 30.into()),
            ("quiet".to_owned(), 5.into())
        ]
        .into()
    );
}

fn memcached() -> &'static str {
    embedded(&EMBEDDED)
        .find(|(name, _)| *name == "MEM-1.yaml")
        .unwrap()
        .1
}

fn errors(change: &[(&str, &str)]) -> String {
    let mut text = memcached().to_owned();
    for (from, to) in change {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    match parse_document::<Runbook>("MEM-1.yaml", &text) {
        Err(errors) => errors.to_string(),
        Ok(document) => check_document(&document).to_string(),
    }
}

#[rstest::rstest]
#[case(&[("decide: memcached.down", "decide: memcached.dwn")], "did you mean `memcached.down`?")]
#[case(&[("evidence: [host.unit/memcached.service, memcached.stats]", "evidence: [host.unt/memcached.service, memcached.stats]")], "did you mean `host.unit/memcached.service`?")]
#[case(&[("evidence: [host.unit/memcached.service, memcached.stats]", "evidence: [host.unit/memcached.service]")], "also reads memcached.stats")]
#[case(&[("guard: unit.startable", "guard: unit.startabel")], "did you mean `unit.startable`?")]
#[case(&[("    guard: unit.startable\n", "")], "needs a guard")]
#[case(&[("on: down", "on: dwon")], "did you mean `down`?")]
#[case(&[("on: down", "on: members")], "never run on \"all members\"")]
#[case(&[("systemctl, start, memcached.service", "bash, -c, reboot")], "bash is not run by runbooks")]
#[case(&[("systemctl, start, memcached.service", "/bin/rm, -rf, x")], "/bin/rm is not run by runbooks")]
#[case(&[("systemctl, start, memcached.service", "rabbitmqctl, force_reset")], "resetting RabbitMQ (force-reset) is never done by the bot")]
#[case(&[("systemctl, start, memcached.service", "systemctl, start, \"{unit}\"")], "there is no parameter of this name")]
#[case(&[("effect: converge", "effect: once"), ("    unless: memcached.answers\n", "")], "must not happen twice")]
#[case(&[("  - snapshot: [host.unit/memcached.service]\n", "")], "a snapshot as the first step")]
#[case(&[("  quiet: 30m\n", "")], "needs the settings quiet")]
#[case(&[("  quiet: 30m\n", "  quiet: 30m\n  quite: 30m\n")], "did you mean `quiet`?")]
#[case(&[("settle: 15m", "settle: 1 quarter")], "^[0-9]{1,6}[smhd]$")]
#[case(&[("settle: 15m", "settle: 25m")], "a deadline after it")]
#[case(&[("    within: 60s\n", "")], "`then` and `within` belong together")]
#[case(&[("class: automatic", "class: always")], "always")]
#[case(&[("class: automatic", "class: diagnosis")], "a diagnosis changes nothing")]
#[case(&[("class: automatic", "class: diagnosis")], "memcached.down decides on repairs")]
#[case(&[("drill: mem-down\n", "")], "the drill that proves it")]
#[case(&[("proof: {condition: memcached.answers, settle: 15m, deadline: 25m}\n", "")], "what proves that it is mended")]
#[case(&[("runbook: MEM-1", "runbook: mem")], "mem")]
#[case(&[("lock: service", "lock: service\nlook: service")], "look")]
fn errors_say_where_and_what(#[case] change: &[(&str, &str)], #[case] part: &str) {
    let found = errors(change);
    assert!(found.contains(part), "expected {part:?} in:\n{found}");
    assert!(found.contains("MEM-1.yaml:"), "{found}");
}

#[test]
fn a_directory_of_the_site_replaces_and_adds_and_all_errors_come_at_once() {
    let folder = std::env::temp_dir().join(format!("nightshift-runbooks-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let memcached = memcached();
    std::fs::write(
        folder.join("a.yaml"),
        memcached.replace("title: memcached down", "title: ours"),
    )
    .unwrap();
    let library = Library::load(std::slice::from_ref(&folder)).unwrap();
    assert_eq!(
        library.get(&RunbookId("MEM-1".into())).unwrap().title,
        "ours"
    );
    std::fs::write(folder.join("b.yaml"), memcached).unwrap();
    std::fs::write(folder.join("c.yaml"), "runbook: [").unwrap();
    let text = Library::load(std::slice::from_ref(&folder))
        .unwrap_err()
        .to_string();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(
        text.contains("twice in this directory") && text.contains("c.yaml"),
        "{text}"
    );
    let text = Library::load(&[folder]).unwrap_err().to_string();
    assert!(text.contains("cannot be read"), "{text}");
}
