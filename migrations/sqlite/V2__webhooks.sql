-- Webhooks: who is told, of what, and what became of it. Types as in V1; JSONB is TEXT, DECIMAL REAL.

-- One row a webhook.
CREATE TABLE webhook_registry (
    webhook_id            TEXT          NOT NULL PRIMARY KEY,
    owner_id              TEXT          NOT NULL,
    endpoint_url          VARCHAR(2048) NOT NULL,
    http_method           VARCHAR(10)   NOT NULL DEFAULT 'POST',
    status                VARCHAR(50)   NOT NULL DEFAULT 'ACTIVE',
    -- Encrypted: useless without the master key.
    webhook_secret        BLOB          NOT NULL,
    require_signature     BOOLEAN       DEFAULT true,
    custom_headers        TEXT          DEFAULT '{}',
    metadata              TEXT          DEFAULT '{}',
    -- Deliveries at their final state.
    total_deliveries      BIGINT        DEFAULT 0,
    successful_deliveries BIGINT        DEFAULT 0,
    failed_deliveries     BIGINT        DEFAULT 0,
    -- Percent; kept by the trigger below.
    success_rate          REAL          DEFAULT 0.00,
    created_at            INTEGER       DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    -- Of the configuration; kept by the trigger below.
    updated_at            INTEGER       DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
);

-- An owner's webhooks.
CREATE INDEX webhook_registry_owner_id ON webhook_registry (owner_id);
-- Those that are active, or fail.
CREATE INDEX webhook_registry_status ON webhook_registry (status);
-- Newest first.
CREATE INDEX webhook_registry_created_at ON webhook_registry (created_at);
-- An owner's active ones.
CREATE INDEX webhook_registry_owner_id_status ON webhook_registry (owner_id, status);

-- One row a delivery: an event for a webhook.
CREATE TABLE webhook_delivery_records (
    delivery_id      TEXT          NOT NULL PRIMARY KEY,
    webhook_id       TEXT          NOT NULL REFERENCES webhook_registry (webhook_id),
    event_id         VARCHAR(255)  NOT NULL,
    endpoint_url     VARCHAR(2048) NOT NULL,
    http_method      VARCHAR(10)   NOT NULL,
    -- Sent as it is, by every attempt.
    request_body     BLOB,
    response_code    INTEGER,
    response_body    TEXT,
    status           VARCHAR(50)   NOT NULL,
    attempt_number   SMALLINT      DEFAULT 1,
    max_attempts     SMALLINT      DEFAULT 5,
    error_message    TEXT,
    next_retry_at    INTEGER,
    response_time_ms INTEGER,
    created_at       INTEGER       DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    completed_at     INTEGER
);

-- A webhook's deliveries.
CREATE INDEX webhook_delivery_records_webhook_id ON webhook_delivery_records (webhook_id);
-- Those that wait.
CREATE INDEX webhook_delivery_records_status ON webhook_delivery_records (status);
-- What retention prunes.
CREATE INDEX webhook_delivery_records_created_at ON webhook_delivery_records (created_at);
-- What is due.
CREATE INDEX webhook_delivery_records_next_retry_at ON webhook_delivery_records (next_retry_at);
-- Pages of a webhook's history.
CREATE INDEX webhook_delivery_records_page ON webhook_delivery_records (webhook_id, created_at, delivery_id);

-- What a webhook is told of.
CREATE TABLE webhook_event_subscriptions (
    subscription_id TEXT         NOT NULL PRIMARY KEY,
    webhook_id      TEXT         NOT NULL REFERENCES webhook_registry (webhook_id),
    event_type      VARCHAR(100) NOT NULL,
    active          BOOLEAN      DEFAULT true,
    created_at      INTEGER      DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
);

-- What has not come to its end.
CREATE VIEW pending_webhook_deliveries AS
SELECT * FROM webhook_delivery_records WHERE status IN ('PENDING', 'RETRY');

-- A webhook's figures. No answer timed yet: its average is NULL.
CREATE VIEW webhook_statistics AS
SELECT
    registry.webhook_id,
    registry.owner_id,
    registry.total_deliveries,
    registry.successful_deliveries,
    registry.failed_deliveries,
    registry.success_rate,
    (
        SELECT AVG(records.response_time_ms)
        FROM webhook_delivery_records AS records
        WHERE records.webhook_id = registry.webhook_id
    ) AS avg_response_time_ms
FROM webhook_registry AS registry;

-- Only a change of the configuration counts: a delivery that moves a counter does not.
-- (A trigger of SQLite cannot change the row on its way in, so both come after it; neither sets off the other.)
CREATE TRIGGER update_webhook_updated_at
AFTER UPDATE OF owner_id, endpoint_url, http_method, status, webhook_secret, require_signature, custom_headers, metadata
ON webhook_registry
WHEN (NEW.owner_id, NEW.endpoint_url, NEW.http_method, NEW.status, NEW.webhook_secret)
        IS NOT (OLD.owner_id, OLD.endpoint_url, OLD.http_method, OLD.status, OLD.webhook_secret)
    OR (NEW.require_signature, NEW.custom_headers, NEW.metadata)
        IS NOT (OLD.require_signature, OLD.custom_headers, OLD.metadata)
BEGIN
    UPDATE webhook_registry
    SET updated_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    WHERE webhook_id = NEW.webhook_id;
END;

-- Percent of what came to an end, with two decimals; 0 before anything did.
CREATE TRIGGER calculate_webhook_success_rate
AFTER UPDATE OF successful_deliveries, failed_deliveries ON webhook_registry
BEGIN
    UPDATE webhook_registry
    SET success_rate = COALESCE(
        ROUND(
            100.0 * NEW.successful_deliveries / NULLIF(NEW.successful_deliveries + NEW.failed_deliveries, 0), 2
        ),
        0.0
    )
    WHERE webhook_id = NEW.webhook_id;
END;
