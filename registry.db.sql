-- The registry: recipes and what is known about them, in one SQLite file.
--
-- This script makes an empty file of version 2; files of earlier versions get there by recipes/migrations.py.
-- Three ideas carry it:
--   * A revision is what a recipe means. Its key is the hash of the recipe's canonical form, so the same recipe has the
--     same key on every machine, whatever it is called and however it is commented.
--   * An edition is one text of a revision under one name. New comments make a new edition of the same revision.
--   * Evidence belongs to revisions. It outlives names, and failures stay.
-- Times are seconds since the epoch (UTC); memory is in GiB; shares are between 0 and 1.

-- "TUNE": tells a registry from any other SQLite file.
PRAGMA application_id = 0x54554e45;

-- Facts about this file itself, such as the fingerprint of the built-in catalogue that it holds.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- What a recipe means: the resolved fields that change the result of a run.
CREATE TABLE revisions (
    hash           TEXT PRIMARY KEY CHECK (length(hash) = 64),  -- SHA-256 of canonical_json
    canonical_json TEXT NOT NULL CHECK (json_valid(canonical_json)),
    schema_version INTEGER NOT NULL,                            -- of the recipe's schema, not of this file
    created        REAL NOT NULL
) STRICT;

-- A name. Its text is in editions; `edition` is the one that the name stands for now.
CREATE TABLE recipes (
    id        INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,             -- 'tunewright' (built in), 'local', or an owner on the Hub
    slug      TEXT NOT NULL,
    origin    TEXT NOT NULL CHECK (origin IN ('built-in', 'local', 'fork', 'import', 'hub')),
    edition   INTEGER REFERENCES editions (id) DEFERRABLE INITIALLY DEFERRED,
    created   REAL NOT NULL,
    withdrawn REAL,                      -- when it left the catalogue; it is no longer listed, but still found by name
    UNIQUE (namespace, slug)
) STRICT;

CREATE TABLE editions (
    id       INTEGER PRIMARY KEY,
    recipe   INTEGER NOT NULL REFERENCES recipes (id) ON DELETE CASCADE,
    revision TEXT NOT NULL REFERENCES revisions (hash),
    toml     TEXT NOT NULL,              -- as it was written, comments and all
    title    TEXT NOT NULL,
    summary  TEXT NOT NULL,
    method   TEXT NOT NULL,
    model    TEXT NOT NULL,
    data     TEXT NOT NULL,
    note     TEXT NOT NULL DEFAULT '',   -- why this edition was made
    created  REAL NOT NULL,
    objective TEXT NOT NULL DEFAULT '',
    licence  TEXT NOT NULL DEFAULT '',
    size_billions REAL,                  -- the model's parameters as its name gives them, NULL where it gives none
    tier     TEXT NOT NULL DEFAULT '',   -- 'A' to 'D' as its card says, for what is built in; '' without one
    accepted REAL,                       -- when the user took a stranger's text for theirs; NULL until then
    UNIQUE (recipe, toml)
) STRICT;
CREATE INDEX editions_by_revision ON editions (revision);

-- Where a revision comes from. The parent may be unknown here: a pulled recipe names ancestors that were never pulled.
CREATE TABLE parents (
    child  TEXT NOT NULL REFERENCES revisions (hash),
    parent TEXT NOT NULL CHECK (length(parent) = 64),
    kind   TEXT NOT NULL CHECK (kind IN ('fork', 'import', 'derived')),
    PRIMARY KEY (child, parent),
    CHECK (child <> parent)
) STRICT;

-- Where a recipe was pulled from or published to: the place, and its commit at that time.
CREATE TABLE places (
    recipe    INTEGER PRIMARY KEY REFERENCES recipes (id) ON DELETE CASCADE,
    place     TEXT NOT NULL,             -- 'hub:owner/name', 'folder:/path', or 'git:address#folder'
    commit_id TEXT NOT NULL,
    hash      TEXT NOT NULL,             -- of the recipe that was there
    moved_to  TEXT,                      -- what the other side calls it now, when it was renamed there
    gone      REAL,                      -- when it was found to be no longer there
    seen      REAL NOT NULL
) STRICT;

-- Movable names for one fixed edition, such as 'best-so-far'.
CREATE TABLE aliases (
    name    TEXT PRIMARY KEY,
    edition INTEGER NOT NULL REFERENCES editions (id) ON DELETE CASCADE,
    moved   REAL NOT NULL
) STRICT;

CREATE TABLE tags (
    recipe INTEGER NOT NULL REFERENCES recipes (id) ON DELETE CASCADE,
    tag    TEXT NOT NULL,
    PRIMARY KEY (recipe, tag)
) STRICT;

-- What a recipe's figures are taken from. `citation` is as written; the other columns are what could be read from it.
CREATE TABLE sources (
    id         INTEGER PRIMARY KEY,
    recipe     INTEGER NOT NULL REFERENCES recipes (id) ON DELETE CASCADE,
    citation   TEXT NOT NULL,
    repository TEXT,
    path       TEXT,
    commit_id  TEXT,
    url        TEXT,
    licence    TEXT,
    accessed   REAL,
    UNIQUE (recipe, citation)
) STRICT;

-- What happened when a revision was run, here or elsewhere: predictions beside measurements, failures included.
CREATE TABLE evidence (
    id                 INTEGER PRIMARY KEY,
    revision           TEXT NOT NULL REFERENCES revisions (hash),
    kind               TEXT NOT NULL CHECK (kind IN ('published', 'replicated', 'local', 'smoke')),
    status             TEXT NOT NULL CHECK (status IN ('finished', 'stopped', 'failed', 'out-of-memory')),
    hardware           TEXT NOT NULL,
    predicted_peak_gib REAL,
    measured_peak_gib  REAL,
    predicted_seconds  REAL,
    measured_seconds   REAL,
    metric             TEXT,             -- such as 'exact_match'; NULL for a run that measured no quality
    value              REAL,
    seed               INTEGER,
    versions           TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(versions)),  -- package → version
    run                TEXT,             -- the run's id, NULL for a published figure
    source             TEXT NOT NULL DEFAULT '',  -- who says so, for a published figure
    created            REAL NOT NULL,
    claimed_by         TEXT,             -- the place a stranger's figure came with; NULL for what we or the catalogue say
    reason             TEXT NOT NULL DEFAULT '',  -- why it ended as it did
    steps              INTEGER,
    first_loss         REAL,             -- the mean of the first tenth of the steps, and of the last one
    last_loss          REAL,
    validation_loss    REAL,
    predicted_tokens_per_second REAL,
    measured_tokens_per_second  REAL
) STRICT;
CREATE INDEX evidence_by_revision ON evidence (revision);
-- Recording a run again replaces what was recorded before.
CREATE UNIQUE INDEX evidence_by_run ON evidence (run, coalesce(metric, '')) WHERE run IS NOT NULL;

-- How much evidence a revision has, kept by the triggers below so that finding need not count.
CREATE TABLE tallies (
    revision   TEXT PRIMARY KEY REFERENCES revisions (hash),
    replicated INTEGER NOT NULL DEFAULT 0,
    published  INTEGER NOT NULL DEFAULT 0,
    finished   INTEGER NOT NULL DEFAULT 0,  -- runs on this machine
    failed     INTEGER NOT NULL DEFAULT 0,
    smoke      INTEGER NOT NULL DEFAULT 0,
    claims     INTEGER NOT NULL DEFAULT 0   -- strangers' figures, which prove nothing by themselves
) STRICT;

CREATE TRIGGER tallies_follow_evidence AFTER INSERT ON evidence BEGIN
    INSERT INTO tallies (revision) VALUES (new.revision) ON CONFLICT DO NOTHING;
    UPDATE tallies SET
        claims = claims + (new.claimed_by IS NOT NULL),
        replicated = replicated + (new.claimed_by IS NULL AND new.kind = 'replicated' AND new.status = 'finished'),
        published = published + (new.claimed_by IS NULL AND new.kind = 'published' AND new.status = 'finished'),
        finished = finished
            + (new.claimed_by IS NULL AND new.kind = 'local' AND new.status = 'finished' AND new.metric IS NULL),
        smoke = smoke
            + (new.claimed_by IS NULL AND new.kind = 'smoke' AND new.status = 'finished' AND new.metric IS NULL),
        failed = failed
            + (new.claimed_by IS NULL AND new.status IN ('failed', 'out-of-memory') AND new.metric IS NULL)
    WHERE revision = new.revision;
END;

CREATE TRIGGER tallies_follow_lost_evidence AFTER DELETE ON evidence BEGIN
    UPDATE tallies SET
        claims = claims - (old.claimed_by IS NOT NULL),
        replicated = replicated - (old.claimed_by IS NULL AND old.kind = 'replicated' AND old.status = 'finished'),
        published = published - (old.claimed_by IS NULL AND old.kind = 'published' AND old.status = 'finished'),
        finished = finished
            - (old.claimed_by IS NULL AND old.kind = 'local' AND old.status = 'finished' AND old.metric IS NULL),
        smoke = smoke
            - (old.claimed_by IS NULL AND old.kind = 'smoke' AND old.status = 'finished' AND old.metric IS NULL),
        failed = failed
            - (old.claimed_by IS NULL AND old.status IN ('failed', 'out-of-memory') AND old.metric IS NULL)
    WHERE revision = old.revision;
END;

-- The cards and processors on which a revision ran to its end, for finding what is proven on one.
CREATE TABLE proofs (
    hardware TEXT NOT NULL,
    revision TEXT NOT NULL REFERENCES revisions (hash),
    PRIMARY KEY (hardware, revision)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER proofs_follow_evidence AFTER INSERT ON evidence
WHEN new.status = 'finished' AND new.claimed_by IS NULL BEGIN
    INSERT INTO proofs (hardware, revision) VALUES (new.hardware, new.revision) ON CONFLICT DO NOTHING;
END;

CREATE TRIGGER proofs_follow_lost_evidence AFTER DELETE ON evidence
WHEN old.status = 'finished' AND old.claimed_by IS NULL BEGIN
    DELETE FROM proofs WHERE hardware = old.hardware AND revision = old.revision AND NOT EXISTS (
        SELECT 1 FROM evidence
        WHERE revision = old.revision AND hardware = old.hardware AND status = 'finished' AND claimed_by IS NULL);
END;

-- What finding needs to know of the names that are listed: narrow rows, in the order of their evidence.
CREATE TABLE shelf (
    recipe        INTEGER PRIMARY KEY REFERENCES recipes (id) ON DELETE CASCADE,
    edition       INTEGER NOT NULL,
    revision      TEXT NOT NULL,
    slug          TEXT NOT NULL,
    origin        TEXT NOT NULL,
    method        TEXT NOT NULL,
    objective     TEXT NOT NULL,
    model         TEXT NOT NULL,
    licence       TEXT NOT NULL,
    size_billions REAL,
    tier          TEXT NOT NULL,
    grade         INTEGER NOT NULL,      -- 5 replicated, 4 proven, 3 ran here, 2 fits, 1 a stranger's claim, 0 nothing
    finished      INTEGER NOT NULL,
    failed        INTEGER NOT NULL
) STRICT;
CREATE INDEX shelf_by_evidence ON shelf (grade DESC, finished DESC, failed, slug);
CREATE INDEX shelf_by_revision ON shelf (revision);

CREATE TRIGGER shelf_follows_edition AFTER UPDATE OF edition, withdrawn ON recipes BEGIN
    DELETE FROM shelf WHERE recipe = old.id;
    INSERT INTO shelf
        SELECT new.id, e.id, e.revision, new.slug, new.origin, e.method, e.objective, e.model, e.licence, e.size_billions,
               e.tier,
               CASE WHEN t.replicated > 0 OR e.tier = 'A' THEN 5
                    WHEN t.published > 0 OR e.tier = 'B' THEN 4
                    WHEN t.finished > 0 THEN 3
                    WHEN t.smoke > 0 OR e.tier = 'C' THEN 2
                    WHEN t.claims > 0 THEN 1
                    ELSE 0 END,
               coalesce(t.finished, 0), coalesce(t.failed, 0)
        FROM editions AS e LEFT JOIN tallies AS t ON t.revision = e.revision
        WHERE e.id = new.edition AND new.withdrawn IS NULL;
END;

CREATE TRIGGER shelf_follows_tally AFTER UPDATE ON tallies BEGIN
    UPDATE shelf SET
        grade = CASE WHEN new.replicated > 0 OR tier = 'A' THEN 5
                     WHEN new.published > 0 OR tier = 'B' THEN 4
                     WHEN new.finished > 0 THEN 3
                     WHEN new.smoke > 0 OR tier = 'C' THEN 2
                     WHEN new.claims > 0 THEN 1
                     ELSE 0 END,
        finished = new.finished,
        failed = new.failed
    WHERE revision = new.revision;
END;

-- An index of the run folders, for speed alone: the folders are the truth, and this is rebuilt from them.
-- `recipe` is the hash of the folder's recipe.toml, which need not be in this registry.
CREATE TABLE runs (
    id          TEXT PRIMARY KEY,
    folder      TEXT NOT NULL,
    recipe      TEXT NOT NULL,
    title       TEXT NOT NULL,
    method      TEXT NOT NULL,
    model       TEXT NOT NULL,
    state       TEXT NOT NULL,
    reason      TEXT NOT NULL DEFAULT '',
    created     REAL NOT NULL,
    ended       REAL,
    step        INTEGER NOT NULL DEFAULT 0,
    total_steps INTEGER NOT NULL DEFAULT 0,
    loss        REAL,
    exact_match_before REAL,
    exact_match_after  REAL,
    peak_gib    REAL
) STRICT;
CREATE INDEX runs_by_time ON runs (created);

-- Full-text search over the names that are listed: one row a recipe, kept by the triggers below.
CREATE VIRTUAL TABLE search USING fts5 (
    name, title, tags, model, data, method, summary,
    tokenize = 'unicode61 remove_diacritics 2',
    prefix = '2 3'
);

CREATE TRIGGER search_follows_edition AFTER UPDATE OF edition, withdrawn ON recipes BEGIN
    DELETE FROM search WHERE rowid = old.id;
    INSERT INTO search (rowid, name, title, tags, model, data, method, summary)
        SELECT new.id, new.namespace || ' ' || new.slug, e.title,
               (SELECT coalesce(group_concat(tag, ' '), '') FROM tags WHERE recipe = new.id),
               e.model, e.data, e.method, e.summary
        FROM editions AS e
        WHERE e.id = new.edition AND new.withdrawn IS NULL;
END;

CREATE TRIGGER search_forgets_recipe AFTER DELETE ON recipes BEGIN
    DELETE FROM search WHERE rowid = old.id;
END;

CREATE TRIGGER search_follows_new_tag AFTER INSERT ON tags BEGIN
    UPDATE search
        SET tags = (SELECT coalesce(group_concat(tag, ' '), '') FROM tags WHERE recipe = new.recipe)
        WHERE rowid = new.recipe;
END;

CREATE TRIGGER search_follows_lost_tag AFTER DELETE ON tags BEGIN
    UPDATE search
        SET tags = (SELECT coalesce(group_concat(tag, ' '), '') FROM tags WHERE recipe = old.recipe)
        WHERE rowid = old.recipe;
END;
