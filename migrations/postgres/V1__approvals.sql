-- The archive of approvals, written by one node from its journal, read by anyone with SQL.
-- Ids are UUIDs, times are UTC, names of kinds are those of the public protocol without their prefix.
-- An event is named by (log_id, sequence); a log has one order.

-- One row an approval: written when its opening is archived, and once more when it is decided, unless
-- both came in one batch. Room is left in each page (fillfactor), so that the second writing stays in
-- the page and touches no index.
CREATE TABLE approval_requests (
    approval_id        UUID PRIMARY KEY,
    approval_type      VARCHAR(100) NOT NULL,
    priority           VARCHAR(50) NOT NULL,
    requester_id       UUID NOT NULL,
    content            BYTEA NOT NULL,
    content_hash       VARCHAR(255) NOT NULL,
    required_approvals SMALLINT NOT NULL,
    total_validators   SMALLINT NOT NULL,
    status             VARCHAR(50) NOT NULL DEFAULT 'PENDING',
    created_at         TIMESTAMPTZ DEFAULT now(),
    expires_at         TIMESTAMPTZ,
    finalized_at       TIMESTAMPTZ,
    -- The final tally, written with the outcome. While it is PENDING, count approval_responses.
    approvals          INTEGER NOT NULL DEFAULT 0,
    rejections         INTEGER NOT NULL DEFAULT 0,
    abstentions        INTEGER NOT NULL DEFAULT 0,
    -- 1 when opened, one more with each event; written with the outcome, as the tally is.
    version            INTEGER NOT NULL DEFAULT 1,
    -- Of the request as sent: the first 16 bytes of a SHA-256 that tell a repeat from another request.
    request_digest     BYTEA NOT NULL,
    -- Who may vote: how many, and eligible_sets.set_digest; 0 and NULL when anyone may.
    eligible_count     SMALLINT NOT NULL DEFAULT 0,
    eligible_digest    BYTEA,
    -- The opening event.
    log_id             BIGINT NOT NULL,
    sequence           BIGINT NOT NULL,
    -- The deciding event.
    decided_log_id     BIGINT,
    decided_sequence   BIGINT
) WITH (fillfactor = 70);
COMMENT ON TABLE approval_requests IS 'One row an approval: the question, where it stands, and its final tally.';

-- Lists, newest first, and their pages. Further indexes would cost every row that is written.
CREATE INDEX approval_requests_created_at ON approval_requests (created_at, approval_id);
COMMENT ON INDEX approval_requests_created_at IS 'Lists, newest first, in pages.';

-- One row a vote that counted. No foreign key: a log has the opening before its votes, and the archive
-- takes a log in its order; checking each row again would only slow the writer.
CREATE TABLE approval_responses (
    approval_id  UUID NOT NULL,
    validator_id VARCHAR(64) NOT NULL,
    decision     VARCHAR(50) NOT NULL,
    reason       TEXT,
    created_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- Of the approval after this vote: unique and rising within an approval.
    version      INTEGER NOT NULL,
    signature    BYTEA,
    log_id       BIGINT NOT NULL,
    sequence     BIGINT NOT NULL,
    PRIMARY KEY (approval_id, validator_id)
);
COMMENT ON TABLE approval_responses IS 'One row a vote that counted; at most one of each validator on an approval.';

-- Sets of eligible validators, each stored once however many approvals name it.
CREATE TABLE eligible_sets (
    -- SHA-256 over each member, sorted, as one length byte and its bytes.
    set_digest BYTEA PRIMARY KEY,
    -- Sorted by bytes.
    members    TEXT[] NOT NULL
);
COMMENT ON TABLE eligible_sets IS 'Who may vote, by the digest that approval_requests.eligible_digest names.';

-- How far each log is archived: moved in the transaction that writes the rows.
CREATE TABLE archive_positions (
    log_id     BIGINT PRIMARY KEY,
    sequence   BIGINT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE archive_positions IS 'The last event of each log that is archived. Written by the node alone.';

-- Whose archive this is: at most one row.
CREATE TABLE archive_deployment (
    deployment_id UUID NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE archive_deployment IS 'The deployment that this database belongs to. Written by the node alone.';

-- Holds it to one row.
CREATE UNIQUE INDEX archive_deployment_one ON archive_deployment ((true));
COMMENT ON INDEX archive_deployment_one IS 'At most one row.';

-- Events whose content the database would not take, kept whole, to be entered by hand.
CREATE TABLE archive_rejects (
    log_id      BIGINT NOT NULL,
    sequence    BIGINT NOT NULL,
    approval_id UUID NOT NULL,
    event       BYTEA NOT NULL,
    reason      TEXT NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (log_id, sequence)
);
COMMENT ON TABLE archive_rejects IS 'Events that this database refused, with the reason it gave.';
