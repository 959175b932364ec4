//! One look at a cluster: counts and pages of the same moment, if it can stand still.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Dialect, ElasticsearchClient, Fields, Tiebreak,
    answer::{self, Hit},
    client::Frozen,
    query::{self, Filter},
};
use crate::{
    Answer, SourceError,
    logs::{Count, Page, Shelf, Signatures},
};

/// Lines of one page: some megabytes, and half of what servers allow.
const PAGE_LINES: usize = 5_000;

/// A cluster while it is looked at. To be closed in the end.
pub struct Session<'c> {
    client: &'c ElasticsearchClient,
    fields: &'c Fields,
    dialect: Dialect,
    frozen: Option<Frozen>,
    filter: Option<Filter>,
    /// Lines of the next page; smaller after one that was too large.
    page: usize,
}

/// The place after a page.
pub struct After {
    sort: Vec<Value>,
    /// Lines of that page that come again at the start of the next.
    again: BTreeSet<(String, String)>,
}

impl<'c> Session<'c> {
    /// # Errors
    /// It does not answer, or only for a part.
    pub async fn open(
        client: &'c ElasticsearchClient,
        fields: &'c Fields,
        signatures: &Signatures,
    ) -> Result<Self, SourceError> {
        let dialect = client.dialect().await?;
        let filter = filter(client, dialect, fields, signatures).await?;
        Ok(Self {
            frozen: client.freeze(dialect).await?,
            client,
            fields,
            dialect,
            filter,
            page: PAGE_LINES,
        })
    }

    pub async fn close(self) {
        if let Some(frozen) = self.frozen {
            self.client.thaw(self.dialect, frozen).await;
        }
    }

    /// Does the server show only lines of programs that have signatures?
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    fn tiebreak(&self) -> Tiebreak {
        self.dialect.tiebreak(self.frozen.is_some())
    }

    async fn search(&self, body: &Value) -> Result<Answer, SourceError> {
        self.client
            .search(self.dialect, body, self.frozen.as_ref())
            .await
    }

    fn goes_on_as(&mut self, id: Option<String>) {
        if let (Some(frozen), Some(id)) = (&mut self.frozen, id) {
            frozen.id = id;
        }
    }

    /// A page of `self.page` lines beside those that come `again`; as many times smaller as its lines are too large. True: even one
    /// line is, and it came without its text.
    async fn fitting(
        &mut self,
        mut body: Value,
        again: usize,
    ) -> Result<(Answer, bool), SourceError> {
        loop {
            body["size"] = (self.page + again).into();
            match self.search(&body).await {
                Err(SourceError::TooLarge { .. }) if self.page > 1 => self.page /= 2,
                Err(SourceError::TooLarge { .. }) => {
                    let body = query::without_text(body, self.fields);
                    return self.search(&body).await.map(|answer| (answer, true));
                }
                answer => return answer.map(|answer| (answer, false)),
            }
        }
    }
}

/// A filter that leaves out no line with a signature; none: this cluster's mapping does not allow one.
async fn filter(
    client: &ElasticsearchClient,
    dialect: Dialect,
    fields: &Fields,
    signatures: &Signatures,
) -> Result<Option<Filter>, SourceError> {
    if !dialect.tells_fields() {
        return Ok(None);
    }
    let answer = match client.capabilities(dialect, &fields.program).await {
        // An account that may search but not look at mappings.
        Err(SourceError::Status { status: 403, .. }) => return Ok(None),
        answer => answer?,
    };
    let exact = answer::exact_fields(&answer, &fields.program)?;
    Ok(exact.map(|fields| Filter {
        fields,
        programs: signatures.programs().map(str::to_owned).collect(),
    }))
}

impl Shelf for Session<'_> {
    type After = After;

    async fn count(&mut self, from: Timestamp, to: Timestamp) -> Result<Count, SourceError> {
        let filter = self.filter.as_ref();
        let body = query::count(self.dialect, self.fields, filter, from, to);
        let (count, id) = answer::count(&self.search(&body).await?)?;
        self.goes_on_as(id);
        Ok(count)
    }

    async fn page(
        &mut self,
        from: Timestamp,
        to: Timestamp,
        after: Option<&After>,
    ) -> Result<Page<After>, SourceError> {
        let (tiebreak, filter) = (self.tiebreak(), self.filter.as_ref());
        let sort = after.map(|after| after.sort.as_slice());
        let body = query::page(self.fields, filter, (from, to), tiebreak, sort);
        let again = after.map_or(0, |after| after.again.len());
        let (answer, bare) = self.fitting(body, again).await?;
        let found = answer::found(&answer)?;
        self.goes_on_as(found.snapshot);
        let full = found.hits.len() >= self.page + again;
        let known = |hit: &Hit| after.is_some_and(|after| after.again.contains(&hit.place()));
        let fresh = found.hits.iter().filter(|hit| !known(hit));
        let line = |hit: &Hit| answer::line(&answer, hit, self.fields);
        let lines = fresh.map(line).collect::<Result<Vec<_>, _>>()?;
        let next = full.then(|| following(&answer, &found.hits, tiebreak));
        self.page = (self.page * 2).min(PAGE_LINES);
        Ok(Page {
            too_large: if bare { lines.len() as u64 } else { 0 },
            lines,
            after: next.transpose()?,
        })
    }
}

/// Where the next page begins. With a tiebreak that is not unique, just before the last place: what has been read of it comes again.
fn following(answer: &Answer, hits: &[Hit], tiebreak: Tiebreak) -> Result<After, SourceError> {
    let unsorted = || SourceError::Shape {
        asked: answer.asked.clone(),
        expected: "lines with their place in the order".to_owned(),
        found: "one without".to_owned(),
    };
    let last = hits.last().ok_or_else(unsorted)?;
    let mut sort = last.sort.clone();
    let place = sort.get_mut(1).ok_or_else(unsorted)?;
    if tiebreak != Tiebreak::SeqNo {
        return Ok(After {
            sort,
            again: BTreeSet::new(),
        });
    }
    let before = place.as_i64().and_then(|place| place.checked_sub(1));
    *place = before.ok_or_else(unsorted)?.into();
    let same = hits.iter().filter(|hit| hit.sort == last.sort);
    Ok(After {
        again: same.map(Hit::place).collect(),
        sort,
    })
}
