-- What tells a claim from every other. The attempt does not: it goes back with a claim that did not start.
ALTER TABLE greenroom_tasks ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;
