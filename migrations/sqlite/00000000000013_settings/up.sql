-- What operators have set, above the files and below the environment: one document, written whole over the
-- generation that was read.
CREATE TABLE greenroom_settings (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    document   TEXT NOT NULL
);
INSERT INTO greenroom_settings (id, generation, document) VALUES (1, 0, '{}');
