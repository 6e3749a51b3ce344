"""The functions that the PostgreSQL store keeps in the database, as SQL: everything that writes records.

Theory of operation
-------------------
Everything that writes is ONE statement, mostly a call of a function below, in a transaction of its own. So the server
never waits for a client while it holds a lock: a process that is stopped or cut off at any instant keeps nobody else
from going on, and the next engine takes over at once.

Fencing (D4): each opening of a run is a row of ``opening``. A commit updates its own one, which fails once it is
fenced; opening a run fences the others, and waits until their commits under way have ended. Both are row locks, so
that no commit can slip in between the check and the write.

A commit whose answer was lost: the same update counts the commits of the opening. Whoever repeats a call with the same
``sequence`` learns that it was done, also if the opening was fenced in the meantime, and also if the server is still
busy with it: then the repetition waits for the first one.

What is looked up for each record is a sub-select with a LIMIT, and the planner may use indexes only: a join it would
turn round while it knows no statistics, and read all rows of the run at each commit.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FUNCTIONS"]

_ENTER: Final = """CREATE OR REPLACE FUNCTION enter(p_run bigint, p_epoch integer, p_sequence bigint)
RETURNS text LANGUAGE plpgsql AS $headgate$
-- Whether the caller is to go on: 'go', or 'done' if this very call was done before, or 'fenced'.
DECLARE
    known bigint;
BEGIN
    UPDATE opening SET sequence = p_sequence
        WHERE run = p_run AND epoch = p_epoch AND sequence < p_sequence AND NOT fenced;
    IF FOUND THEN
        RETURN 'go';
    END IF;
    SELECT sequence INTO known FROM opening WHERE run = p_run AND epoch = p_epoch;
    RETURN CASE WHEN known >= p_sequence THEN 'done' ELSE 'fenced' END;
END
$headgate$"""

_OPEN_RUN: Final = """CREATE OR REPLACE FUNCTION open_run(
    p_name text, p_columns text[], p_fingerprints text[], p_renewed text[], p_kept text[], p_now double precision,
    p_group_rows integer,
    OUT o_run bigint, OUT o_epoch integer, OUT o_group_rows integer
) LANGUAGE plpgsql AS $headgate$
-- Lets the next epoch begin, and returns no run if a column has changed that is neither renewed nor kept. With
-- group_rows it is shared with those who came before under the same condition, and fences out the others; without it
-- fences out everybody. So it does if a column changes, for there is one description at work at a time; and who shares
-- has the same columns as all others who do, or gets no run, unless it says of each of its columns what becomes of it:
-- then it fences out those with other columns.
DECLARE
    known integer;
    taken boolean;
    own text[] := ARRAY(SELECT given FROM unnest(p_columns) AS given ORDER BY given);
    changed record;
BEGIN
    INSERT INTO run (name, epoch, status, created_at) VALUES (p_name, 0, 'running', p_now) ON CONFLICT DO NOTHING;
    SELECT id INTO o_run FROM run WHERE name = p_name FOR UPDATE;
    UPDATE run SET swept = false, created_at = p_now WHERE id = o_run AND swept;
    PERFORM FROM unnest(p_columns, p_fingerprints) AS given (name, fingerprint)
        JOIN run_column USING (name)
        WHERE run_column.run = o_run AND run_column.fingerprint <> given.fingerprint
            AND name <> ALL (p_renewed || p_kept);
    IF FOUND THEN
        o_run := NULL;
        RETURN;
    END IF;
    taken := p_group_rows IS NULL OR EXISTS (
        SELECT FROM unnest(p_columns, p_fingerprints) AS given (name, fingerprint) JOIN run_column USING (name)
        WHERE run_column.run = o_run AND run_column.fingerprint <> given.fingerprint);
    IF NOT taken AND EXISTS (SELECT FROM opening WHERE run = o_run AND shared AND NOT fenced AND columns <> own) THEN
        IF NOT own <@ (p_renewed || p_kept) THEN
            o_run := NULL;
            RETURN;
        END IF;
        taken := true;
    END IF;
    SELECT count(*) INTO known FROM run_column WHERE run = o_run;
    INSERT INTO run_column (run, id, number, name, fingerprint)
        SELECT o_run, known - 1 + row_number() OVER (ORDER BY place), known - 1 + row_number() OVER (ORDER BY place),
            name, fingerprint
        FROM unnest(p_columns, p_fingerprints) WITH ORDINALITY AS given (name, fingerprint, place)
        WHERE NOT EXISTS (SELECT FROM run_column AS had WHERE had.run = o_run AND had.name = given.name);
    -- What the groups were complete with is not all any more: there is a column that those who shared the run did not
    -- have, or that they left alone. Once they are fenced out nobody knows, so who comes alone asks for all columns.
    IF FOUND OR EXISTS (
        SELECT FROM opening WHERE run = o_run AND shared AND NOT fenced AND NOT columns @> CASE
            WHEN p_group_rows IS NULL THEN ARRAY(SELECT name FROM run_column WHERE run = o_run) ELSE own END
    ) THEN
        UPDATE row_group SET open = true WHERE run = o_run AND NOT open;
    END IF;
    UPDATE opening SET fenced = true WHERE run = o_run AND NOT fenced AND (taken OR NOT shared);
    IF taken THEN
        UPDATE row_group SET holder = NULL, ends_at = NULL, token = token + 1 WHERE run = o_run AND open;
    END IF;
    UPDATE run SET epoch = epoch + 1, status = 'running', finished_at = NULL,
            group_rows = coalesce(group_rows, p_group_rows)
        WHERE id = o_run RETURNING epoch, group_rows INTO o_epoch, o_group_rows;
    INSERT INTO opening (run, epoch, shared, columns) VALUES (o_run, o_epoch, p_group_rows IS NOT NULL, own);
    -- Only now, when nobody is committing to the cells of before any more.
    FOR changed IN
        SELECT c.id AS place, given.fingerprint, name = ANY (p_renewed) AS begins_anew
        FROM unnest(p_columns, p_fingerprints) AS given (name, fingerprint) JOIN run_column AS c USING (name)
        WHERE c.run = o_run AND c.fingerprint <> given.fingerprint
    LOOP
        IF changed.begins_anew THEN
            PERFORM renew_column(o_run, changed.place, changed.fingerprint, o_epoch);
        END IF;
        UPDATE run_column SET fingerprint = changed.fingerprint WHERE run = o_run AND id = changed.place;
    END LOOP;
END
$headgate$"""

_RENEW_COLUMN: Final = """CREATE OR REPLACE FUNCTION renew_column(
    p_run bigint, p_place integer, p_fingerprint text, p_epoch integer
) RETURNS void LANGUAGE plpgsql AS $headgate$
-- Puts aside what the column has, and brings back what it had with this fingerprint, or else begins with nothing.
DECLARE
    before integer;
    fresh integer;
BEGIN
    SELECT number INTO before FROM run_column WHERE run = p_run AND id = p_place;
    SELECT number INTO fresh FROM generation
        WHERE run = p_run AND place = p_place AND fingerprint = p_fingerprint ORDER BY epoch DESC LIMIT 1;
    IF FOUND THEN
        DELETE FROM generation WHERE run = p_run AND number = fresh;
    ELSE
        SELECT least(min(number), 0) - 1 INTO fresh FROM (
            SELECT number FROM run_column WHERE run = p_run UNION ALL SELECT number FROM generation WHERE run = p_run
        ) AS used;
    END IF;
    INSERT INTO generation (run, number, place, fingerprint, epoch)
        SELECT run, number, id, fingerprint, p_epoch FROM run_column WHERE run = p_run AND id = p_place;
    UPDATE run_column SET number = fresh WHERE run = p_run AND id = p_place;
    DELETE FROM held WHERE run = p_run AND col = before;
    -- What the groups were complete with is not there any more.
    UPDATE row_group SET open = true WHERE run = p_run AND NOT open;
END
$headgate$"""

_COMMIT: Final = """CREATE OR REPLACE FUNCTION commit_batches(
    p_run bigint, p_epoch integer, p_sequence bigint,
    r_position bigint[], r_id_digest bytea[], r_row_id text[], r_digest bytea[], r_checksum bigint[], r_data bytea[],
    x_position bigint[], x_col integer[],
    c_position bigint[], c_col integer[], c_status text[], c_reason text[], c_message text[], c_attempts integer[],
    c_http_status integer[], c_input bigint[], c_output bigint[], c_finished_at double precision[],
    c_checksum bigint[], c_payload bytea[],
    u_position bigint[], u_col integer[],
    h_position bigint[], h_col integer[], h_reason text[], h_not_before double precision[], h_attempts integer[],
    h_history bytea[],
    s_position bigint[], s_col integer[], s_attempt integer[], s_reason text[], s_input bigint[], s_output bigint[],
    l_checksum bigint, l_data bytea,
    g_number bigint[], g_token bigint[]
) RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $headgate$
-- Writes everything, or nothing: then it is refused, and returns false. An error would fill the server's log.
DECLARE
    written bigint;
    entered text;
BEGIN
    entered := enter(p_run, p_epoch, p_sequence);
    IF entered <> 'go' THEN
        RETURN entered = 'done';
    END IF;
    IF cardinality(g_number) > 0 THEN
        -- Locked until the end, so that nobody claims them meanwhile.
        PERFORM FROM row_group WHERE run = p_run AND number = ANY (g_number) ORDER BY number FOR SHARE;
        PERFORM FROM unnest(g_number, g_token) AS g (number, token)
            WHERE (SELECT had.token FROM row_group AS had WHERE had.run = p_run AND had.number = g.number LIMIT 1)
                IS DISTINCT FROM g.token;
        IF FOUND THEN
            RAISE EXCEPTION 'lost claims' USING ERRCODE = 'HG001';
        END IF;
    END IF;
    -- In the order of keys everywhere: writers that meet on some rows wait for each other instead of in a ring.
    IF cardinality(r_position) > 0 THEN
        INSERT INTO input_row
            SELECT p_run, g.position, g.id_digest, g.row_id, g.digest, g.checksum, g.data
            FROM unnest(r_position, r_id_digest, r_row_id, r_digest, r_checksum, r_data) WITH ORDINALITY
                AS g (position, id_digest, row_id, digest, checksum, data, place)
            ORDER BY g.position, g.place ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> cardinality(r_position) THEN
            PERFORM FROM unnest(r_position, r_id_digest, r_digest) AS g (position, id_digest, digest)
                LEFT JOIN LATERAL (SELECT id_digest, digest FROM input_row AS stored
                    WHERE stored.run = p_run AND stored.position = g.position LIMIT 1) AS had ON true
                WHERE had.id_digest IS DISTINCT FROM g.id_digest OR had.digest IS DISTINCT FROM g.digest;
            IF FOUND THEN
                RAISE EXCEPTION 'other rows' USING ERRCODE = 'HG001';
            END IF;
        END IF;
    END IF;
    PERFORM FROM (SELECT DISTINCT * FROM unnest(c_position || h_position || s_position)) AS g (position)
        WHERE (SELECT true FROM input_row AS had WHERE had.run = p_run AND had.position = g.position LIMIT 1) IS NULL;
    IF FOUND THEN
        RAISE EXCEPTION 'unknown rows' USING ERRCODE = 'HG001';
    END IF;
    -- What an earlier epoch ended without a value is reopened; its tokens stay on record, as those of an attempt 0.
    FOR i IN 1 .. cardinality(x_position) LOOP
        WITH ended AS (
            DELETE FROM cell WHERE run = p_run AND position = x_position[i] AND col = x_col[i]
                AND epoch < p_epoch AND status <> 'done' RETURNING *
        )
        INSERT INTO spent
            SELECT run, position, col, epoch, 0, reason, input_tokens, output_tokens FROM ended ON CONFLICT DO NOTHING;
    END LOOP;
    IF cardinality(x_position) > 0 THEN  -- by one who has the run alone: who shares it has them open
        UPDATE row_group SET open = true WHERE run = p_run AND NOT open AND number IN (
            SELECT given / group_rows FROM unnest(x_position) AS given, run WHERE run.id = p_run);
    END IF;
    IF cardinality(c_position) > 0 THEN
        INSERT INTO cell
            SELECT p_run, g.position, g.col, p_epoch, g.status, g.reason, g.message, g.attempts, g.http_status,
                g.input, g.output, g.finished_at, g.checksum, g.payload
            FROM unnest(c_position, c_col, c_status, c_reason, c_message, c_attempts, c_http_status, c_input, c_output,
                c_finished_at, c_checksum, c_payload) WITH ORDINALITY
                AS g (position, col, status, reason, message, attempts, http_status, input, output,
                    finished_at, checksum, payload, place)
            ORDER BY g.position, g.col, g.place ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> cardinality(c_position) THEN
            PERFORM FROM unnest(c_position, c_col, c_status, c_payload) AS g (position, col, status, payload)
                LEFT JOIN LATERAL (SELECT status, payload FROM cell AS stored
                    WHERE stored.run = p_run AND stored.position = g.position AND stored.col = g.col LIMIT 1)
                    AS had ON true
                WHERE had.status IS DISTINCT FROM g.status OR had.payload IS DISTINCT FROM g.payload;
            IF FOUND THEN
                RAISE EXCEPTION 'other outcomes' USING ERRCODE = 'HG001';
            END IF;
        END IF;
        PERFORM FROM held WHERE run = p_run LIMIT 1;
        IF FOUND THEN
            u_position := c_position || u_position;
            u_col := c_col || u_col;
        END IF;
    END IF;
    FOR i IN 1 .. cardinality(u_position) LOOP
        DELETE FROM held WHERE run = p_run AND position = u_position[i] AND col = u_col[i];
    END LOOP;
    IF cardinality(h_position) > 0 THEN
        -- A cell that is terminal is not held any more, however late somebody says so.
        INSERT INTO held
            SELECT p_run, g.position, g.col, g.reason, g.not_before, g.attempts, g.history
            FROM unnest(h_position, h_col, h_reason, h_not_before, h_attempts, h_history)
                AS g (position, col, reason, not_before, attempts, history)
            WHERE (SELECT true FROM cell AS had
                WHERE had.run = p_run AND had.position = g.position AND had.col = g.col LIMIT 1) IS NULL
            ORDER BY g.position, g.col
            ON CONFLICT (run, position, col) DO UPDATE SET reason = excluded.reason,
                not_before = excluded.not_before, attempts = excluded.attempts, history = excluded.history;
    END IF;
    IF cardinality(s_position) > 0 THEN
        INSERT INTO spent
            SELECT p_run, g.position, g.col, p_epoch, g.attempt, g.reason, g.input, g.output
            FROM unnest(s_position, s_col, s_attempt, s_reason, s_input, s_output) WITH ORDINALITY
                AS g (position, col, attempt, reason, input, output, place)
            ORDER BY g.position, g.col, g.attempt, g.place ON CONFLICT DO NOTHING;
    END IF;
    IF l_data IS NOT NULL THEN
        INSERT INTO learned VALUES (p_run, p_epoch, nextval('learned_order'), l_checksum, l_data)
            ON CONFLICT (run) DO UPDATE SET epoch = excluded.epoch, place = excluded.place,
                checksum = excluded.checksum, data = excluded.data;
    END IF;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'HG001' THEN
    RETURN false;
END
$headgate$"""

_FINISH: Final = """CREATE OR REPLACE FUNCTION finish_run(
    p_run bigint, p_epoch integer, p_sequence bigint, p_status text, p_now double precision
) RETURNS boolean LANGUAGE plpgsql AS $headgate$
-- Returns false if the opening was fenced out. A shared run ends when all its groups are complete, and with failures
-- if a cell of anybody failed, also of one who did not live to say so; until then nothing changes.
DECLARE
    entered text;
    together boolean;
    named text[];
BEGIN
    -- The run before the opening, as open_run locks them.
    PERFORM FROM run WHERE id = p_run FOR UPDATE;
    entered := enter(p_run, p_epoch, p_sequence);
    IF entered <> 'go' THEN
        RETURN entered <> 'fenced';
    END IF;
    SELECT shared, columns INTO together, named FROM opening WHERE run = p_run AND epoch = p_epoch;
    IF together AND EXISTS (SELECT FROM row_group WHERE run = p_run AND open) THEN
        RETURN true;
    END IF;
    IF together AND p_status = 'completed' AND EXISTS (
        SELECT FROM cell WHERE run = p_run AND status = 'failed'
            AND col IN (SELECT number FROM run_column WHERE run = p_run AND name = ANY (named))
    ) THEN
        p_status := 'completed_with_failures';
    END IF;
    UPDATE run SET status = p_status, finished_at = p_now WHERE id = p_run;
    RETURN true;
END
$headgate$"""

_DROP_RUN: Final = """CREATE OR REPLACE FUNCTION drop_run(
    p_before double precision, p_statuses text[], p_spare text[] DEFAULT '{}')
RETURNS text LANGUAGE plpgsql AS $headgate$
-- Drops one run that has ended and returns its name, or null if there is none. Its records become trash.
DECLARE
    old bigint;
    fresh bigint := nextval(pg_get_serial_sequence('run', 'id'));
    dropped text;
BEGIN
    SELECT id INTO old FROM run
        WHERE NOT swept AND status = ANY (p_statuses) AND finished_at <= p_before AND name <> ALL (p_spare)
        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- Commits under way end first, later ones find their opening gone.
    DELETE FROM opening WHERE run = old;
    DELETE FROM run_column WHERE run = old;
    DELETE FROM generation WHERE run = old;
    UPDATE learned SET run = fresh WHERE run = old;
    INSERT INTO trash VALUES (old);
    UPDATE run SET id = fresh, swept = true, epoch = epoch + 1, group_rows = NULL, known_rows = 0
        WHERE id = old RETURNING name INTO dropped;
    RETURN dropped;
END
$headgate$"""

_EMPTY_TRASH: Final = """CREATE OR REPLACE FUNCTION empty_trash(p_most integer)
RETURNS boolean LANGUAGE plpgsql AS $headgate$
-- Deletes some records of a dropped run. Whether there may be more; what another sweep is busy with is left to it.
DECLARE
    old bigint;
    deleted bigint;
BEGIN
    SELECT run INTO old FROM trash ORDER BY run LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM cell WHERE ctid = ANY (ARRAY(SELECT ctid FROM cell WHERE run = old LIMIT p_most));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted = 0 THEN
        DELETE FROM spent WHERE ctid = ANY (ARRAY(SELECT ctid FROM spent WHERE run = old LIMIT p_most));
        GET DIAGNOSTICS deleted = ROW_COUNT;
    END IF;
    IF deleted = 0 THEN
        DELETE FROM input_row WHERE ctid = ANY (ARRAY(SELECT ctid FROM input_row WHERE run = old LIMIT p_most));
        GET DIAGNOSTICS deleted = ROW_COUNT;
    END IF;
    IF deleted = 0 THEN
        DELETE FROM held WHERE run = old;
        DELETE FROM row_group WHERE run = old;
        DELETE FROM trash WHERE run = old;
    END IF;
    RETURN true;
END
$headgate$"""

FUNCTIONS: Final = (_ENTER, _RENEW_COLUMN, _OPEN_RUN, _COMMIT, _FINISH, _DROP_RUN, _EMPTY_TRASH)
"""The functions of this version; bringing a store up to date replaces those of the earlier one."""
