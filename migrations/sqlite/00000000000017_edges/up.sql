-- Who came after whom, also when both have ended: it goes with the child. (greenroom_task_parents holds what is
-- still waited for.) A task that comes after nobody has no row here.
CREATE TABLE greenroom_task_edges (
    child BLOB NOT NULL,
    parent BLOB NOT NULL,
    PRIMARY KEY (child, parent)
) WITHOUT ROWID;
CREATE INDEX greenroom_task_edges_parent ON greenroom_task_edges (parent);
INSERT INTO greenroom_task_edges (child, parent) SELECT child, parent FROM greenroom_task_parents;
