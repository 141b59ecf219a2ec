-- The registry: recipes and what is known about them, in one SQLite file.
--
-- This script makes an empty file of version 1; later versions come from the migrations in recipes/database.py.
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
    created            REAL NOT NULL
) STRICT;
CREATE INDEX evidence_by_revision ON evidence (revision);
-- Recording a run again replaces what was recorded before.
CREATE UNIQUE INDEX evidence_by_run ON evidence (run, coalesce(metric, '')) WHERE run IS NOT NULL;

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
