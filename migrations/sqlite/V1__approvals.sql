-- Approvals, their votes, and how far the archive has got.
--
-- The tables, columns and names are those of PostgreSQL (migrations/postgres). In SQLite a UUID is TEXT,
-- hyphenated and in lower case (so it sorts as its bytes do), a time INTEGER microseconds since 1970 UTC,
-- an array JSON text, BYTEA a BLOB. An enum is its value's name without the enum's: 'PENDING', 'CRITICAL'.

-- One row an approval. Written when it opens, once more when it is decided.
CREATE TABLE approval_requests (
    approval_id        TEXT         NOT NULL PRIMARY KEY,
    approval_type      VARCHAR(100) NOT NULL,
    priority           VARCHAR(50)  NOT NULL,
    requester_id       TEXT         NOT NULL,
    -- sha256:<64 hex digits>, or the caller's own label.
    content_hash       VARCHAR(255) NOT NULL,
    required_approvals SMALLINT     NOT NULL,
    total_validators   SMALLINT     NOT NULL,
    status             VARCHAR(50)  NOT NULL DEFAULT 'PENDING',
    created_at         INTEGER      DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    expires_at         INTEGER,
    finalized_at       INTEGER,
    -- The final tally, written with the outcome. While it is PENDING, count approval_responses.
    approvals          INTEGER      NOT NULL DEFAULT 0,
    rejections         INTEGER      NOT NULL DEFAULT 0,
    abstentions        INTEGER      NOT NULL DEFAULT 0,
    -- 1 when opened, one more with each event; final when decided.
    version            INTEGER      NOT NULL DEFAULT 1,
    -- Of the request as sent: tells a repeat from another request with the same id.
    request_digest     BLOB         NOT NULL,
    -- Who may vote: a row of eligible_sets; 0 and NULL when anyone may.
    eligible_count     SMALLINT     NOT NULL DEFAULT 0,
    eligible_digest    BLOB,
    -- The opening event, and the one that decided.
    log_id             BIGINT       NOT NULL,
    sequence           BIGINT       NOT NULL,
    decided_log_id     BIGINT,
    decided_sequence   BIGINT,
    -- Last: a row's other columns are then read without the pages that a large content takes.
    content            BLOB         NOT NULL
);

-- Lists, newest first.
CREATE INDEX approval_requests_created_at ON approval_requests (created_at, approval_id);

-- One row a vote that counted. No foreign key: an approval's opening stands before its votes in one log,
-- and rows are written in that order; a key would only cost the writer.
-- Without a rowid, so that an approval's votes lie together and each is written into one tree only.
CREATE TABLE approval_responses (
    approval_id  TEXT        NOT NULL,
    validator_id VARCHAR(64) NOT NULL,
    decision     VARCHAR(50) NOT NULL,
    reason       TEXT,
    created_at   INTEGER     NOT NULL,
    -- Of the approval after this vote: rising in the order of the votes.
    version      INTEGER     NOT NULL,
    signature    BLOB,
    -- The event.
    log_id       BIGINT      NOT NULL,
    sequence     BIGINT      NOT NULL,
    PRIMARY KEY (approval_id, validator_id)
) WITHOUT ROWID;

-- Who may vote, when a request named them; stored once however many approvals name the same set.
CREATE TABLE eligible_sets (
    -- SHA-256 over each member, sorted, as one length byte and its bytes.
    set_digest BLOB NOT NULL PRIMARY KEY,
    -- A JSON array of validator ids, sorted.
    members    TEXT NOT NULL
);

-- How far each log of the journal is archived, moved in the transaction that writes the rows.
CREATE TABLE archive_positions (
    log_id     BIGINT  NOT NULL PRIMARY KEY,
    -- Of the last event archived.
    sequence   BIGINT  NOT NULL,
    updated_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) WITHOUT ROWID;

-- Whose database this is: the id of one data folder.
CREATE TABLE archive_deployment (
    deployment_id TEXT    NOT NULL,
    created_at    INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
);

-- At most one row.
CREATE UNIQUE INDEX archive_deployment_one_row ON archive_deployment ((1));

-- Events that the database did not take, kept so that nothing is lost; an operator enters them by hand.
CREATE TABLE archive_rejects (
    log_id      BIGINT  NOT NULL,
    sequence    BIGINT  NOT NULL,
    approval_id TEXT    NOT NULL,
    event       BLOB    NOT NULL,
    reason      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    PRIMARY KEY (log_id, sequence)
);
