-- Several bots on one store. An embedded store has one bot, and these say nothing there.

-- The replica that drives the job; '': nobody yet.
ALTER TABLE jobs ADD COLUMN driver TEXT NOT NULL DEFAULT '';

-- The replica that is sending the message, and until when nobody else sends it.
ALTER TABLE messages ADD COLUMN claimed_by TEXT NOT NULL DEFAULT '';
ALTER TABLE messages ADD COLUMN claimed_until INTEGER NOT NULL DEFAULT 0;

-- Bots that share this store. A bot adds one to its beat every second; whoever sees it stand still for long enough by its own
-- clock takes it for dead. No two clocks are compared.
CREATE TABLE replicas (
    id         TEXT PRIMARY KEY,           -- new with every start of a bot
    host       TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,                 -- for people
    beat       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The one bot that decides and acts. Taken by compare-and-swap on token and beat; the token grows for ever.
CREATE TABLE leadership (
    name   TEXT PRIMARY KEY,               -- always 'leader'
    holder TEXT NOT NULL,                      -- a replica; '': nobody
    token  INTEGER NOT NULL,
    beat   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What webhooks brought, for the bot that leads, in the order in which it was stored.
CREATE TABLE inbox (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    at   INTEGER NOT NULL,
    body TEXT NOT NULL                         -- alerts, each with what it changed
) STRICT;
