//! Artefacts with a known checksum, downloaded and unpacked into a directory of their own.
//!
//! The download goes the way packages go, by apt's own methods: through the proxy that the host's apt uses, and to nowhere else.
//! The directory is replaced in one step, and a file in it says what it was made from. A directory without that file was made by
//! somebody else, and is never replaced.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

use super::{Judged, Pending, hex, plain_path};
use crate::{
    agent::{
        durable,
        exec::{Exec, failure},
        root::Root,
    },
    wire::{ARCHIVE_MARKER as MARKER, Command},
};

/// The largest download, and the largest file in it, in bytes: a whole OpenSearch with its Java is 900 MB.
const FILE_LIMIT_BYTES: u64 = 2 << 30;
/// All that comes out of it, in bytes.
const UNPACKED_LIMIT_BYTES: u64 = 8 << 30;
/// The list of an archive's entries, in bytes: 100,000 entries fit.
const LIST_LIMIT_BYTES: u32 = 16 << 20;
/// 2 GB at 2 MB/s. A step's own limit is usually shorter.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(1000);
const UNPACK_TIMEOUT: Duration = Duration::from_secs(600);
/// Part of Debian's apt, on every host.
const DOWNLOADER: &str = "/usr/lib/apt/apt-helper";

/// How an unpacked artefact is wanted.
pub struct Wanted<'a> {
    /// The directory.
    pub path: &'a str,
    pub url: &'a str,
    /// Of the artefact, in hexadecimal.
    pub sha256: &'a str,
    /// Leading parts of the entries' names that are left out.
    pub strip: u32,
}

impl Wanted<'_> {
    fn marker(&self) -> String {
        format!("{} {}\n", self.sha256, self.strip)
    }

    fn check(&self) -> Result<(), String> {
        plain_path(self.path)?;
        if self.path[1..].split('/').count() < 2 {
            return Err(format!(
                "expected a directory below one of the first level, found {}",
                self.path
            ));
        }
        let web = ["http://", "https://"]
            .iter()
            .any(|scheme| self.url.starts_with(scheme));
        if !web || !self.url.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("expected an http(s) address, found {:?}", self.url));
        }
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(digits) {
            return Err(format!(
                "expected a SHA-256 of 64 small hexadecimal digits, found {:?}",
                self.sha256
            ));
        }
        Ok(())
    }

    /// A private directory beside the wanted one, so that the last step is one rename. What a killed attempt left is there, too.
    fn workshop(&self, root: &Root) -> PathBuf {
        let path = root.at(self.path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!(".{name}.nightshift-new"))
    }
}

pub fn look(root: &Root, wanted: &Wanted<'_>, pending: &Pending) -> Judged {
    if let Err(why) = wanted.check() {
        return Judged::cannot("", why);
    }
    let path = root.at(wanted.path);
    let fresh = || vec![format!("+ {} from {}", wanted.path, wanted.url)];
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match super::file::parent_missing(&path, wanted.path, pending) {
                Some(why) => Judged::cannot("absent", why),
                None => Judged::by_diff("absent", fresh()),
            }
        }
        Err(error) => Judged::unknown(format!("expected to read {}, found: {error}", wanted.path)),
        Ok(found) if !found.is_dir() => Judged::cannot(
            "not a directory",
            format!("expected a directory at {}", wanted.path),
        ),
        Ok(_) => match fs::read_to_string(path.join(MARKER)) {
            Ok(marker) if marker == wanted.marker() => Judged::by_diff(&marker, vec![]),
            Ok(marker) => {
                let mut diff = vec![format!("- {} of {}", wanted.path, marker.trim())];
                diff.extend(fresh());
                Judged::by_diff(&marker, diff)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Judged::cannot(
                "foreign",
                format!(
                    "{} was not unpacked by Nightshift, so it is left alone",
                    wanted.path
                ),
            ),
            Err(error) => Judged::unknown(format!(
                "expected to read {}/{MARKER}, found: {error}",
                wanted.path
            )),
        },
    }
}

pub fn apply(root: &Root, exec: &Exec, wanted: &Wanted<'_>) -> Result<(), String> {
    wanted.check()?;
    let workshop = wanted.workshop(root);
    remove(&workshop)?;
    durable::create_private_dir(&workshop)?;
    let made = make(root, exec, wanted, &workshop);
    let removed = remove(&workshop);
    made.and(removed)
}

fn make(root: &Root, exec: &Exec, wanted: &Wanted<'_>, workshop: &Path) -> Result<(), String> {
    let artefact = workshop.join("artefact");
    download(root, exec, wanted, &artefact)?;
    check_sum(wanted, &artefact)?;
    let content = workshop.join("content");
    unpack(exec, wanted, &artefact, &content)?;
    durable::write(&content.join(MARKER), wanted.marker().as_bytes())?;
    settle(exec, &content)?;
    place(&content, &root.at(wanted.path))
        .map_err(|error| format!("expected to put {} in place, found: {error}", wanted.path))
}

/// A file that grows beyond the limit ends its writer.
fn limited(words: &[&str]) -> Vec<String> {
    let mut argv = vec!["prlimit".to_owned(), format!("--fsize={FILE_LIMIT_BYTES}")];
    argv.extend(words.iter().map(|&word| word.to_owned()));
    argv
}

fn run(
    exec: &Exec,
    argv: Vec<String>,
    timeout: Duration,
    output: u32,
) -> Result<(String, bool), String> {
    let command = Command {
        argv,
        env: Default::default(),
        stdin: None,
        user: None,
        timeout_seconds: timeout.as_secs().try_into().unwrap_or(u32::MAX),
        output_limit_bytes: output,
    };
    let found = exec.run(&command)?;
    if found.ok() {
        return Ok((found.stdout, found.truncated));
    }
    let words: Vec<&str> = command.argv.iter().map(String::as_str).collect();
    Err(failure(&words, &found))
}

/// Of a program's words, in bytes: enough for its reasons.
const WORDS_BYTES: u32 = 64 * 1024;

fn download(root: &Root, exec: &Exec, wanted: &Wanted<'_>, to: &Path) -> Result<(), String> {
    let (helper, to) = (root.at(DOWNLOADER), to.display().to_string());
    let sum = format!("SHA256:{}", wanted.sha256);
    let helper = helper.display().to_string();
    let argv = limited(&[
        &helper,
        "-o",
        "Acquire::Retries=2",
        "download-file",
        wanted.url,
        &to,
        &sum,
    ]);
    run(exec, argv, DOWNLOAD_TIMEOUT, WORDS_BYTES).map(drop)
}

/// Our own look, whatever the downloader says.
fn check_sum(wanted: &Wanted<'_>, file: &Path) -> Result<(), String> {
    let read =
        |error: io::Error| format!("expected the download of {}, found: {error}", wanted.url);
    let mut from = File::open(file).map_err(read)?;
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match from.read(&mut chunk).map_err(read)? {
            0 => break,
            count => digest.update(&chunk[..count]),
        }
    }
    let found = hex(&digest.finalize());
    if found == wanted.sha256 {
        Ok(())
    } else {
        Err(format!(
            "{}: expected the SHA-256 {}, found {found}",
            wanted.url, wanted.sha256
        ))
    }
}

/// By bsdtar (package `libarchive-tools`), which knows zip and every tar.
fn unpack(exec: &Exec, wanted: &Wanted<'_>, artefact: &Path, to: &Path) -> Result<(), String> {
    let artefact = artefact.display().to_string();
    let list = limited(&["bsdtar", "-tvf", &artefact]);
    let (list, cut) = run(exec, list, UNPACK_TIMEOUT, LIST_LIMIT_BYTES)?;
    if cut {
        return Err(format!(
            "{}: expected a list of at most {LIST_LIMIT_BYTES} bytes, found a longer one",
            wanted.url
        ));
    }
    check_entries(&list).map_err(|why| format!("{}: {why}", wanted.url))?;
    durable::create_private_dir(to)?;
    let strip = format!("--strip-components={}", wanted.strip);
    let argv = limited(&[
        "bsdtar",
        "-x",
        "--no-same-owner",
        "--no-same-permissions",
        "--no-acls",
        "--no-xattrs",
        "--no-fflags",
        &strip,
        "-f",
        &artefact,
        "-C",
        &to.display().to_string(),
    ]);
    run(exec, argv, UNPACK_TIMEOUT, WORDS_BYTES).map(drop)
}

/// What `bsdtar -tv` says: `-rw-r--r--  0 user group  1234 Jul  1  2026 a/name`. Files, directories and links below one place,
/// within the limit; the unpacker refuses the like by itself, and this is the second look.
fn check_entries(list: &str) -> Result<(), String> {
    let (mut bytes, mut entries) = (0_u64, 0_u64);
    for line in list.lines() {
        let kind = line.chars().next().unwrap_or(' ');
        let mut words = line.split_whitespace();
        let size = words.nth(4).and_then(|word| word.parse::<u64>().ok());
        let name: Vec<&str> = words.skip(3).collect();
        let name = name.join(" ");
        let name = name.split(" -> ").next().unwrap_or_default();
        let (Some(size), false) = (size, name.is_empty()) else {
            return Err(format!("expected the line of an entry, found {line:?}"));
        };
        if !matches!(kind, '-' | 'd' | 'l' | 'h') {
            return Err(format!(
                "expected files, directories and links, found {line:?}"
            ));
        }
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Err(format!(
                "expected names below one directory, found {name:?}"
            ));
        }
        bytes = bytes.saturating_add(size);
        entries += 1;
    }
    match (entries, bytes) {
        (0, _) => Err("expected entries, found none".to_owned()),
        (_, bytes) if bytes > UNPACKED_LIMIT_BYTES => Err(format!(
            "expected at most {UNPACKED_LIMIT_BYTES} bytes unpacked, found {bytes}"
        )),
        _ => Ok(()),
    }
}

/// The same owner and modes on every host, and on the disk before it counts as there.
fn settle(exec: &Exec, content: &Path) -> Result<(), String> {
    let content = content.display().to_string();
    let modes = ["chmod", "-R", "u=rwX,go=rX", "--", &content];
    exec.text(&modes, UNPACK_TIMEOUT)?;
    exec.text(&["sync", "--file-system", "--", &content], UNPACK_TIMEOUT)
        .map(drop)
}

/// One step: whoever looks sees the old directory or the new one. The old one is left where the new one was.
fn place(content: &Path, path: &Path) -> io::Result<()> {
    if path.exists() {
        renameat_with(CWD, content, CWD, path, RenameFlags::EXCHANGE)?;
    } else {
        fs::rename(content, path)?;
    }
    durable::sync_dir_of(path)
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!(
            "expected to remove {}, found: {error}",
            path.display()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{agent::resource::sha256_hex, wire::State};

    /// A host on which `bsdtar` and apt's helper are small scripts: an artefact is a list of entries, and the file `name` comes out.
    struct Host {
        dir: tempfile::TempDir,
        exec: Exec,
    }

    const HELPER: &str = "#!/bin/sh\n# -o X download-file URL TO SUM\necho \"$4\" >> \"${0%/usr/lib/apt/*}/asked\"\ncp \"${0%/usr/lib/apt/*}/served\" \"$5\"\n";
    const BSDTAR: &str = "#!/bin/sh\nif [ \"$1\" = -tvf ]; then cat \"$2\"; exit; fi\nwhile [ \"$1\" != -f ]; do shift; done\n\
        cp \"$2\" \"$4/name\"; chmod 4777 \"$4/name\"\n";

    impl Host {
        fn serving(list: &str) -> (Host, String) {
            let dir = tempfile::tempdir().unwrap();
            for (path, text) in [("usr/lib/apt/apt-helper", HELPER), ("bin/bsdtar", BSDTAR)] {
                let path = dir.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            fs::create_dir(dir.path().join("opt")).unwrap();
            let exec = Exec::new(Root::new(dir.path()));
            let host = Host { dir, exec };
            let sum = host.serve(list);
            (host, sum)
        }

        fn serve(&self, list: &str) -> String {
            fs::write(self.dir.path().join("served"), list).unwrap();
            sha256_hex(list.as_bytes())
        }

        fn look(&self, sha256: &str) -> State {
            let wanted = wanted("/opt/app", sha256);
            look(self.exec.root(), &wanted, &Pending::default()).state
        }

        fn apply(&self, sha256: &str) -> Result<(), String> {
            apply(self.exec.root(), &self.exec, &wanted("/opt/app", sha256))
        }

        fn entries(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(self.dir.path().join("opt"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        }
    }

    fn wanted<'a>(path: &'a str, sha256: &'a str) -> Wanted<'a> {
        Wanted {
            path,
            url: "http://repository.example/a.zip",
            sha256,
            strip: 1,
        }
    }

    const FIRST: &str = "-rw-r--r--  0 root   root      1234 Jul  1  2026 app-1/a name\n";
    const SECOND: &str = "drwxr-xr-x  0 0      0            0 Jul  1 10:00 app-2/lib/\n";

    #[test]
    fn unpacked_once_replaced_whole_and_left_alone_when_it_is_as_wanted() {
        let (host, first) = Host::serving(FIRST);
        assert!(matches!(host.look(&first), State::WillChange { .. }));
        // What an attempt that was killed left behind is no hindrance.
        fs::create_dir_all(host.dir.path().join("opt/.app.nightshift-new/content")).unwrap();
        host.apply(&first).unwrap();
        assert_eq!(host.look(&first), State::Same);
        let name = host.dir.path().join("opt/app/name");
        assert_eq!(fs::read_to_string(&name).unwrap(), FIRST);
        let mode = fs::metadata(&name).unwrap().permissions().mode();
        assert_eq!(
            mode & 0o7777,
            0o755,
            "no set-user-ID, not writable by others"
        );
        let second = host.serve(SECOND);
        assert!(matches!(host.look(&second), State::WillChange { .. }));
        host.apply(&second).unwrap();
        assert_eq!(fs::read_to_string(&name).unwrap(), SECOND);
        assert_eq!(host.entries(), ["app"]);
    }

    #[test]
    fn another_checksum_is_refused_and_changes_nothing() {
        let (host, first) = Host::serving(FIRST);
        host.apply(&first).unwrap();
        let other = sha256_hex(b"something else");
        let why = host.apply(&other).unwrap_err();
        assert!(why.contains(&other) && why.contains(&first), "{why}");
        assert_eq!(host.look(&first), State::Same);
        assert_eq!(host.entries(), ["app"]);
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_alone() {
        let (host, first) = Host::serving(FIRST);
        fs::create_dir(host.dir.path().join("opt/app")).unwrap();
        assert!(matches!(host.look(&first), State::Cannot { .. }));
    }

    #[test]
    fn only_pinned_artefacts_from_the_web_into_plain_places() {
        let sum = sha256_hex(b"");
        for (path, url, sha256, good) in [
            ("/opt/app", "https://a.example/x.zip", sum.as_str(), true),
            ("/opt", "https://a.example/x.zip", &sum, false),
            ("/opt/../app", "https://a.example/x.zip", &sum, false),
            ("/opt/app", "file:///etc/shadow", &sum, false),
            ("/opt/app", "https://a.example/x y", &sum, false),
            ("/opt/app", "-o", &sum, false),
            ("/opt/app", "https://a.example/x.zip", "", false),
            (
                "/opt/app",
                "https://a.example/x.zip",
                &sum.to_uppercase(),
                false,
            ),
        ] {
            let wanted = Wanted {
                path,
                url,
                sha256,
                strip: 0,
            };
            assert_eq!(wanted.check().is_ok(), good, "{path} {url} {sha256}");
        }
    }

    #[test]
    fn entries_stay_below_their_directory_and_within_the_limit() {
        let line = |kind: &str, size: u64, name: &str| {
            format!("{kind}rw-r--r--  0 root   root  {size} Jul  1  2026 {name}\n")
        };
        for (list, good) in [
            (FIRST.to_owned() + SECOND, true),
            (line("l", 0, "app/link -> ../other"), true),
            (line("-", 1, "app/a..b"), true),
            (line("-", 1, "../x"), false),
            (line("-", 1, "app/../../x"), false),
            (line("-", 1, "/etc/passwd"), false),
            (line("c", 0, "app/null"), false),
            (line("-", UNPACKED_LIMIT_BYTES + 1, "app/big"), false),
            (line("-", u64::MAX, "app/a") + &line("-", 9, "app/b"), false),
            ("what is this\n".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(check_entries(&list).is_ok(), good, "{list}");
        }
        let (host, bad) = Host::serving(&line("-", 1, "../x"));
        assert!(
            host.apply(&bad)
                .unwrap_err()
                .contains("below one directory")
        );
        assert!(host.entries().is_empty());
    }
}
