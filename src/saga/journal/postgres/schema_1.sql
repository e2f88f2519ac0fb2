CREATE TABLE steadfast.saga (
    id          bytea PRIMARY KEY,
    key         bytea NOT NULL UNIQUE,
    input       bytea NOT NULL,
    name        bytea NOT NULL,
    version     bigint NOT NULL,
    fingerprint bytea NOT NULL,
    status      smallint NOT NULL,
    seq         bigint NOT NULL,
    epoch       bigint NOT NULL,
    owner       bytea,
    due         timestamptz,
    recoveries  bigint NOT NULL DEFAULT 0,
    suspect     boolean NOT NULL GENERATED ALWAYS AS (recoveries >= 3) STORED,
    can_turn    boolean NOT NULL,
    cancel      boolean NOT NULL DEFAULT false,
    deadline    timestamptz,
    error       bytea,
    created_at  timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL,
    pruned      boolean NOT NULL DEFAULT false
);

COMMENT ON TABLE steadfast.saga IS 'The head of each saga; steadfast.sagas shows them readable';
COMMENT ON COLUMN steadfast.saga.key IS 'Hash of namespace, scope and key';
COMMENT ON COLUMN steadfast.saga.input IS 'Hash of the context at the start';
COMMENT ON COLUMN steadfast.saga.status IS '1 running, 2 compensating, 3 completed, 4 compensated, 5 stuck, 6 abandoned';
COMMENT ON COLUMN steadfast.saga.seq IS 'How many events it has';
COMMENT ON COLUMN steadfast.saga.epoch IS 'How often it was claimed: who writes has to name it';
COMMENT ON COLUMN steadfast.saga.due IS 'When the lease of its owner ends; without an owner, when it is to be claimed';
COMMENT ON COLUMN steadfast.saga.recoveries IS 'How often in a row its owner was lost without a result';
COMMENT ON COLUMN steadfast.saga.can_turn IS 'Whether it can turn back';
COMMENT ON COLUMN steadfast.saga.cancel IS 'Whether it was asked to';

-- What a claim looks for.
CREATE INDEX saga_due ON steadfast.saga (fingerprint, suspect, due, id) WHERE status IN (1, 2);
-- What needs somebody to look.
CREATE INDEX saga_stuck ON steadfast.saga (id) WHERE status = 5;
-- What is cleared away: events first, what is left later.
CREATE INDEX saga_settled ON steadfast.saga (pruned, changed_at) WHERE status IN (3, 4, 6);

-- Without a foreign key, which would lock the head's row for each event: both are written by the same statements.
CREATE TABLE steadfast.saga_event (
    saga    bytea NOT NULL,
    seq     bigint NOT NULL,
    epoch   bigint NOT NULL,
    at      timestamptz NOT NULL,
    event   bytea NOT NULL,
    context bytea,
    PRIMARY KEY (saga, seq)
);

COMMENT ON TABLE steadfast.saga_event IS 'The events of each saga; steadfast.saga_events shows them readable';
COMMENT ON COLUMN steadfast.saga_event.epoch IS 'In which ownership it was written';
COMMENT ON COLUMN steadfast.saga_event.context IS 'The context after it, where it changes';

-- Bytes as text; those that are none, escaped.
CREATE FUNCTION steadfast.readable(bytes bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN encode(bytes, 'escape');
END
$$;

CREATE VIEW steadfast.sagas AS
SELECT encode(id, 'hex') AS id, encode(key, 'hex') AS key, steadfast.readable(name) AS name, version,
    CASE status WHEN 1 THEN 'running' WHEN 2 THEN 'compensating' WHEN 3 THEN 'completed' WHEN 4 THEN 'compensated'
        WHEN 5 THEN 'stuck' WHEN 6 THEN 'abandoned' END AS status,
    seq, epoch, encode(owner, 'hex') AS owner, due, recoveries, can_turn, cancel, deadline,
    steadfast.readable(error) AS error, created_at, changed_at, pruned
FROM steadfast.saga;

CREATE VIEW steadfast.saga_events AS
SELECT encode(saga, 'hex') AS saga, seq, epoch, at, steadfast.readable(event) AS event,
    steadfast.readable(context) AS context
FROM steadfast.saga_event;
