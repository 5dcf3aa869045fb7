// Logs in by node-postgres and asks a little. For each user prints who it was, and whether inside TLS; or the SQLSTATE with which it was
// refused.
//
// Usage: login.js PORT USER:PASSWORD[,...] disable|require|verify-full [CA [CERTIFICATE KEY]]
'use strict';

const { readFileSync } = require('node:fs');
const { Client } = require('pg');

const [port, logins, mode, ca, certificate, key] = process.argv.slice(2);
const read = (path) => (path ? readFileSync(path, 'utf8') : undefined);
const ssl = { ca: read(ca), cert: read(certificate), key: read(key), rejectUnauthorized: mode === 'verify-full' };

async function logIn(user, password) {
  const client = new Client({ host: 'localhost', port: Number(port), user, password, database: 'app', ssl: mode === 'disable' ? false : ssl });
  try {
    await client.connect();
  } catch (error) {
    return `refused ${error.code}`;
  }
  const { rows } = await client.query('select current_user as name, $1::int as number', [7]);
  const long = await client.query("select repeat('x', 300000) as text");
  if (rows[0].number !== 7 || long.rows[0].text.length !== 300000) throw new Error('wrong rows');
  const inside = client.connection.stream.encrypted ? 'tls' : 'clear';
  await client.end();
  return `${rows[0].name} ${inside}`;
}

async function main() {
  for (const pair of logins.split(',')) console.log(await logIn(...pair.split(':')));
}

main();
