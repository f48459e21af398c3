-- Approvals and votes as an expert of PostgreSQL would have them: narrow rows, no index but the keys, room in
-- each page so that a tally's update stays on it (HOT).
CREATE TABLE approval (
    id         bigint PRIMARY KEY,
    total      smallint NOT NULL,           -- N
    required   smallint NOT NULL,           -- Q
    approvals  smallint NOT NULL DEFAULT 0,
    rejections smallint NOT NULL DEFAULT 0,
    abstentions smallint NOT NULL DEFAULT 0,
    status     smallint NOT NULL DEFAULT 1, -- 1 pending, 2 approved, 3 rejected
    decided_at timestamptz
) WITH (fillfactor = 50);

CREATE TABLE vote (
    approval  bigint NOT NULL,
    validator smallint NOT NULL,
    decision  smallint NOT NULL,            -- 1 approve, 2 reject, 3 abstain
    PRIMARY KEY (approval, validator)
);

-- What a tally decides.
CREATE FUNCTION status_of(total int, required int, approvals int, others int) RETURNS smallint
LANGUAGE sql IMMUTABLE AS $$
    SELECT (CASE WHEN approvals >= required THEN 2 WHEN total - others < required THEN 3 ELSE 1 END)::smallint
$$;

-- One vote: 0 it counts, 1 a repeat, 2 another vote stands, 3 decided, 4 no such approval.
-- The update's row lock serialises an approval's votes; the key of `vote` holds whatever races it.
CREATE FUNCTION vote(a bigint, v smallint, d smallint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    stands smallint;
BEGIN
    UPDATE approval SET
        approvals = approvals + (d = 1)::int,
        rejections = rejections + (d = 2)::int,
        abstentions = abstentions + (d = 3)::int,
        status = status_of(total, required, approvals + (d = 1)::int, rejections + abstentions + (d <> 1)::int),
        decided_at = CASE WHEN status_of(total, required, approvals + (d = 1)::int,
                                         rejections + abstentions + (d <> 1)::int) <> 1 THEN now() END
    WHERE id = a AND status = 1 AND NOT EXISTS (SELECT FROM vote WHERE approval = a AND validator = v);
    IF FOUND THEN
        INSERT INTO vote VALUES (a, v, d);
        RETURN 0;
    END IF;
    SELECT decision INTO stands FROM vote WHERE approval = a AND validator = v;
    IF FOUND THEN
        RETURN CASE WHEN stands = d THEN 1 ELSE 2 END;
    END IF;
    RETURN CASE WHEN EXISTS (SELECT FROM approval WHERE id = a) THEN 3 ELSE 4 END;
END $$;

-- One validator's votes on many approvals (each at most once); returns how many count.
-- Rows are locked in the order of their ids, so that batches cannot deadlock.
CREATE FUNCTION vote_batch(v smallint, ids bigint[], decisions smallint[]) RETURNS bigint LANGUAGE sql AS $$
    WITH pending AS (
        SELECT b.id, b.d FROM unnest(ids, decisions) AS b(id, d) JOIN approval a USING (id)
        WHERE a.status = 1 ORDER BY b.id FOR NO KEY UPDATE OF a
    ), counted AS (
        INSERT INTO vote SELECT id, v, d FROM pending ON CONFLICT DO NOTHING RETURNING approval, decision
    ), tallied AS (
        UPDATE approval SET
            approvals = approvals + (d = 1)::int,
            rejections = rejections + (d = 2)::int,
            abstentions = abstentions + (d = 3)::int,
            status = status_of(total, required, approvals + (d = 1)::int, rejections + abstentions + (d <> 1)::int),
            decided_at = CASE WHEN status_of(total, required, approvals + (d = 1)::int,
                                             rejections + abstentions + (d <> 1)::int) <> 1 THEN now() END
        FROM (SELECT approval, decision FROM counted) AS c(a, d) WHERE id = a RETURNING 1
    )
    SELECT count(*) FROM tallied
$$;

-- What a validator says: 96 of 100 approve, 2 reject, 2 abstain, as assent's generator.
CREATE FUNCTION decision(a bigint, v int) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
    SELECT (CASE WHEN (a * 31 + v * 17) % 100 < 96 THEN 1 WHEN (a * 31 + v * 17) % 100 < 98 THEN 2 ELSE 3 END)::smallint
$$;
