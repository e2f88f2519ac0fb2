CREATE TABLE steadfast.idempotency (
    id          bytea PRIMARY KEY,
    state       smallint NOT NULL,
    claim_id    bytea,
    fence       bigint NOT NULL,
    attempt     bigint,
    fingerprint bytea,
    lease_until timestamptz,
    expires_at  timestamptz,
    checkpoint  bytea,
    outcome     bytea,
    origin      text
);

COMMENT ON TABLE steadfast.idempotency IS 'One row per idempotency key; a row whose expires_at is past counts as none';
COMMENT ON COLUMN steadfast.idempotency.id IS 'Hash of namespace, scope and key';
COMMENT ON COLUMN steadfast.idempotency.state IS '1 in progress, interrupted once lease_until is past; 2 completed; 3 cancelled';
COMMENT ON COLUMN steadfast.idempotency.claim_id IS 'Whoever writes has to name it';
COMMENT ON COLUMN steadfast.idempotency.attempt IS 'The last attempt; of a cancelled key, the one that was interrupted';
COMMENT ON COLUMN steadfast.idempotency.expires_at IS 'NULL: never';
COMMENT ON COLUMN steadfast.idempotency.origin IS 'Of one in progress: face and namespace of the policy';

-- What purge looks for.
CREATE INDEX idempotency_expires_at ON steadfast.idempotency (expires_at) WHERE expires_at IS NOT NULL;
-- What lists and counts interrupted operations.
CREATE INDEX idempotency_in_progress ON steadfast.idempotency (id) WHERE state = 1;

CREATE SEQUENCE steadfast.idempotency_fence;
