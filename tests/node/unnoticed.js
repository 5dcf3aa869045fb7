// What node-postgres sees of the connection's own state: what it asked for at startup, errors that refuse or end it, the names of
// statements. Prints what it saw.
//
// Usage: unnoticed.js PORT startup|terminated|pid|names|notices
//        unnoticed.js PORT login USER PASSWORD DATABASE
'use strict';

const { Client } = require('pg');

const PORT = Number(process.argv[2]);
const NAMES = ['search_path', 'statement_timeout', 'lock_timeout', 'application_name', 'client_encoding', 'work_mem'];

async function connect(options, prepare = () => {}) {
  const client = new Client({ host: '127.0.0.1', port: PORT, user: 'app', database: 'app', ...options });
  prepare(client);
  await client.connect();
  // What ends a connection comes as an event, too.
  client.on('error', () => {});
  return client;
}

const value = async (client, text, values) => (await client.query({ text, values, rowMode: 'array' })).rows[0][0];
const outcome = (promise) => promise.then(() => 'no error', (error) => error.code);

async function shown(client) {
  const values = [];
  for (const name of NAMES) values.push(`${name}=${await value(client, `show ${name}`)}`);
  return values.join(' ');
}

const scenarios = {
  async login() {
    const [user, password, database] = process.argv.slice(4);
    let client;
    console.log(await outcome(connect({ user, password, database }).then((connected) => (client = connected))));
    await client?.end();
  },

  // Connections that ask for different things take turns. The driver puts its timeouts into the startup packet.
  async startup() {
    const clients = [
      await connect(),
      await connect({ statement_timeout: 100, lock_timeout: 1234, application_name: 'asks for much' }),
      await connect({ options: '-c search_path=pg_catalog -c work_mem=5MB', client_encoding: 'latin1' }),
    ];
    for (let round = 0; round < 2; round++) {
      for (const [index, client] of clients.entries()) {
        console.log(index, await shown(client), await outcome(client.query('select pg_sleep(0.25)')));
      }
    }
    for (const client of clients) await client.end();
  },

  async terminated() {
    const [client, other] = [await connect(), await connect()];
    const text = 'select pg_sleep(60) /* terminated */';
    const sleep = outcome(client.query(text));
    const end = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and query = $1";
    while (!(await other.query(end, [text])).rows.length);
    console.log(await sleep);
    await other.end();
  },

  async pid() {
    const client = await connect();
    console.log((await value(client, 'select pg_backend_pid()')) === client.processID);
    await client.end();
  },

  // The name of a statement that could not be prepared is free; SQL knows the names of the others.
  async names() {
    const client = await connect();
    console.log(await outcome(client.query({ name: 'mine', text: 'selec' })));
    console.log(await outcome(client.query({ name: 'mine', text: 'select * from nowhere_yet' })));
    const add = { name: 'mine', text: 'select $1::int + 1 as sum', values: [41] };
    console.log((await client.query(add)).rows);
    console.log((await client.query('execute mine(1)')).rows);
    console.log((await client.query('deallocate mine')).command);
    console.log(await outcome(client.query('deallocate mine')), await outcome(client.query('execute mine(1)')));
    await client.end();
  },

  async notices() {
    const notices = [];
    const client = await connect({}, (unconnected) => unconnected.on('notice', (notice) => notices.push(notice.message)));
    console.log(await value(client, 'select 1'), notices);
    await client.end();
  },
};

scenarios[process.argv[3]]().catch((error) => {
  console.error(error);
  process.exit(1);
});
