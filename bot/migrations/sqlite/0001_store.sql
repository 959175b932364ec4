-- The bot's store. Bodies are JSON written by the bot; columns beside them are what is searched for.
-- Times are microseconds since the epoch, UTC.

CREATE TABLE jobs (
    id           TEXT PRIMARY KEY,
    kind         TEXT NOT NULL CHECK (kind IN ('deploy', 'heal')),
    title        TEXT NOT NULL,
    scope        TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    finished_at  INTEGER,
    result       TEXT,                         -- JobResult
    length       INTEGER NOT NULL              -- events in job_events
) STRICT;
CREATE INDEX jobs_unfinished ON jobs (created_at) WHERE finished_at IS NULL;
CREATE INDEX jobs_created ON jobs (created_at);

CREATE TABLE job_events (
    job      TEXT NOT NULL REFERENCES jobs (id),
    position INTEGER NOT NULL,                 -- from 0
    at       INTEGER NOT NULL,
    event    TEXT NOT NULL,                    -- JobEvent
    PRIMARY KEY (job, position)
) STRICT, WITHOUT ROWID;

-- Never deleted: tokens of a scope grow for ever.
CREATE TABLE tokens (
    scope TEXT PRIMARY KEY,
    last  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    scope       TEXT PRIMARY KEY,
    token       INTEGER NOT NULL,
    holder      TEXT NOT NULL,
    job         TEXT NOT NULL,
    acquired_at INTEGER NOT NULL,
    renewed_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE alerts (
    source      TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    name        TEXT NOT NULL,
    firing      INTEGER NOT NULL CHECK (firing IN (0, 1)),
    starts_at   INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    body        TEXT NOT NULL,
    PRIMARY KEY (source, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX alerts_firing ON alerts (starts_at) WHERE firing = 1;
CREATE INDEX alerts_old ON alerts (updated_at) WHERE firing = 0;

CREATE TABLE incidents (
    id        TEXT PRIMARY KEY,
    state     TEXT NOT NULL,
    service   TEXT,
    runbook   TEXT,
    opened_at INTEGER NOT NULL,
    closed_at INTEGER,
    body      TEXT NOT NULL
) STRICT;
CREATE INDEX incidents_open ON incidents (opened_at) WHERE closed_at IS NULL;
CREATE INDEX incidents_opened ON incidents (opened_at);

CREATE TABLE audit (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    who    TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    body   TEXT NOT NULL
) STRICT;
CREATE INDEX audit_target ON audit (target, id);
CREATE TRIGGER audit_is_append_only_u BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_append_only_d BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- One chat message for a subject in a room, edited in place. wanted > sent: there are words to send.
CREATE TABLE messages (
    room       TEXT NOT NULL,
    subject    TEXT NOT NULL,                  -- job:ID, incident:ID, reply:EVENT
    wanted     INTEGER NOT NULL,               -- revision that should be shown
    sent       INTEGER NOT NULL,               -- revision that is shown; 0: none
    severity   INTEGER NOT NULL,               -- higher goes first
    event      TEXT,                           -- the chat's identifier of the message
    changed_at INTEGER NOT NULL,
    tries      INTEGER NOT NULL DEFAULT 0,
    next_try   INTEGER NOT NULL DEFAULT 0,
    error      TEXT,
    body       TEXT NOT NULL,
    PRIMARY KEY (room, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX messages_pending ON messages (severity DESC, changed_at) WHERE wanted > sent;
CREATE INDEX messages_event ON messages (room, event) WHERE event IS NOT NULL;

CREATE TABLE approvals (
    id           TEXT PRIMARY KEY,
    digest       TEXT NOT NULL,                -- what exactly is approved
    requested_by TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'used')),
    decided_by   TEXT,
    decided_at   INTEGER,
    body         TEXT NOT NULL
) STRICT;
CREATE INDEX approvals_pending ON approvals (created_at) WHERE state = 'pending';

CREATE TABLE kv (
    space TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (space, key)
) STRICT, WITHOUT ROWID;

-- Chat events and control requests that were handled, so that none is run twice.
CREATE TABLE handled (
    space TEXT NOT NULL,
    key   TEXT NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (space, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX handled_old ON handled (at);

-- Repairs that were tried, by people and by automation: what budgets count (gate G7).
CREATE TABLE repairs (
    job      TEXT PRIMARY KEY,
    runbook  TEXT NOT NULL,
    at       INTEGER NOT NULL,
    by       TEXT NOT NULL,                    -- a person, or 'automation'
    outcome  TEXT CHECK (outcome IN ('verified', 'unverified', 'refused', 'cancelled')),  -- NULL: not over
    ended_at INTEGER
) STRICT;
CREATE INDEX repairs_at ON repairs (at);
CREATE TABLE repair_targets (
    job    TEXT NOT NULL REFERENCES repairs (job),
    target TEXT NOT NULL,                      -- host:NAME, domain:SERVICE
    PRIMARY KEY (job, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX repair_targets_target ON repair_targets (target);

-- What a runbook has earned (shadow, ask, auto).
CREATE TABLE trust (
    runbook    TEXT PRIMARY KEY,
    mode       TEXT NOT NULL CHECK (mode IN ('shadow', 'ask', 'auto')),
    changed_at INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    body       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
