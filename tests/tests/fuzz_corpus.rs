//! The corpus of the fuzz targets (docs/fuzzing.md) through the same functions, on the ordinary compiler: what a fuzzer once found
//! stays found.

use std::{fs, path::Path};

#[path = "../fuzz/entry.rs"]
mod entry;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");

#[test]
fn every_kept_input_passes_its_target() {
    for (name, target) in entry::TARGETS {
        let folder = Path::new(CORPUS).join(name);
        let mut inputs = 0;
        for file in fs::read_dir(&folder).expect("every target has a corpus") {
            let path = file.expect("a file of the corpus").path();
            // Shown by the test's output when the next line panics.
            println!("{}", path.display());
            target(&fs::read(&path).expect("it can be read"));
            inputs += 1;
        }
        assert!(inputs > 0, "{name} has no corpus");
    }
}

#[test]
fn every_target_is_listed_and_has_its_program() {
    let names = |folder: &Path| -> Vec<String> {
        let stem = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.expect("an entry").path();
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
        };
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("a folder")
            .filter_map(stem)
            .collect();
        names.sort();
        names
    };
    let listed: Vec<&str> = entry::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(Path::new(CORPUS)), listed);
    assert_eq!(names(&Path::new(CORPUS).with_file_name("targets")), listed);
}
