//! systemd's own word, over the socket on which `systemctl` asks it as root: some hundred microseconds instead of a process.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustbus::{
    MessageBuilder, MessageType,
    message_builder::MarshalledMessage,
    params::{Base, Container, Param},
    wire::{marshal::marshal, unmarshal},
};

/// Where systemd listens for root.
pub const SOCKET: &str = "/run/systemd/private";
/// Bytes of one message that are taken: a property is a word or a number.
const MESSAGE_LIMIT_BYTES: usize = 1024 * 1024;
/// Bytes of a message that tell how long it is: the fixed header and the length of the fields.
const PREFIX_BYTES: usize = 16;
/// Bytes of a line while both sides make each other's acquaintance.
const LINE_LIMIT_BYTES: usize = 1024;
const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// Who we are is the kernel's word; the number (of root, in hexadecimal digits of its letters) is only what we ask for.
const GREETING: &[u8] = b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n";
/// As much as systemd may read while it still greets; what it has read by then it does not look at before more comes.
const READ_WITH_GREETING_BYTES: usize = 256;
/// Properties that a unit has from its type; all others are those of every unit.
const OF_ITS_TYPE: [&str; 4] = ["Result", "Type", "MainPID", "NRestarts"];
/// How long a conversation is kept that nobody goes on with. To begin one costs systemd twice what a unit's properties cost;
/// while it is kept, systemd's signals wait in it unread.
const KEEP: Duration = Duration::from_secs(2);

/// Property → value, in the words of `systemctl show`.
pub type Words = BTreeMap<String, String>;

/// One conversation with systemd, within a limit of time.
pub struct Systemd {
    stream: UnixStream,
    deadline: Instant,
    serial: u32,
    greeted: bool,
}

/// The last conversation, for whoever asks next.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    idle: Option<(Instant, Systemd)>,
    /// Somebody will end it.
    watched: bool,
}

impl Kept {
    /// `ask` goes on with the last conversation, or with a new one if there is none, or it has ended.
    pub fn talk<T>(
        &self,
        socket: &Path,
        limit: Duration,
        ask: impl Fn(&mut Systemd) -> io::Result<T>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + limit;
        let kept = self.lock().idle.take();
        let again = kept.and_then(|(_, mut systemd)| {
            systemd.deadline = deadline;
            Some((ask(&mut systemd).ok()?, systemd))
        });
        let (answer, systemd) = match again {
            Some(answered) => answered,
            None => {
                let mut systemd = Systemd::connect(socket, deadline)?;
                (ask(&mut systemd)?, systemd)
            }
        };
        self.lock().idle = Some((Instant::now(), systemd));
        Ok(answer)
    }

    /// Ends the conversation when nobody went on with it for a while. One waits for that, all others return at once.
    pub fn end_when_idle(&self) {
        let mut slot = self.lock();
        if slot.watched || slot.idle.is_none() {
            return;
        }
        slot.watched = true;
        while slot
            .idle
            .as_ref()
            .is_some_and(|(since, _)| since.elapsed() < KEEP)
        {
            drop(slot);
            thread::sleep(KEEP);
            slot = self.lock();
        }
        *slot = Slot::default();
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Systemd {
    fn connect(socket: &Path, deadline: Instant) -> io::Result<Self> {
        Ok(Self {
            stream: UnixStream::connect(socket)?,
            deadline,
            serial: 0,
            greeted: false,
        })
    }

    /// Sends questions; the first ones with the greeting, if they are long enough to be seen behind it.
    fn ask(&mut self, questions: &[u8]) -> io::Result<()> {
        if self.greeted {
            return self.send(questions);
        }
        let with_greeting = questions.len() > READ_WITH_GREETING_BYTES;
        match with_greeting {
            true => self.send(&[GREETING, questions].concat())?,
            false => self.send(GREETING)?,
        }
        let answer = self.line()?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::other(format!("expected OK, found {answer:?}")));
        }
        self.greeted = true;
        match with_greeting {
            true => Ok(()),
            false => self.send(questions),
        }
    }

    /// Properties of one unit; those that it does not have are left out.
    pub fn show(&mut self, unit: &str, properties: &[&str]) -> io::Result<Words> {
        let path = format!("/org/freedesktop/systemd1/unit/{}", escaped(unit));
        let of_its_type = interface_of(unit);
        let mut asked = BTreeMap::new();
        let mut questions = Vec::new();
        for property in properties {
            let interface = match OF_ITS_TYPE.contains(property) {
                true => &of_its_type,
                false => UNIT,
            };
            self.serial += 1;
            asked.insert(self.serial, *property);
            questions.extend(question(self.serial, &path, interface, property)?);
        }
        self.ask(&questions)?;
        let mut words = Words::new();
        while !asked.is_empty() {
            let message = self.message()?;
            let answered = message.dynheader.response_serial;
            let Some(property) = answered.and_then(|serial| asked.remove(&serial)) else {
                continue; // a signal
            };
            if message.typ == MessageType::Reply {
                let mut parser = message.body.parser();
                let word = parser.get_param().ok().and_then(|value| word(&value));
                words.extend(word.map(|word| (property.to_owned(), word)));
            }
        }
        match words.is_empty() {
            true => Err(io::Error::other(format!("systemd tells nothing of {unit}"))),
            false => Ok(words),
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(&mut bytes[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// A line of the greeting. By single bytes: what follows it is not ours to take.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LINE_LIMIT_BYTES {
                return Err(io::Error::other(
                    "expected a short greeting, found a long one",
                ));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn message(&mut self) -> io::Result<MarshalledMessage> {
        let mut bytes = vec![0; PREFIX_BYTES];
        self.read(&mut bytes)?;
        let length = length(&bytes)?;
        bytes.resize(length, 0);
        self.read(&mut bytes[PREFIX_BYTES..])?;
        let (fixed, header) = unmarshal::unmarshal_header(&bytes, 0).map_err(garbled)?;
        let (fields, dynamic) =
            unmarshal::unmarshal_dynamic_header(&header, &bytes, fixed).map_err(garbled)?;
        let message = unmarshal::unmarshal_next_message(&header, dynamic, &bytes, fixed + fields);
        Ok(message.map_err(garbled)?.1)
    }
}

fn garbled(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("expected a message of D-Bus: {error}"))
}

/// Of the whole message, from its first bytes (D-Bus specification, "Message Format").
fn length(prefix: &[u8]) -> io::Result<usize> {
    let number = |at: usize| {
        let bytes = [prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]];
        let number = match prefix[0] {
            b'B' => u32::from_be_bytes(bytes),
            _ => u32::from_le_bytes(bytes),
        };
        number as usize
    };
    let (body, fields) = (number(4), number(12));
    let length = (PREFIX_BYTES + fields).next_multiple_of(8) + body;
    match length <= MESSAGE_LIMIT_BYTES {
        true => Ok(length),
        false => Err(io::Error::other(format!(
            "expected a message of at most {MESSAGE_LIMIT_BYTES} bytes, found {length}"
        ))),
    }
}

fn question(serial: u32, path: &str, interface: &str, property: &str) -> io::Result<Vec<u8>> {
    let mut message = MessageBuilder::new()
        .call("Get")
        .with_interface("org.freedesktop.DBus.Properties")
        .on(path)
        .at("org.freedesktop.systemd1")
        .build();
    let pushed = message.body.push_param2(interface, property);
    pushed.map_err(|error| io::Error::other(format!("{error:?}")))?;
    let mut bytes = Vec::new();
    marshal(&message, serial, &mut bytes)
        .map_err(|error| io::Error::other(format!("{error:?}")))?;
    bytes.extend_from_slice(message.get_buf());
    Ok(bytes)
}

/// A unit's name as a part of an object path: all but letters and digits, and a digit that comes first, in hexadecimal.
fn escaped(unit: &str) -> String {
    let mut path = String::new();
    for (index, byte) in unit.bytes().enumerate() {
        match byte {
            b'0'..=b'9' if index > 0 => path.push(byte.into()),
            b'a'..=b'z' | b'A'..=b'Z' => path.push(byte.into()),
            _ => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

/// What its type adds: `cron.service` → `org.freedesktop.systemd1.Service`.
fn interface_of(unit: &str) -> String {
    let kind = unit.rsplit('.').next().unwrap_or_default();
    let mut letters = kind.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let name: String = first.into_iter().chain(letters).collect();
    format!("org.freedesktop.systemd1.{name}")
}

fn hexadecimal(byte: &Param<'_, '_>) -> Option<String> {
    match byte {
        Param::Base(Base::Byte(byte)) => Some(format!("{byte:02x}")),
        _ => None,
    }
}

/// As `systemctl show` writes it; `None`: of a shape that nobody asks for.
fn word(value: &Param<'_, '_>) -> Option<String> {
    match value {
        Param::Container(Container::Variant(inner)) => word(&inner.value),
        Param::Container(Container::Array(array)) => match array.values.first() {
            Some(Param::Base(Base::String(_))) => {
                let words: Option<Vec<String>> = array.values.iter().map(word).collect();
                Some(words?.join(" "))
            }
            _ => array.values.iter().map(hexadecimal).collect(),
        },
        Param::Base(Base::String(text)) => Some(text.clone()),
        Param::Base(Base::Boolean(yes)) => Some(if *yes { "yes" } else { "no" }.to_owned()),
        Param::Base(Base::Uint32(number)) => Some(number.to_string()),
        Param::Base(Base::Uint64(number)) => Some(number.to_string()),
        Param::Base(Base::Int32(number)) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn listening(answer: impl FnOnce(UnixStream) + Send + 'static) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        thread::spawn(move || answer(listener.accept().unwrap().0));
        dir
    }

    fn ask(dir: &tempfile::TempDir, limit: Duration) -> io::Result<Words> {
        Kept::default().talk(&dir.path().join("s"), limit, |systemd| {
            systemd.show("cron.service", &["ActiveState"])
        })
    }

    #[test]
    fn names_and_interfaces() {
        assert_eq!(escaped("cron.service"), "cron_2eservice");
        assert_eq!(escaped("0a-b@c.timer"), "_30a_2db_40c_2etimer");
        assert_eq!(
            interface_of("a@b.service"),
            "org.freedesktop.systemd1.Service"
        );
        let long = question(1, "/a", UNIT, "X").unwrap();
        assert_eq!(length(&long[..PREFIX_BYTES]).unwrap(), long.len());
    }

    /// Greets, and listens as long as somebody talks.
    fn chatty(mut stream: UnixStream) {
        let _ = stream.write_all(b"OK x\r\n");
        while stream.read(&mut [0; 1]).is_ok_and(|count| count > 0) {}
    }

    #[test]
    fn a_conversation_is_gone_on_with_begun_anew_when_it_ended_and_not_kept_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let begun = Arc::new(Mutex::new(0));
        let counted = begun.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                *counted.lock().unwrap() += 1;
                thread::spawn(move || chatty(stream.unwrap()));
            }
        });
        let kept = Kept::default();
        let serial = |systemd: &mut Systemd| {
            systemd.ask(b"anything")?;
            systemd.serial += 1;
            Ok(systemd.serial)
        };
        let number = || *begun.lock().unwrap();
        assert_eq!(kept.talk(&socket, LIMIT, serial).unwrap(), 1);
        assert_eq!(kept.talk(&socket, LIMIT, serial).unwrap(), 2);
        assert_eq!(number(), 1);
        // One that was ended by the other side: what it says of itself is no answer.
        let ended = |systemd: &mut Systemd| match systemd.serial {
            0 => serial(systemd),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        assert_eq!(kept.talk(&socket, LIMIT, ended).unwrap(), 1);
        assert_eq!(number(), 2);
        // What failed is not kept.
        let failed = |_: &mut Systemd| io::Result::<()>::Err(io::ErrorKind::TimedOut.into());
        assert!(kept.talk(&socket, LIMIT, failed).is_err());
        assert!(kept.lock().idle.is_none());
        assert_eq!(kept.talk(&socket, LIMIT, serial).unwrap(), 1);
        kept.end_when_idle();
        assert!(kept.lock().idle.is_none());
    }

    #[test]
    fn a_systemd_that_hangs_or_goes_or_talks_nonsense_is_an_error_in_time() {
        let silent = listening(|stream| drop((thread::sleep(LIMIT), stream)));
        let started = Instant::now();
        assert!(ask(&silent, Duration::from_millis(50)).is_err());
        assert!(started.elapsed() < LIMIT);
        let gone = listening(drop);
        assert!(ask(&gone, LIMIT).is_err());
        let stranger = listening(|mut stream| {
            let _ = stream.write_all(b"REJECTED\r\n");
            // Closed with words unread, a socket may take its own back.
            let _ = stream.read(&mut [0; 64]);
        });
        assert!(
            ask(&stranger, LIMIT)
                .unwrap_err()
                .to_string()
                .contains("REJECTED")
        );
        let huge = listening(|mut stream| {
            let _ = stream.write_all(b"OK x\r\n");
            let _ = stream.write_all(&[0xff; PREFIX_BYTES]);
            let _ = stream.read(&mut [0; 64]);
        });
        assert!(ask(&huge, LIMIT).is_err());
    }
}
