// Tables change while node-postgres holds prepared statements. Prints, for every use of one, whether it gave the right rows or which
// error.
//
// Usage: altered.js PORT kept|evicted. The scenario is that of `tests/tests/unnoticed/altered.rs`, the same in every language.
'use strict';

const { isDeepStrictEqual } = require('node:util');
const { Client } = require('pg');

const PORT = Number(process.argv[2]);
const VARIANT = process.argv[3];
const CLIENTS = 4;
const SERVERS = 3;
// More than a server keeps.
const FLOOD = 25;

const CREATE = `
drop table if exists changing; drop type if exists mood;
create table changing (id int, value int, note text); insert into changing select n, n, 'note ' || n from generate_series(1, 3) n;
create type mood as enum ('good', 'bad');
`;
const STEPS = {
  nothing: 'select',
  'a column more': 'alter table changing add extra int default 7',
  'other types': 'alter table changing alter value type real, alter id type bigint',
  'a column less': 'alter table changing drop note',
  'another table': 'drop table changing; create table changing (value int, id int); insert into changing values (2, 7)',
  'the type anew': "drop type mood; create type mood as enum ('bad', 'good')",
};
const QUERIES = {
  all: { text: 'select * from changing order by id', values: [] },
  one: { text: 'select * from changing where value = $1', values: [2] },
  parameter: { text: "select 'found' as found from changing where id = $1", values: [2] },
  mood: { text: 'select $1::mood as mood', values: ['good'] },
};

async function connect() {
  const client = new Client({ host: '127.0.0.1', port: PORT, user: 'app', database: 'app' });
  await client.connect();
  return client;
}

const connectAll = (count) => Promise.all(Array.from({ length: count }, () => connect()));

async function use(control, client, label, name, query) {
  // The rows as a statement gives them that nobody has prepared before.
  const expected = (await control.query(query)).rows;
  let outcome;
  try {
    const found = (await client.query({ ...query, name })).rows;
    outcome = isDeepStrictEqual(found, expected) ? 'right' : `WRONG ${JSON.stringify(found)} for ${JSON.stringify(expected)}`;
  } catch (error) {
    outcome = error.code ?? `WRONG ${error}`;
  }
  console.log(`${label}: ${outcome}`);
}

// Turns in which more and more of the servers are held, so that what is done in them is done on each.
async function* held(clients) {
  for (let holders = 0; holders < SERVERS; holders++) {
    for (const client of clients.slice(0, holders)) await client.query('begin');
    yield holders;
    for (const client of clients.slice(0, holders)) await client.query('commit');
  }
}

async function main() {
  const [control, other] = await connectAll(2);
  await control.query(CREATE);
  const clients = await connectAll(CLIENTS);
  const holders = await connectAll(SERVERS);
  const last = clients.at(-1);
  for (const [step, sql] of Object.entries(STEPS)) {
    await control.query(sql);
    if (VARIANT === 'evicted') {
      for await (const _ of held(holders)) {
        for (let text = 0; text < FLOOD; text++) await other.query({ name: `text ${text}`, text: `select ${text}` });
      }
    }
    for (const [name, query] of Object.entries(QUERIES)) {
      // The last client meets the change in a transaction.
      for (let turn = 0; turn < 2; turn++) {
        await last.query('begin');
        await use(control, last, `${step}, ${name}, transaction ${turn}`, name, query);
        await last.query('rollback');
      }
      const late = await connect();
      for (let turn = 0; turn < 2; turn++) await use(control, late, `${step}, ${name}, late client, use ${turn}`, name, query);
      await late.end();
      // The comparison needs a server, too.
      for await (const busy of held(holders.slice(1))) {
        for (const [index, client] of clients.entries()) {
          for (let turn = 0; turn < 2; turn++) {
            await use(control, client, `${step}, ${name}, client ${index}, ${busy} busy, use ${turn}`, name, query);
          }
        }
      }
    }
  }
  await Promise.all([control, other, ...clients, ...holders].map((client) => client.end()));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
