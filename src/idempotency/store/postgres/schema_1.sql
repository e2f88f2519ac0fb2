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

-- A row is in one of these, so that a claim and a completion each write one: what purge looks for ..
CREATE INDEX idempotency_completed ON steadfast.idempotency (expires_at) WHERE state = 2;
-- .. and what lists and counts interrupted operations, of which purge looks at each.
CREATE INDEX idempotency_in_progress ON steadfast.idempotency (id) WHERE state = 1;

CREATE SEQUENCE steadfast.idempotency_fence;

-- What happens most is done in functions. Of what they run the server keeps the plan, on each of its connections, and to plan
-- their call costs little: so nobody has to prepare statements, which a PgBouncer may lose.
--
-- Each is a transaction of its own. Its commit is durable whatever the default is; a setting of remote_apply promises more,
-- and stays. The wait for a row that somebody's open transaction holds is bounded, where nothing bounds it.

CREATE FUNCTION steadfast.idempotency_claim(
    _id bytea, _claim_id bytea, _fingerprint bytea, _lease bigint, _retention bigint, _origin text
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _setting text;
    _fence bigint;
BEGIN
    IF current_setting('lock_timeout') = '0' THEN
        _setting := set_config('lock_timeout', '2s', true);
    END IF;
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        _setting := set_config('synchronous_commit', 'on', true);
    END IF;
    INSERT INTO steadfast.idempotency AS r
        (id, state, claim_id, fence, attempt, fingerprint, lease_until, expires_at, origin)
    VALUES (
        _id, 1, _claim_id, nextval('steadfast.idempotency_fence'), 1, _fingerprint,
        statement_timestamp() + _lease * interval '1 microsecond',
        statement_timestamp() + (_lease + _retention) * interval '1 microsecond', _origin
    )
    ON CONFLICT (id) DO NOTHING
    RETURNING r.fence INTO _fence;
    RETURN _fence;
END
$$;
COMMENT ON FUNCTION steadfast.idempotency_claim IS
    'Claims a key that has no record, and answers the fence; NULL where it has one. Times in microseconds';

CREATE FUNCTION steadfast.idempotency_complete(
    _id bytea, _claim_id bytea, _fence bigint, _attempt bigint, _fingerprint bytea, _outcome bytea, _retention bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _setting text;
BEGIN
    IF current_setting('lock_timeout') = '0' THEN
        _setting := set_config('lock_timeout', '2s', true);
    END IF;
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        _setting := set_config('synchronous_commit', 'on', true);
    END IF;
    INSERT INTO steadfast.idempotency AS r
        (id, state, claim_id, fence, attempt, fingerprint, expires_at, outcome)
    VALUES (
        _id, 2, _claim_id, _fence, _attempt, _fingerprint,
        statement_timestamp() + _retention * interval '1 microsecond', _outcome
    )
    ON CONFLICT (id) DO UPDATE SET
        state = 2, claim_id = EXCLUDED.claim_id, outcome = EXCLUDED.outcome, expires_at = EXCLUDED.expires_at,
        lease_until = NULL, checkpoint = NULL, origin = NULL,
        fence = CASE WHEN r.expires_at <= statement_timestamp() THEN EXCLUDED.fence ELSE r.fence END,
        attempt = CASE WHEN r.expires_at <= statement_timestamp() THEN EXCLUDED.attempt ELSE r.attempt END,
        fingerprint = CASE WHEN r.expires_at <= statement_timestamp() THEN EXCLUDED.fingerprint ELSE r.fingerprint END
    WHERE r.expires_at <= statement_timestamp() OR (r.state = 1 AND r.claim_id = EXCLUDED.claim_id);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION steadfast.idempotency_complete IS
    'Completes the record of a claim, or of nobody; false where somebody else has it, or it is completed';

-- Many at once wait for a row but for as long as a commit may take: then they are tried one by one. They come in the order
-- of their keys, so that two of these never wait for each other in a circle.

CREATE FUNCTION steadfast.idempotency_claims(
    _ids bytea[], _claim_ids bytea[], _fingerprints bytea[], _leases bigint[], _retentions bigint[], _origins text[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    _setting text := set_config('lock_timeout', '50ms', true);
    _fences bigint[];
BEGIN
    FOR n IN 1 .. cardinality(_ids) LOOP
        _fences[n] := steadfast.idempotency_claim(
            _ids[n], _claim_ids[n], _fingerprints[n], _leases[n], _retentions[n], _origins[n]
        );
    END LOOP;
    RETURN _fences;
END
$$;

CREATE FUNCTION steadfast.idempotency_completions(
    _ids bytea[], _claim_ids bytea[], _fences bigint[], _attempts bigint[], _fingerprints bytea[], _outcomes bytea[],
    _retentions bigint[]
) RETURNS boolean[] LANGUAGE plpgsql AS $$
DECLARE
    _setting text := set_config('lock_timeout', '50ms', true);
    _done boolean[];
BEGIN
    FOR n IN 1 .. cardinality(_ids) LOOP
        _done[n] := steadfast.idempotency_complete(
            _ids[n], _claim_ids[n], _fences[n], _attempts[n], _fingerprints[n], _outcomes[n], _retentions[n]
        );
    END LOOP;
    RETURN _done;
END
$$;
