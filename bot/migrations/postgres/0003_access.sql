-- The audit log becomes a chain: hash = SHA-256 over the hash before it and this entry. NULL: written before there was a chain.
-- The newest number and hash are kept in kv ('audit', 'head') as well, so that entries cut off at the end are missed.
ALTER TABLE audit ADD COLUMN hash TEXT;

-- Who voted on a request for approval, and how. A person votes once.
CREATE TABLE votes (
    approval TEXT COLLATE "C" NOT NULL REFERENCES approvals (id),
    person   TEXT COLLATE "C" NOT NULL,        -- one name for all identities of a person
    who      TEXT NOT NULL,                    -- the identity that spoke
    word     TEXT NOT NULL CHECK (word IN ('approve', 'deny')),
    at       BIGINT NOT NULL,
    PRIMARY KEY (approval, person)
);

-- Break-glass: one gate, once, for one incident. Never deleted.
CREATE TABLE overrides (
    id          TEXT COLLATE "C" PRIMARY KEY,
    incident    TEXT COLLATE "C" NOT NULL,
    gate        TEXT NOT NULL,
    made_by     TEXT NOT NULL,
    reason      TEXT NOT NULL,
    made_at     BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    used_by_job TEXT COLLATE "C",              -- the one job that it was used for
    used_at     BIGINT,
    reviewed_by TEXT,
    reviewed_at BIGINT,
    review      TEXT
);
CREATE INDEX overrides_incident ON overrides (incident);
CREATE INDEX overrides_review ON overrides (made_at) WHERE reviewed_at IS NULL;
