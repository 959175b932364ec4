-- Alerts lie in the order in which they came, and only a small index in that of their fingerprints, which are random: in a
-- storm each new alert changed a page of its own of the table.
CREATE TABLE alerts_in_order (
    source      TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    name        TEXT NOT NULL,
    firing      INTEGER NOT NULL CHECK (firing IN (0, 1)),
    starts_at   INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    body        TEXT NOT NULL,
    PRIMARY KEY (source, fingerprint)
) STRICT;
INSERT INTO alerts_in_order (source, fingerprint, name, firing, starts_at, updated_at, body)
    SELECT source, fingerprint, name, firing, starts_at, updated_at, body FROM alerts ORDER BY updated_at;
DROP TABLE alerts;
ALTER TABLE alerts_in_order RENAME TO alerts;
CREATE INDEX alerts_firing ON alerts (starts_at) WHERE firing = 1;
CREATE INDEX alerts_old ON alerts (updated_at) WHERE firing = 0;

-- What of a large incident no list shows: JSON of its further alerts.
ALTER TABLE incidents ADD COLUMN rest TEXT;
