// oidc-provider's adapter (its documentation, "Persistence") on Postgres, written to be fast: a table
// for each kind of thing with only the indexes that its look-ups need, prepared statements, one
// statement a call.

/** What is looked up besides by id, for each model that is stored. */
const MODELS = {
  Session: ['uid'],
  Interaction: [],
  AccessToken: ['grantId'],
  AuthorizationCode: ['grantId'],
  RefreshToken: ['grantId'],
  Grant: [],
};

const COLUMN = { grantId: 'grant_id', uid: 'uid' };

const table = (model) => `oidc_${model.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase()}`;

export async function createTables(pool) {
  for (const [model, keys] of Object.entries(MODELS)) {
    const name = table(model);
    const columns = keys.map((key) => `${COLUMN[key]} text,`).join(' ');
    await pool.query(`create table ${name} (
      id text primary key,
      ${columns}
      payload jsonb not null,
      consumed_at timestamptz,
      expires_at timestamptz
    )`);
    for (const key of keys) await pool.query(`create index on ${name} (${COLUMN[key]})`);
  }
}

/** The `adapter` of a provider's configuration. */
export const adapterOn = (pool) => (model) => {
  const keys = MODELS[model];
  if (!keys) throw new Error(`${model} is not stored here`);
  const name = table(model);
  const run = (verb, text, values) => pool.query({ name: `${verb}_${name}`, text, values });

  const columns = ['id', 'payload', 'expires_at', ...keys.map((key) => COLUMN[key])];
  const places = ['$1', '$2', "now() + $3 * interval '1 second'", ...keys.map((_, index) => `$${index + 4}`)];
  const changes = columns.slice(1).map((column) => `${column} = excluded.${column}`);
  const upsert = `insert into ${name} (${columns}) values (${places})
    on conflict (id) do update set ${changes}`;
  const select = (key) =>
    `select payload, floor(extract(epoch from consumed_at))::float8 as consumed from ${name} where ${key} = $1`;
  const found = ({ rows: [row] }) => {
    if (!row) return undefined;
    if (row.consumed !== null) row.payload.consumed = row.consumed;
    return row.payload;
  };

  return {
    async upsert(id, payload, expiresIn) {
      const values = keys.map((key) => payload[key]);
      await run('upsert', upsert, [id, JSON.stringify(payload), expiresIn, ...values]);
    },
    async find(id) {
      return found(await run('find', select('id'), [id]));
    },
    async findByUid(uid) {
      return found(await run('find_by_uid', select('uid'), [uid]));
    },
    async findByUserCode() {
      throw new Error('the device flow is off');
    },
    async consume(id) {
      await run('consume', `update ${name} set consumed_at = now() where id = $1`, [id]);
    },
    async destroy(id) {
      await run('destroy', `delete from ${name} where id = $1`, [id]);
    },
    async revokeByGrantId(grantId) {
      await run('revoke', `delete from ${name} where grant_id = $1`, [grantId]);
    },
  };
};
