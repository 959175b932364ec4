-- What of a large incident no list shows: JSON of its further alerts. (Alerts lie in the order in which they came already.)
ALTER TABLE incidents ADD COLUMN rest TEXT;
