// Mixed work through node-postgres from many connections at once: named and unnamed statements, cursors, COPY streams. Prints the
// totals that the tables hold at the end.
//
// Usage: mixed.js PORT. It knows no pooler: run against PostgreSQL itself it must print the same.
'use strict';

const assert = require('node:assert/strict');
const { pipeline } = require('node:stream/promises');
const { Readable } = require('node:stream');
const { Client, Query } = require('pg');
const Cursor = require('pg-cursor');
const copy = require('pg-copy-streams');

const PORT = Number(process.argv[2]);
const SERVER = { host: '127.0.0.1', port: PORT, user: 'app', database: 'app' };
const CONNECTIONS = 50;
const ROUNDS = 3;
// More than the pooler keeps on a server, so that statements are evicted while others use them.
const TEXTS = 60;

const TABLES = `
drop table if exists item, counter;
create table item (owner int, number int, note text, tags int[], data bytea, amount int, primary key (owner, number));
create table counter (id int primary key, value int not null);
insert into counter select id, 0 from generate_series(0, 9) id;
`;
const INSERT = { name: 'insert', text: 'insert into item values ($1, $2, $3, $4, $5, $6) returning amount' };
const COUNT = { name: 'count', text: 'select count(*)::int as count from item where owner = $1 and number between $2 and $3' };
const TOTALS = `select (select count(*) from item), (select sum(amount) from item), (select sum(octet_length(data)) from item),
    (select sum(value) from counter)`;
const UNIQUE = '23505';
const IN_FAILED = '25P02';

async function connect(options) {
  const client = new Client({ ...SERVER, ...options });
  await client.connect();
  return client;
}

const fails = (code, promise) => assert.rejects(promise, (error) => error.code === code || assert.fail(`${error}, not ${code}`));
const rows = async (client, text, values) =>
  (await client.query({ ...(text.text ? text : { text }), values, rowMode: 'array' })).rows;
const row = async (...query) => (await rows(...query))[0];

async function select(client, number, round) {
  for (let turn = 0; turn < 5; turn++) {
    const sum = { name: 'sum', text: 'select $1::int + $2::int, $3::text' };
    assert.deepEqual(await row(client, sum, [number, turn, 'ü'.repeat(round)]), [number + turn, 'ü'.repeat(round)]);
  }
  for (let turn = 0; turn < 12; turn++) {
    const text = (number * 7 + round * 12 + turn) % TEXTS;
    const query = { text: `select $1::int * ${text}, '${text}'`, name: turn % 3 ? `text ${text}` : undefined };
    assert.deepEqual(await row(client, query, [number]), [number * text, String(text)]);
  }
  const values = [[number, null, round], Buffer.alloc(256 * round, number), null, 0.1];
  const typed = 'select $1::int[], $2::bytea, $3::text, $4::float8';
  assert.deepEqual(await row(client, typed, values), values);
  assert.deepEqual((await client.query('select 1 as one; select 2 as two')).map((result) => result.rows), [[{ one: 1 }], [{ two: 2 }]]);
}

async function write(client, number, round) {
  const key = round * 100;
  const own = 'select pg_backend_pid(), pg_current_xact_id()::text';
  await client.query('begin');
  const backend = await row(client, own);
  assert.deepEqual(await row(client, INSERT, [number, key, 'written', [number], Buffer.from([0, 255]), 1]), [1]);
  const update = 'update item set amount = amount + $1 where owner = $2 and number = $3 returning amount';
  assert.deepEqual(await row(client, update, [number, number, key]), [1 + number]);
  assert.deepEqual(await row(client, own), backend);
  await client.query('commit');
  const written = await row(client, 'select note, tags, data from item where owner = $1 and number = $2', [number, key]);
  assert.deepEqual(written, ['written', [number], Buffer.from([0, 255])]);
  assert.equal((await client.query('update counter set value = value + 1 where id = $1', [number % 10])).rowCount, 1);
  await client.query('begin');
  await row(client, INSERT, [number, key + 1, null, null, null, 1000]);
  await client.query('rollback');
  assert.deepEqual(await row(client, COUNT, [number, key + 1, key + 1]), [0]);
}

async function err(client, number, round) {
  const key = round * 100;
  for (const [text, values, code] of [
    ['select 1 / $1::int', [0], '22012'],
    ['selec $1::int', [1], '42601'],
    ['select $1::int from nowhere', [1], '42P01'],
    [INSERT.text, [number, key, null, null, null, 0], UNIQUE],
  ]) {
    await fails(code, client.query(text, values));
    assert.deepEqual(await row(client, 'select $1::int', [number]), [number]);
    await client.query('begin');
    await row(client, INSERT, [number, key + 2, null, null, null, 5000]);
    await fails(code, client.query({ name: `err ${code}`, text, values }));
    await fails(IN_FAILED, row(client, 'select $1::int', [number]));
    await client.query('rollback');
    assert.deepEqual(await row(client, COUNT, [number, key + 2, key + 2]), [0]);
  }
}

async function save(client, number, round) {
  const key = round * 100;
  await client.query('begin');
  await row(client, INSERT, [number, key + 3, null, null, null, 1]);
  await client.query('savepoint here');
  await row(client, INSERT, [number, key + 4, null, null, null, 1000]);
  await fails(UNIQUE, row(client, INSERT, [number, key + 3, null, null, null, 1000]));
  await client.query('rollback to here');
  await row(client, INSERT, [number, key + 5, null, null, null, 1]);
  await client.query('commit');
  assert.deepEqual(await row(client, COUNT, [number, key + 3, key + 5]), [2]);
}

async function copies(client, number, round) {
  const key = round * 100;
  const lines = Array.from({ length: 20 }, (_, value) => `${number}\t${key + 10 + value}\t2\n`);
  const into = () => client.query(copy.from('copy item (owner, number, amount) from stdin'));
  await pipeline(Readable.from(lines), into());
  await fails(UNIQUE, pipeline(Readable.from(lines), into()));
  await fails('22P02', pipeline(Readable.from(['no number\n']), into()));
  const select = `select number from item where owner = ${number} and number between ${key + 10} and ${key + 39} order by 1`;
  let text = '';
  for await (const chunk of client.query(copy.to(`copy (${select}) to stdout`))) text += chunk;
  assert.deepEqual(text.trim().split('\n').map(Number), lines.map((_, value) => key + 10 + value));
  await client.query('begin');
  const cursor = client.query(new Cursor('select value from generate_series($1::int, $2::int) value', [number, number + 99], { rowMode: 'array' }));
  const values = [];
  for (let part = await cursor.read(7); part.length; part = await cursor.read(7)) values.push(...part.flat());
  assert.deepEqual(values, Array.from({ length: 100 }, (_, value) => number + value));
  await cursor.close();
  const half = client.query(new Cursor('select generate_series(1, 1000)'));
  assert.equal((await half.read(10)).length, 10);
  await half.close();
  await client.query('commit');
}

// Sends all its queries without waiting for answers; an error in their midst is that query's alone.
async function pipelined(number) {
  const client = await connect({ pipeline: true });
  for (let round = 1; round <= ROUNDS; round++) {
    const key = round * 100 + 50;
    const divisions = [1, 2, 0, 3].map((divisor) => row(client, { name: 'divide', text: 'select 6 / $1::int' }, [divisor]));
    const texts = Array.from({ length: 30 }, (_, text) => row(client, { name: `text ${text}`, text: `select ${text} + $1::int` }, [number]));
    const failed = ['begin', 'insert', 'selec', 'insert', 'rollback'].map((text) =>
      text === 'insert' ? row(client, INSERT, [number, key, null, null, null, 1000]) : client.query({ name: text, text }));
    const done = ['begin', 'insert', 'commit'].map((text) =>
      text === 'insert' ? row(client, INSERT, [number, key + 1, null, null, null, 1]) : client.query(text));
    await fails('22012', divisions.splice(2, 1)[0]);
    assert.deepEqual(await Promise.all(divisions), [[6], [3], [2]]);
    assert.deepEqual(await Promise.all(texts), texts.map((_, text) => [text + number]));
    await Promise.all([fails('42601', failed.splice(2, 1)[0]), fails(IN_FAILED, failed.splice(2, 1)[0]), ...failed, ...done]);
  }
  await client.end();
}

async function large(client, number) {
  const digit = String(number % 10);
  const all = await rows(client, 'select value, repeat($1::text, 100) from generate_series(1, 30000) value', [digit]);
  assert.equal(all.length, 30000);
  all.forEach((found, index) => assert.ok(found[0] === index + 1 && found[1] === digit.repeat(100)));
}

// Cancels a statement that another connection sees running.
async function cancel(client, number) {
  const text = `select pg_sleep(60) /* of ${number} */`;
  const query = client.query(new Query(text));
  const sleep = fails('57014', new Promise((resolve, reject) => query.on('error', reject).on('end', resolve)));
  const other = await connect();
  const active = "select pid from pg_stat_activity where state = 'active' and query = $1";
  while (!(await row(other, active, [text])));
  new Client(SERVER).cancel(client, query);
  await sleep;
  assert.deepEqual(await row(client, 'select $1::int', [number]), [number]);
  await other.end();
}

async function work(client, number) {
  for (let round = 1; round <= ROUNDS; round++) {
    for (const step of [select, write, err, save, copies]) await step(client, number, round);
  }
  if (number % 5 === 0) await pipelined(number);
  if (number % 10 === 0) await large(client, number);
  if (number % 25 === 0) await cancel(client, number);
  await client.end();
}

async function main() {
  const first = await connect();
  await first.query(TABLES);
  const clients = await Promise.all(Array.from({ length: CONNECTIONS }, () => connect()));
  await Promise.all(clients.map(work));
  console.log((await row(first, TOTALS)).join(' '));
  await first.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
