-- The state of a Blockseal home, schema version 1. Times are microseconds since 1970 on the home's movable clock.

-- Settings of the home: clock_offset_seconds, home_id, root_key_fingerprint, ...
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Lineages (module ec2): what shares one data key. A row is made with the first volume that has the key and removed with
-- the last.
CREATE TABLE lineages (
    id           TEXT PRIMARY KEY,
    manifest_key BLOB NOT NULL    -- HKDF-SHA256 of the data key, sealed under the root key for this id
) STRICT, WITHOUT ROWID;

-- Faults to order (module gate): operation as `kms.Decrypt`, at most one fault of a kind for each.
CREATE TABLE faults (
    operation TEXT NOT NULL,
    kind      TEXT NOT NULL,
    fault     TEXT NOT NULL,
    PRIMARY KEY (operation, kind)
) STRICT, WITHOUT ROWID;

-- EBS volumes (module ec2). A row is written before the volume's file is made and removed after the file is gone.
CREATE TABLE volumes (
    id          TEXT PRIMARY KEY,
    account     TEXT NOT NULL,
    region      TEXT NOT NULL,
    zone        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('creating', 'available', 'in-use', 'deleting')),
    size_gib    INTEGER NOT NULL,
    volume_type TEXT NOT NULL,
    iops        INTEGER,
    throughput  INTEGER,
    kms_key_arn TEXT,             -- NULL: not encrypted
    sector_size INTEGER,          -- NULL: not encrypted
    lineage     TEXT REFERENCES lineages (id), -- NULL: not encrypted, or its data key is still being made
    db_id       TEXT,             -- the owner's DbiResourceId, part of the encryption context
    created_at  INTEGER NOT NULL,
    CHECK ((kms_key_arn IS NULL) = (sector_size IS NULL)),
    CHECK (kms_key_arn IS NOT NULL OR lineage IS NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX volumes_of_lineage ON volumes (lineage);
CREATE INDEX volumes_of_account ON volumes (account, region, created_at, id);

CREATE TABLE volume_tags (
    volume_id TEXT NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    key       TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (volume_id, key)
) STRICT, WITHOUT ROWID;

-- At most one attachment a volume. Whether it still stands is derived from the lock on the volume's file.
CREATE TABLE volume_attachments (
    volume_id   TEXT PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE,
    instance_id TEXT NOT NULL,
    device      TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('attaching', 'attached', 'detaching', 'busy')),
    attached_at INTEGER NOT NULL,
    grant_name  TEXT NOT NULL,    -- chosen before the grant is made, so that a crash in between leaves none behind
    grant_id    TEXT,             -- NULL: not made yet, or the volume is not encrypted
    exporter    INTEGER,          -- process id of the exporter, for messages only
    delete_on_termination INTEGER NOT NULL DEFAULT 0,
    UNIQUE (instance_id, device)
) STRICT, WITHOUT ROWID;

-- Launched instances (module ec2). One that is pending or shutting down and has nothing due belongs to a process that is at
-- it, or to one that was killed.
CREATE TABLE instances (
    id                TEXT PRIMARY KEY,
    account           TEXT NOT NULL,
    region            TEXT NOT NULL,
    zone              TEXT NOT NULL,
    reservation       TEXT NOT NULL,
    launch_index      INTEGER NOT NULL,
    image_id          TEXT NOT NULL,
    instance_type     TEXT NOT NULL,
    key_name          TEXT,
    ebs_optimized     INTEGER NOT NULL,
    client_token      TEXT NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('pending', 'running', 'shutting-down', 'terminated')),
    reason_code       TEXT,           -- why it ends or ended; of a pending one: why it will
    reason_message    TEXT,
    transition_reason TEXT NOT NULL,
    launched          INTEGER NOT NULL,
    due               INTEGER         -- when its next state is due
) STRICT, WITHOUT ROWID;
CREATE INDEX instances_of_account ON instances (account, region, launched, id);
CREATE INDEX instances_by_due ON instances (due) WHERE due IS NOT NULL;
CREATE INDEX instances_in_passing ON instances (id) WHERE due IS NULL AND state IN ('pending', 'shutting-down');

CREATE TABLE instance_tags (
    instance_id TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    key         TEXT NOT NULL,
    value       TEXT NOT NULL,
    PRIMARY KEY (instance_id, key)
) STRICT, WITHOUT ROWID;

-- Client tokens of EC2 calls: the same token and parameters again answer with the same resource.
CREATE TABLE ec2_client_tokens (
    account   TEXT NOT NULL,
    region    TEXT NOT NULL,
    operation TEXT NOT NULL,
    token     TEXT NOT NULL,
    request   TEXT NOT NULL,      -- the parameters as JSON
    resource  TEXT NOT NULL,
    PRIMARY KEY (account, region, operation, token)
) STRICT, WITHOUT ROWID;

-- Modifications of volumes. One that is modifying and has nothing due is being made, or was when its process was killed: the
-- volume's row has the old size, its file may have either.
CREATE TABLE volume_modifications (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    volume_id       TEXT NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    state           TEXT NOT NULL CHECK (state IN ('modifying', 'optimizing', 'completed')),
    from_size       INTEGER NOT NULL,
    from_type       TEXT NOT NULL,
    from_iops       INTEGER,
    from_throughput INTEGER,
    to_size         INTEGER NOT NULL,
    to_type         TEXT NOT NULL,
    to_iops         INTEGER,
    to_throughput   INTEGER,
    started         INTEGER NOT NULL,
    due             INTEGER,          -- when it is completed; NULL while it is being made, and after its end
    ended           INTEGER,
    request_id      TEXT NOT NULL
) STRICT;
CREATE INDEX volume_modifications_of ON volume_modifications (volume_id, seq);
CREATE INDEX volume_modifications_by_due ON volume_modifications (due) WHERE due IS NOT NULL;
CREATE INDEX volume_modifications_begun ON volume_modifications (volume_id) WHERE state = 'modifying';

-- What an account has set for new volumes in a Region; one without a row has set nothing.
CREATE TABLE ebs_encryption (
    account    TEXT NOT NULL,
    region     TEXT NOT NULL,
    by_default INTEGER NOT NULL,
    key        TEXT,                  -- NULL: alias/aws/ebs
    PRIMARY KEY (account, region)
) STRICT, WITHOUT ROWID;

-- EBS volume notifications as EventBridge gets them; those of the last seven days.
CREATE TABLE ebs_events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    region  TEXT NOT NULL,
    time    INTEGER NOT NULL,
    event   TEXT NOT NULL             -- JSON
) STRICT;
CREATE INDEX ebs_events_by_time ON ebs_events (time);

-- What was found out of order and repaired, told to the next command's user once.
CREATE TABLE notices (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    text   TEXT NOT NULL,
    told   INTEGER NOT NULL DEFAULT 0
) STRICT;
-- CloudTrail (module `trail`). One trail per account and Region.
CREATE TABLE trails (
    trail   INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region  TEXT NOT NULL,
    UNIQUE (account, region)
) STRICT;

-- One row per record, in the order in which they were committed. `record` is the JSON as CloudTrail writes it, `facets`
-- the numbers of what LookupEvents says beside it, eight bytes each.
CREATE TABLE trail_records (
    seq    INTEGER PRIMARY KEY,
    trail  INTEGER NOT NULL,
    time   INTEGER NOT NULL,
    record TEXT NOT NULL,
    facets BLOB NOT NULL
) STRICT;

-- What records have in common (`trail::facets`): a facet's number is a hash of its trail, kind and value, so that a record
-- is indexed without asking for it. Rows are appended, never changed.
CREATE TABLE trail_facets (
    facet INTEGER PRIMARY KEY,
    value TEXT NOT NULL           -- JSON
) STRICT;

-- Which facets have a value of an attribute that LookupEvents takes (numbers in `trail::lookup`).
CREATE TABLE trail_names (
    trail     INTEGER NOT NULL,
    attribute INTEGER NOT NULL,
    value     TEXT NOT NULL,
    facet     INTEGER NOT NULL,
    PRIMARY KEY (trail, attribute, value, facet)
) STRICT, WITHOUT ROWID;

-- Which records have a facet; under the trail's own number, all of them. Rows go to the end of their facet's, so that an
-- insertion touches the same few pages however long the trail is.
CREATE TABLE trail_index (
    facet INTEGER NOT NULL,
    time  INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (facet, time, seq)
) STRICT, WITHOUT ROWID;

-- The log files that were delivered below `trail/`, each whole before its row is. Settings beside them:
-- trail_delivered_seq (the last record that is in a file), trail_digested_until, trail_public_key, trail_signing_key.
CREATE TABLE trail_files (
    file        INTEGER PRIMARY KEY,
    trail       INTEGER NOT NULL,
    object      TEXT NOT NULL UNIQUE, -- its path below trail/
    delivered   INTEGER NOT NULL,
    first_seq   INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    oldest      INTEGER NOT NULL,
    newest      INTEGER NOT NULL,
    hash        TEXT NOT NULL,        -- SHA-256 of the JSON
    stored_hash TEXT NOT NULL,        -- SHA-256 of the file
    digest      INTEGER               -- NULL: none covers it yet
) STRICT;
CREATE INDEX trail_files_uncovered ON trail_files (delivered) WHERE digest IS NULL;

-- The digest files, a chain per trail. What the last one's hash is, only the store and whoever noted it know.
CREATE TABLE trail_digests (
    digest    INTEGER PRIMARY KEY,
    trail     INTEGER NOT NULL,
    object    TEXT NOT NULL UNIQUE,
    ended     INTEGER NOT NULL,
    hash      TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;
CREATE INDEX trail_digests_of_trail ON trail_digests (trail, digest);

-- KMS (module `kms`). `key_id` names the row: it is the key's id, behind which a replica of a multi-Region key has its
-- Region (`mrk-.../eu-west-1`), as related keys share their id. A key whose deletion is due is removed here; the rows of
-- its materials stay behind, zeroed.
CREATE TABLE kms_keys (
    key_id        TEXT PRIMARY KEY,
    account       TEXT NOT NULL,
    region        TEXT NOT NULL,
    manager       TEXT NOT NULL CHECK (manager IN ('CUSTOMER', 'AWS')),
    only_via      TEXT,               -- the one service that may use an AWS managed key
    description   TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('Enabled', 'Disabled', 'PendingDeletion', 'PendingReplicaDeletion',
                                                 'PendingImport', 'Unavailable', 'Creating', 'Updating')),
    created       INTEGER NOT NULL,
    deletion      INTEGER,            -- when a scheduled deletion is due
    window_days   INTEGER,            -- the waiting period that begins when the last replica is gone
    origin        TEXT NOT NULL CHECK (origin IN ('AWS_KMS', 'EXTERNAL')),
    multi_region  TEXT CHECK (multi_region IN ('PRIMARY', 'REPLICA')),
    material_id   TEXT,               -- the material that encrypts now; NULL until the first import
    rotation_days INTEGER,            -- NULL: no automatic rotation
    next_rotation INTEGER,
    CHECK ((state = 'PendingDeletion') = (deletion IS NOT NULL)),
    CHECK ((state = 'PendingReplicaDeletion') = (window_days IS NOT NULL)),
    CHECK ((rotation_days IS NULL) = (next_rotation IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX kms_keys_by_account ON kms_keys (account, region, key_id);
CREATE INDEX kms_keys_by_deletion ON kms_keys (deletion) WHERE deletion IS NOT NULL;
CREATE INDEX kms_keys_by_rotation ON kms_keys (next_rotation) WHERE next_rotation IS NOT NULL AND state = 'Enabled';

-- Backing keys, sealed under the root key. Rows are appended and overwritten in place with as many bytes: zeros when the
-- material is destroyed, the material when it is imported again. They are never removed and never change their length:
-- so no page is ever rebuilt around them and no copy of a sealed key is left in a page's gap.
CREATE TABLE kms_materials (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    material_id TEXT NOT NULL,
    key_id      TEXT NOT NULL,
    sealed      BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX kms_materials_by_key ON kms_materials (key_id, material_id);

-- What is known of a key's materials, apart from them for the reason given there.
CREATE TABLE kms_material_states (
    key_id        TEXT NOT NULL REFERENCES kms_keys ON DELETE CASCADE,
    seq           INTEGER NOT NULL,   -- of the row in kms_materials
    material_id   TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('CURRENT', 'NON_CURRENT', 'PENDING_ROTATION')),
    present       INTEGER NOT NULL,   -- 0: deleted or expired, and zeroed
    rotated       INTEGER,            -- when it took over; NULL for a key's first and for one that waits
    rotation_type TEXT CHECK (rotation_type IN ('AUTOMATIC', 'ON_DEMAND')),
    expires       INTEGER,            -- of imported material; NULL: never
    description   TEXT,               -- of imported material
    PRIMARY KEY (key_id, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX kms_material_states_by_expiry ON kms_material_states (expires) WHERE expires IS NOT NULL AND present;

-- `target` is absent for a predefined alias (alias/aws/...) whose AWS managed key was not needed yet.
CREATE TABLE kms_aliases (
    account TEXT NOT NULL,
    region  TEXT NOT NULL,
    name    TEXT NOT NULL,
    target  TEXT NOT NULL REFERENCES kms_keys ON DELETE CASCADE,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (account, region, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX kms_aliases_by_target ON kms_aliases (target);

CREATE TABLE kms_tags (
    key_id TEXT NOT NULL REFERENCES kms_keys ON DELETE CASCADE,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (key_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE kms_grants (
    grant_id   TEXT PRIMARY KEY,
    key_id     TEXT NOT NULL REFERENCES kms_keys ON DELETE CASCADE,
    name       TEXT,
    grantee    TEXT NOT NULL,
    retiring   TEXT,
    issuer     TEXT NOT NULL,         -- ARN of the issuing account's root
    operations TEXT NOT NULL,         -- JSON array
    constraints TEXT,                 -- JSON object as in the API
    created    INTEGER NOT NULL,
    effective  INTEGER NOT NULL,      -- from when on it is known everywhere; before, its token is needed
    holder     TEXT NOT NULL,         -- the grantee, a role without its path, which its sessions' ARNs do not have
    pin        INTEGER NOT NULL       -- hash of a pair that a context must have for it; 0: none
) STRICT, WITHOUT ROWID;
CREATE INDEX kms_grants_by_holder ON kms_grants (key_id, holder, pin);
CREATE INDEX kms_grants_by_key ON kms_grants (key_id, grant_id);
CREATE INDEX kms_grants_by_retiring ON kms_grants (retiring, grant_id) WHERE retiring IS NOT NULL;

-- The policy of a key for which one was put; a key without a row has the default policy of its kind.
CREATE TABLE kms_key_policies (
    key_id TEXT PRIMARY KEY REFERENCES kms_keys ON DELETE CASCADE,
    policy TEXT NOT NULL             -- the JSON as it was given
) STRICT, WITHOUT ROWID;

-- IAM (module `iam`): users and roles that have identity policies. Whoever is not here is an administrator of its account.
CREATE TABLE iam_entities (
    entity  INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN ('user', 'role')),
    name    TEXT NOT NULL COLLATE NOCASE,
    path    TEXT NOT NULL,
    id      TEXT NOT NULL,           -- AIDA... or AROA...
    created INTEGER NOT NULL,
    trust   TEXT,                    -- a role's trust policy
    description TEXT,
    max_session INTEGER NOT NULL DEFAULT 3600, -- a role's longest session in seconds
    UNIQUE (account, kind, name)
) STRICT;

CREATE TABLE iam_policies (
    entity   INTEGER NOT NULL REFERENCES iam_entities ON DELETE CASCADE,
    name     TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (entity, name)
) STRICT, WITHOUT ROWID;

-- Managed policies of accounts. AWS's own are not here (`iam::directory`).
CREATE TABLE iam_managed_policies (
    arn         TEXT PRIMARY KEY,
    account     TEXT NOT NULL,
    name        TEXT NOT NULL COLLATE NOCASE,
    path        TEXT NOT NULL,
    description TEXT,
    document    TEXT NOT NULL,
    created     INTEGER NOT NULL,
    UNIQUE (account, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE iam_attached (
    entity INTEGER NOT NULL REFERENCES iam_entities ON DELETE CASCADE,
    policy TEXT NOT NULL,            -- the ARN of a managed policy
    PRIMARY KEY (entity, policy)
) STRICT, WITHOUT ROWID;
CREATE INDEX iam_attached_by_policy ON iam_attached (policy);

CREATE TABLE iam_tags (
    entity INTEGER NOT NULL REFERENCES iam_entities ON DELETE CASCADE,
    name   TEXT NOT NULL COLLATE NOCASE,
    value  TEXT NOT NULL,
    PRIMARY KEY (entity, name)
) STRICT, WITHOUT ROWID;

-- Access keys of users and of accounts' roots. The secret is sealed under the root key for the key's id.
CREATE TABLE iam_access_keys (
    id      TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    entity  INTEGER REFERENCES iam_entities ON DELETE CASCADE, -- NULL: the account's root
    status  TEXT NOT NULL CHECK (status IN ('Active', 'Inactive')),
    created INTEGER NOT NULL,
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX iam_access_keys_of ON iam_access_keys (account, entity);

-- Sessions of roles with their temporary credentials. A session token rests only as its SHA-256.
CREATE TABLE sts_sessions (
    id         TEXT PRIMARY KEY,    -- the access key id, ASIA...
    entity     INTEGER NOT NULL REFERENCES iam_entities ON DELETE CASCADE,
    session    TEXT NOT NULL,
    issued     INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    token_hash BLOB NOT NULL,
    sealed     BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sts_sessions_of ON sts_sessions (entity);
CREATE INDEX sts_sessions_by_end ON sts_sessions (expires);

-- What the home says of an account. One that is not here is in no organisation.
CREATE TABLE iam_accounts (
    account      TEXT PRIMARY KEY,
    organization TEXT NOT NULL
) STRICT, WITHOUT ROWID;
