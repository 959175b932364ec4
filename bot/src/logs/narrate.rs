//! The lines around the beginning of an incident, told in its thread: what its hosts wrote five minutes before and after.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use collectors::{
    elasticsearch::About,
    logs::{Line, Severity as LineSeverity},
    source::Reading,
};
use deploy_engine::model::{HostName, Model};
use jiff::{SignedDuration, Timestamp};
use runbooks::{
    incident::{Domain, Incident},
    log_lines,
    topology::Topology,
};
use tokio_util::sync::CancellationToken;

use super::Given;
use crate::{
    bot::Bot,
    chat::Subject,
    heal,
    store::{Detail, StoreError},
    wording::{Block, Table, Tone},
};

/// Before and after the beginning of an incident.
const AROUND: SignedDuration = SignedDuration::from_mins(5);
/// Lines become searchable some time after they were written; for the part after the beginning, so long is waited.
const SETTLE: SignedDuration = SignedDuration::from_secs(30);
/// What began earlier is not news any more: its lines are asked for with `logs`.
const STALE: SignedDuration = SignedDuration::from_mins(30);
/// How often it is looked for what to tell.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// More open incidents than these are a storm: stores of logs are left alone, and so are readers.
const INCIDENTS_MAX: u32 = 20;
/// Lines of one part.
const LINES: usize = 20;
/// Shown of one of them, in bytes.
const LINE_BYTES: usize = 200;
/// Hosts of one incident whose lines are told.
const HOSTS_MAX: usize = 5;
/// Of the page of the thread.
const TITLE: &str = "From the logs";
/// The space of the store with what was told.
const TOLD: &str = "incident_lines";

/// One of the two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Before,
    After,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }

    fn span(self, opened: Timestamp) -> (Timestamp, Timestamp) {
        match self {
            Self::Before => (
                opened.saturating_sub(AROUND).unwrap_or(Timestamp::MIN),
                opened,
            ),
            Self::After => (
                opened,
                opened.saturating_add(AROUND).unwrap_or(Timestamp::MAX),
            ),
        }
    }

    /// Pure: is it time to tell it, and still worth it?
    fn is_due(self, opened: Timestamp, now: Timestamp) -> bool {
        let age = now.duration_since(opened);
        let from = match self {
            Self::Before => SETTLE,
            Self::After => AROUND + SETTLE,
        };
        (from..=STALE).contains(&age)
    }
}

/// Tells until told to stop.
pub async fn narrate(bot: Arc<Bot>, stop: CancellationToken) {
    if bot.logs.is_empty() {
        return;
    }
    loop {
        if let Some(Err(error)) = stop.run_until_cancelled(round(&bot)).await {
            tracing::warn!(%error, "lines of incidents are not told");
        }
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(LOOK_EVERY) => {} }
    }
}

async fn round(bot: &Bot) -> Result<(), StoreError> {
    if bot.store.count_open_incidents().await? > u64::from(INCIDENTS_MAX) {
        return Ok(());
    }
    let now = Timestamp::now();
    let topology = Topology::from(&*bot.model);
    let readings = super::readings(&bot.store).await?;
    // Those that are over by now, too: people read afterwards what it was.
    let since = now.saturating_sub(STALE).unwrap_or(Timestamp::MIN);
    for row in bot
        .store
        .incidents_since(since, INCIDENTS_MAX, Detail::Whole)
        .await?
    {
        let Ok(incident) = heal::whole(&row) else {
            continue;
        };
        for reading in super::about(&incident, &topology, readings.clone(), now) {
            tell_reading(bot, &incident, &reading, now).await?;
        }
        for part in [Part::Before, Part::After] {
            if part.is_due(incident.opened_at, now) {
                tell(bot, &incident, part, now).await?;
            }
        }
    }
    Ok(())
}

/// A burst of lines about it, once.
async fn tell_reading(
    bot: &Bot,
    incident: &Incident,
    reading: &Reading,
    now: Timestamp,
) -> Result<(), StoreError> {
    let signature = bot.logs.signatures.get(&reading.name);
    if signature.is_some_and(|one| one.severity == LineSeverity::Progress) {
        return Ok(());
    }
    let key = format!("{}/{}/{}", incident.id, reading.key, reading.first);
    if !bot.store.claim(TOLD, &key, now).await? {
        return Ok(());
    }
    let means = signature
        .map(|one| format!(": {}", one.means))
        .unwrap_or_default();
    let sample = reading.samples.last().cloned().unwrap_or_default();
    let block = Block::Line {
        text: format!(
            "a log says {}{means}; for example {sample}",
            log_lines::words(reading)
        ),
        tone: Tone::Plain,
    };
    let subject = Subject::incident(&incident.id);
    bot.office
        .detail(&bot.team_rooms(), &subject, TITLE, block)
        .await
}

/// At most once: what was claimed and not told is lost with the bot, and `logs` shows it.
async fn tell(
    bot: &Bot,
    incident: &Incident,
    part: Part,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(about) = about(incident, &bot.model) else {
        return Ok(());
    };
    let key = format!("{}/{}", incident.id, part.name());
    if !bot.store.claim(TOLD, &key, now).await? {
        return Ok(());
    }
    let (from, to) = part.span(incident.opened_at);
    let given = bot.logs.lines(&about, (from, to), LINES).await;
    let subject = Subject::incident(&incident.id);
    let rooms = bot.team_rooms();
    for block in blocks(part, &given) {
        bot.office.detail(&rooms, &subject, TITLE, block).await?;
    }
    Ok(())
}

/// Whose lines: of the hosts that it names, or else of all members of its service, by all names that they may have there.
fn about(incident: &Incident, model: &Model) -> Option<About> {
    let members: Vec<HostName> = match &incident.domain {
        Domain::Host(host) => vec![host.clone()],
        Domain::Service(service) => model.members(service).to_vec(),
        Domain::Alert(_) => Vec::new(),
    };
    let named: Vec<HostName> = incident.subjects.iter().cloned().collect();
    let hosts = if named.is_empty() { members } else { named };
    let names = hosts.iter().take(HOSTS_MAX);
    let names = names.flat_map(|host| [host.to_string(), model.address(host).to_owned()]);
    let names: BTreeSet<String> = names.filter(|name| !name.is_empty()).collect();
    (!names.is_empty()).then(|| About {
        hosts: names,
        ..About::default()
    })
}

/// Pure.
fn blocks(part: Part, given: &Given) -> Vec<Block> {
    let minutes = AROUND.as_mins();
    let more = if given.more {
        "the last of many"
    } else {
        "all"
    };
    let head = match (part, given.lines.is_empty()) {
        (_, true) => format!(
            "no line in the {minutes} min {} it began: that proves nothing",
            part.name()
        ),
        (_, false) => format!(
            "{more} lines in the {minutes} min {} it began:",
            part.name()
        ),
    };
    let line = |text: String, tone| Block::Line { text, tone };
    let mut blocks = vec![line(head, Tone::Dim)];
    if !given.lines.is_empty() {
        blocks.push(Block::Table {
            table: table(&given.lines),
        });
    }
    let silent = given.silent.iter().cloned();
    blocks.extend(silent.map(|why| line(why, Tone::Warn)));
    blocks
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new(&["when", "host", "program", "says"]);
    for line in lines {
        table.row([
            format!("{:.0}", line.at).into(),
            line.host.clone().into(),
            line.program.clone().into(),
            line.shown(LINE_BYTES).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_time() {
        let opened = Timestamp::from_second(1_800_000_000).unwrap();
        let due = |part: Part, second: i64| {
            part.is_due(opened, opened + SignedDuration::from_secs(second))
        };
        let times = |part| [0, 29, 30, 299, 330, 1_800, 1_801].map(|second| due(part, second));
        assert_eq!(
            times(Part::Before),
            [false, false, true, true, true, true, false]
        );
        assert_eq!(
            times(Part::After),
            [false, false, false, false, true, true, false]
        );
        let (from, to) = Part::Before.span(opened);
        assert_eq!(to.duration_since(from), AROUND);
        assert_eq!(Part::After.span(opened).0, opened);
    }

    #[test]
    fn no_line_is_no_good_news() {
        let blocks = blocks(Part::After, &Given::default());
        let [Block::Line { text, .. }] = &blocks[..] else {
            panic!("{blocks:?}");
        };
        assert!(text.contains("proves nothing"));
    }
}
