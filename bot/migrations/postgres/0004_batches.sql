-- Parts of large jobs, driven by any bot. Their `driver` is '' while they wait for one.

-- The job that it is a part of; NULL: it is no part of any.
ALTER TABLE jobs ADD COLUMN batch_of TEXT COLLATE "C";
-- What a bot must have read to drive it.
ALTER TABLE jobs ADD COLUMN batch_model TEXT;
-- Who wants it cancelled; its driver writes that into the journal.
ALTER TABLE jobs ADD COLUMN cancel_by TEXT;
CREATE INDEX jobs_batches ON jobs (driver, created_at) WHERE finished_at IS NULL AND batch_of IS NOT NULL;
