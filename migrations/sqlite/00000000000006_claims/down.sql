ALTER TABLE greenroom_tasks DROP COLUMN claim;
