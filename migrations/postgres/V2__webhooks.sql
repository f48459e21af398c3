-- Webhooks: who is called, what was sent and what came of it.

-- One row a webhook, also when it is deleted: its history stays.
CREATE TABLE webhook_registry (
    webhook_id            UUID PRIMARY KEY,
    owner_id              UUID NOT NULL,
    endpoint_url          VARCHAR(2048) NOT NULL,
    http_method           VARCHAR(10) NOT NULL DEFAULT 'POST',
    status                VARCHAR(50) NOT NULL DEFAULT 'ACTIVE',
    -- Encrypted: useless without the node's master key.
    webhook_secret        BYTEA NOT NULL,
    require_signature     BOOLEAN DEFAULT true,
    custom_headers        JSONB DEFAULT '{}',
    metadata              JSONB DEFAULT '{}',
    -- Deliveries that reached a final state, cancelled ones not counted.
    total_deliveries      BIGINT DEFAULT 0,
    successful_deliveries BIGINT DEFAULT 0,
    failed_deliveries     BIGINT DEFAULT 0,
    -- Percent; calculate_webhook_success_rate() keeps it.
    success_rate          DECIMAL(5,2) DEFAULT 0.00,
    created_at            TIMESTAMPTZ DEFAULT now(),
    -- update_webhook_updated_at() keeps it.
    updated_at            TIMESTAMPTZ DEFAULT now()
);
COMMENT ON TABLE webhook_registry IS 'One row a webhook: where it points, its state and its counters.';

-- An owner's webhooks.
CREATE INDEX webhook_registry_owner_id ON webhook_registry (owner_id);
-- Those that are active, failing, ….
CREATE INDEX webhook_registry_status ON webhook_registry (status);
-- Newest first.
CREATE INDEX webhook_registry_created_at ON webhook_registry (created_at);
-- An owner's active ones.
CREATE INDEX webhook_registry_owner_id_status ON webhook_registry (owner_id, status);

-- One row a delivery: one event to one webhook, with its latest attempt.
CREATE TABLE webhook_delivery_records (
    delivery_id      UUID PRIMARY KEY,
    webhook_id       UUID NOT NULL REFERENCES webhook_registry (webhook_id),
    event_id         VARCHAR(255) NOT NULL,
    endpoint_url     VARCHAR(2048) NOT NULL,
    http_method      VARCHAR(10) NOT NULL,
    request_body     BYTEA,
    response_code    INTEGER,
    response_body    TEXT,
    status           VARCHAR(50) NOT NULL,
    attempt_number   SMALLINT DEFAULT 1,
    max_attempts     SMALLINT DEFAULT 5,
    error_message    TEXT,
    next_retry_at    TIMESTAMPTZ,
    response_time_ms INTEGER,
    created_at       TIMESTAMPTZ DEFAULT now(),
    completed_at     TIMESTAMPTZ
);
COMMENT ON TABLE webhook_delivery_records IS 'One row a delivery: one event to one webhook, with its latest attempt.';

-- A webhook's deliveries.
CREATE INDEX webhook_delivery_records_webhook_id ON webhook_delivery_records (webhook_id);
-- Those that wait, failed, ….
CREATE INDEX webhook_delivery_records_status ON webhook_delivery_records (status);
-- By age.
CREATE INDEX webhook_delivery_records_created_at ON webhook_delivery_records (created_at);
-- What is due.
CREATE INDEX webhook_delivery_records_next_retry_at ON webhook_delivery_records (next_retry_at);
-- A webhook's history, in pages.
CREATE INDEX webhook_delivery_records_history ON webhook_delivery_records (webhook_id, created_at, delivery_id);

-- Which events a webhook is told of.
CREATE TABLE webhook_event_subscriptions (
    subscription_id UUID PRIMARY KEY,
    webhook_id      UUID NOT NULL REFERENCES webhook_registry (webhook_id),
    event_type      VARCHAR(100) NOT NULL,
    active          BOOLEAN DEFAULT true,
    created_at      TIMESTAMPTZ DEFAULT now()
);
COMMENT ON TABLE webhook_event_subscriptions IS 'Which kinds of event a webhook is told of.';

-- What is still to be delivered.
CREATE VIEW pending_webhook_deliveries AS
    SELECT * FROM webhook_delivery_records WHERE status IN ('PENDING', 'RETRY');
COMMENT ON VIEW pending_webhook_deliveries IS 'Deliveries that were never attempted, or are due for another attempt.';

-- Each webhook's figures. The average is over the deliveries that are kept and had an answer.
CREATE VIEW webhook_statistics AS
    SELECT w.webhook_id, w.owner_id, w.total_deliveries, w.successful_deliveries, w.failed_deliveries,
           w.success_rate,
           (SELECT avg(d.response_time_ms) FROM webhook_delivery_records d WHERE d.webhook_id = w.webhook_id)
               AS avg_response_time_ms
    FROM webhook_registry w;
COMMENT ON VIEW webhook_statistics IS 'Each webhook''s counters, success rate and average response time.';

-- updated_at is the time of the transaction that changed the row.
CREATE FUNCTION update_webhook_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION update_webhook_updated_at() IS 'Trigger: updated_at is now.';

-- Percent of the deliveries that succeeded or failed; 0 before the first.
CREATE FUNCTION calculate_webhook_success_rate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    finished BIGINT := coalesce(NEW.successful_deliveries, 0) + coalesce(NEW.failed_deliveries, 0);
BEGIN
    NEW.success_rate = CASE
        WHEN finished > 0 THEN round(100.0 * coalesce(NEW.successful_deliveries, 0) / finished, 2)
        ELSE 0.00
    END;
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION calculate_webhook_success_rate() IS 'Trigger: success_rate from the counters.';

-- Counters alone leave updated_at as it is: it says when the webhook was configured last.
CREATE TRIGGER webhook_registry_updated_at BEFORE UPDATE ON webhook_registry FOR EACH ROW
    WHEN ((OLD.owner_id, OLD.endpoint_url, OLD.http_method, OLD.status, OLD.webhook_secret,
           OLD.require_signature, OLD.custom_headers, OLD.metadata)
          IS DISTINCT FROM
          (NEW.owner_id, NEW.endpoint_url, NEW.http_method, NEW.status, NEW.webhook_secret,
           NEW.require_signature, NEW.custom_headers, NEW.metadata))
    EXECUTE FUNCTION update_webhook_updated_at();
COMMENT ON TRIGGER webhook_registry_updated_at ON webhook_registry IS 'When configuration changes, not counters.';

CREATE TRIGGER webhook_registry_success_rate BEFORE UPDATE ON webhook_registry FOR EACH ROW
    EXECUTE FUNCTION calculate_webhook_success_rate();
COMMENT ON TRIGGER webhook_registry_success_rate ON webhook_registry IS 'Whenever the row changes.';
