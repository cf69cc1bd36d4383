-- A database as schema version 1 left it, with a claim in each state. Never edited.
CREATE SCHEMA farewall;
CREATE TABLE farewall.schema_version (version bigint NOT NULL);
INSERT INTO farewall.schema_version VALUES (1);
CREATE TABLE farewall.wall (
    id          bigint      PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL
);
CREATE TABLE farewall.claim (
    id             bigint         GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment        bytea          NOT NULL CHECK (octet_length(payment) = 32),
    fingerprint    bytea          NOT NULL CHECK (octet_length(fingerprint) = 32),
    state          text           NOT NULL CHECK (state IN (
        'claimed', 'settling', 'settled', 'delivered', 'released', 'refused', 'expired')),
    rule           text           NOT NULL,
    accept         text           NOT NULL,
    scheme         text           NOT NULL,
    network        text           NOT NULL,
    asset          text           NOT NULL,
    amount         numeric(39, 0) NOT NULL CHECK (amount >= 0),
    payer          text           NOT NULL,
    pay_to         text           NOT NULL,
    nonce          text           NOT NULL,
    valid_before   bigint         NOT NULL CHECK (valid_before >= 0),
    request        text           NOT NULL,
    settle_request text           NOT NULL,
    claimed_at     bigint         NOT NULL CHECK (claimed_at >= 0),
    changed_at     bigint         NOT NULL CHECK (changed_at >= 0),
    facilitator    text,
    transaction_id text,
    receipt        text,
    reason         text,
    body           bytea          CHECK (octet_length(body) = 32),
    wall           bigint,
    attempt        bigint         NOT NULL,
    CHECK (facilitator IS NOT NULL OR state IN ('claimed', 'released')),
    CHECK (transaction_id IS NOT NULL OR state NOT IN ('settled', 'delivered')),
    CHECK (receipt IS NOT NULL OR state NOT IN ('settled', 'delivered', 'refused')),
    CHECK (wall IS NOT NULL OR state NOT IN ('claimed', 'settling'))
);
CREATE UNIQUE INDEX claim_holds_payment ON farewall.claim (payment)
    WHERE state IN ('claimed', 'settling', 'settled', 'delivered');
CREATE INDEX claim_by_payment ON farewall.claim (payment, id);
CREATE INDEX claim_by_time ON farewall.claim (claimed_at, id);
CREATE INDEX claim_by_state ON farewall.claim (state, claimed_at, id);
CREATE INDEX claim_in_hand ON farewall.claim (wall) WHERE wall IS NOT NULL;
CREATE TABLE farewall.note (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    claim bigint NOT NULL REFERENCES farewall.claim (id),
    at    bigint NOT NULL CHECK (at >= 0),
    kind  text   NOT NULL CHECK (kind IN ('refunded', 'forgiven')),
    text  text   NOT NULL CHECK (length(text) BETWEEN 1 AND 1000)
);
CREATE INDEX note_by_claim ON farewall.note (claim, id);
CREATE UNLOGGED TABLE farewall.kept (
    payment     bytea       NOT NULL,
    fingerprint bytea       NOT NULL,
    response    bytea       NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (payment, fingerprint)
);
CREATE INDEX kept_by_end ON farewall.kept (expires_at);
CREATE FUNCTION farewall.notes_stay() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'notes are not changed or deleted'; END $$;
CREATE TRIGGER note_stays BEFORE UPDATE OR DELETE ON farewall.note
    FOR EACH ROW EXECUTE FUNCTION farewall.notes_stay();
INSERT INTO farewall.claim (payment, fingerprint, state, rule, accept, scheme, network, asset, amount,
    payer, pay_to, nonce, valid_before, request, settle_request, claimed_at, changed_at, facilitator,
    transaction_id, receipt, reason, wall, attempt)
SELECT decode(repeat(lpad(to_hex(n), 2, '0'), 32), 'hex'), decode(repeat('09', 32), 'hex'), state,
    'weather', 'usdc', 'exact', 'eip155:84532', '0x036CbD53842c5426634e7929541eC2318f3dCF7e', 1000,
    '0x857b06519E91e3A54538791bDbb0E22373e36b66', '0x209693Bc6afc0C5328bA36FaF03C514EF312287C',
    'eip3009:0x01', 1793491500, 'GET api.example.com/v1', '{"x402Version":2}', 1793491200, 1793491201,
    'f', '0xabc', '{}', 'outcome_unknown', CASE WHEN n < 3 THEN 7 END, n
FROM unnest(ARRAY['claimed', 'settling', 'settled', 'delivered', 'released', 'refused', 'expired'])
    WITH ORDINALITY AS states (state, n);
