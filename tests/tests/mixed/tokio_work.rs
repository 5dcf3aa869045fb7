//! Mixed work through tokio-postgres: prepared statements that live on, pipelines, portals, COPY, cancel.

use futures_util::future::{join, join_all, try_join_all};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Error, NoTls, Statement};

const CONNECTIONS: i32 = 50;
const ROUNDS: i32 = 3;
/// More than the pooler keeps on a server.
const TEXTS: i32 = 60;

const TABLES: &str = "
drop table if exists item, counter;
create table item (owner int, number int, note text, tags int[], data bytea, amount int, primary key (owner, number));
create table counter (id int primary key, value int not null);
insert into counter select id, 0 from generate_series(0, 9) id;
";
const INSERT: &str = "insert into item (owner, number, note, amount) values ($1, $2, $3, $4)";
const COUNT: &str = "select count(*)::int from item where owner = $1 and number between $2 and $3";
const TOTALS: &str =
    "select (select count(*) from item), (select sum(amount) from item), (select sum(octet_length(data)) from item),
    (select sum(value) from counter)";

/// Does the work against a port; returns the totals that the tables hold at the end.
pub(crate) fn run(port: u16) -> String {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let first = connect(port).await;
        first.batch_execute(TABLES).await.unwrap();
        let workers = (0..CONNECTIONS).map(|number| async move { Worker { client: connect(port).await, port, number } });
        join_all(join_all(workers).await.iter_mut().map(Worker::work)).await;
        let totals = first.query_one(TOTALS, &[]).await.unwrap();
        (0..4).map(|column| totals.get::<_, i64>(column).to_string()).collect::<Vec<_>>().join(" ")
    })
}

async fn connect(port: u16) -> Client {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("app").dbname("app");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn fails<T: Debug>(state: SqlState, action: impl Future<Output = Result<T, Error>>) {
    let error = action.await.unwrap_err();
    assert_eq!(error.code(), Some(&state), "{error:?}");
}

struct Worker {
    client: Client,
    port: u16,
    number: i32,
}

impl Worker {
    async fn work(&mut self) {
        let insert = self.client.prepare(INSERT).await.unwrap();
        for round in 1..=ROUNDS {
            self.select(round).await;
            self.write(&insert, round * 100).await;
            self.errors(&insert, round * 100).await;
            self.savepoint(&insert, round * 100).await;
            self.copy(round * 100).await;
            self.pipeline(&insert, round * 100).await;
            self.portals().await;
        }
        if self.number % 10 == 0 {
            self.large().await;
        }
        if self.number % 25 == 0 {
            self.cancel().await;
        }
    }

    async fn int(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<i32, Error> {
        Ok(self.client.query_one(sql, values).await?.get(0))
    }

    async fn insert(&self, statement: &Statement, key: i32, amount: i32) -> Result<u64, Error> {
        self.client.execute(statement, &[&self.number, &key, &"note", &amount]).await
    }

    async fn count(&self, from: i32, to: i32) -> i32 {
        self.int(COUNT, &[&self.number, &from, &to]).await.unwrap()
    }

    async fn select(&self, round: i32) {
        let sum = self.client.prepare("select $1::int + $2::int, $3::text").await.unwrap();
        let text = "ü".repeat(round as usize);
        for turn in 0..5 {
            let row = self.client.query_one(&sum, &[&self.number, &turn, &text]).await.unwrap();
            assert_eq!((row.get(0), row.get(1)), (self.number + turn, text.as_str()));
        }
        for turn in 0..12 {
            let factor = (self.number * 7 + round * 12 + turn) % TEXTS;
            let sql = format!("select $1::int * {factor}");
            assert_eq!(self.int(&sql, &[&self.number]).await.unwrap(), self.number * factor);
        }
        let (array, data) = (vec![Some(self.number), None], vec![self.number as u8; 256]);
        let typed = "select $1::int[], $2::bytea, $3::text";
        let row = self.client.query_one(typed, &[&array, &data, &None::<&str>]).await.unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2)), (array, data, None::<String>));
        let unprepared = self.client.simple_query("select 1; select 2").await.unwrap();
        assert_eq!(unprepared.len(), 6, "{unprepared:?}");
    }

    async fn write(&self, insert: &Statement, key: i32) {
        let own = "select pg_backend_pid(), pg_current_xact_id()::text";
        self.client.batch_execute("begin").await.unwrap();
        let before = self.client.query_one(own, &[]).await.unwrap();
        assert_eq!(self.insert(insert, key, 1).await.unwrap(), 1);
        let update = "update item set amount = amount + $1, data = '\\x00ff' where owner = $1 and number = $2 returning amount";
        assert_eq!(self.int(update, &[&self.number, &key]).await.unwrap(), 1 + self.number);
        let after = self.client.query_one(own, &[]).await.unwrap();
        let values = |row: &tokio_postgres::Row| (row.get::<_, i32>(0), row.get::<_, String>(1));
        assert_eq!(values(&before), values(&after));
        self.client.batch_execute("commit").await.unwrap();
        let read = "select amount from item where owner = $1 and number = $2";
        assert_eq!(self.int(read, &[&self.number, &key]).await.unwrap(), 1 + self.number);
        let changed = "update counter set value = value + 1 where id = $1";
        assert_eq!(self.client.execute(changed, &[&(self.number % 10)]).await.unwrap(), 1);
        self.client.batch_execute("begin").await.unwrap();
        self.insert(insert, key + 1, 1000).await.unwrap();
        self.client.batch_execute("rollback").await.unwrap();
        assert_eq!(self.count(key + 1, key + 1).await, 0);
    }

    async fn errors(&self, insert: &Statement, key: i32) {
        let sqls = [
            ("select 1 / $1::int".to_owned(), SqlState::DIVISION_BY_ZERO),
            ("selec $1::int".to_owned(), SqlState::SYNTAX_ERROR),
            ("select $1::int from nowhere".to_owned(), SqlState::UNDEFINED_TABLE),
            (format!("insert into item (owner, number) values ($1 + {}, {key})", self.number), SqlState::UNIQUE_VIOLATION),
        ];
        for (sql, state) in sqls {
            fails(state.clone(), self.client.execute(&sql, &[&0])).await;
            assert_eq!(self.int("select $1::int", &[&self.number]).await.unwrap(), self.number);
            self.client.batch_execute("begin").await.unwrap();
            self.insert(insert, key + 2, 5000).await.unwrap();
            fails(state, self.client.execute(&sql, &[&0])).await;
            fails(SqlState::IN_FAILED_SQL_TRANSACTION, self.insert(insert, key + 2, 5000)).await;
            self.client.batch_execute("rollback").await.unwrap();
            assert_eq!(self.count(key + 2, key + 2).await, 0);
        }
    }

    async fn savepoint(&self, insert: &Statement, key: i32) {
        self.client.batch_execute("begin").await.unwrap();
        self.insert(insert, key + 3, 1).await.unwrap();
        self.client.batch_execute("savepoint here").await.unwrap();
        self.insert(insert, key + 4, 1000).await.unwrap();
        fails(SqlState::UNIQUE_VIOLATION, self.insert(insert, key + 3, 1000)).await;
        self.client.batch_execute("rollback to here").await.unwrap();
        self.insert(insert, key + 5, 1).await.unwrap();
        self.client.batch_execute("commit").await.unwrap();
        assert_eq!(self.count(key + 3, key + 5).await, 2);
    }

    async fn copy(&self, key: i32) {
        let lines = (key + 10..key + 30).map(|value| format!("{}\t{value}\t2\n", self.number)).collect::<Vec<_>>().concat();
        assert_eq!(self.copy_in(&lines).await.unwrap(), 20);
        fails(SqlState::UNIQUE_VIOLATION, self.copy_in(&lines)).await;
        fails(SqlState::INVALID_TEXT_REPRESENTATION, self.copy_in("no number\n")).await;
        let select = format!(
            "copy (select owner, number, amount from item where owner = {} and number between {} and {} order by 2) to stdout",
            self.number,
            key + 10,
            key + 39
        );
        let parts: Vec<_> = self.client.copy_out(&select).await.unwrap().try_collect().await.unwrap();
        assert_eq!(parts.concat(), lines.as_bytes());
    }

    async fn copy_in(&self, lines: &str) -> Result<u64, Error> {
        let mut sink = pin!(self.client.copy_in("copy item (owner, number, amount) from stdin").await?);
        sink.send(std::io::Cursor::new(lines.as_bytes().to_vec())).await?;
        sink.finish().await
    }

    /// Requests that are polled together go out together.
    async fn pipeline(&self, insert: &Statement, key: i32) {
        let quotient_of = self.client.prepare("select 60 / $1::int").await.unwrap();
        let divisors = [1, 2, 3, 0, 4];
        let divide = |divisor: i32| {
            let quotient_of = &quotient_of;
            async move { self.client.query_one(quotient_of, &[&divisor]).await }
        };
        for (divisor, quotient) in divisors.iter().zip(join_all(divisors.map(divide)).await) {
            match quotient {
                Ok(row) => assert_eq!(row.get::<_, i32>(0), 60 / divisor),
                Err(error) => assert_eq!((*divisor, error.code()), (0, Some(&SqlState::DIVISION_BY_ZERO))),
            }
        }
        let texts = (0..20).map(|text| async move { self.int(&format!("select $1::int + {text}"), &[&self.number]).await });
        let sums = try_join_all(texts).await.unwrap();
        assert_eq!(sums, (0..20).map(|text| self.number + text).collect::<Vec<_>>());
        let inserts = try_join_all((40..50).map(|offset| self.insert(insert, key + offset, 3)));
        let (begun, (inserted, ended)) =
            join(self.client.batch_execute("begin"), join(inserts, self.client.batch_execute("commit"))).await;
        (begun.unwrap(), assert_eq!(inserted.unwrap().len(), 10), ended.unwrap());
    }

    /// Two portals of one transaction, read in turns.
    async fn portals(&mut self) {
        let transaction = self.client.transaction().await.unwrap();
        let series = transaction.prepare("select generate_series($1::int, $1::int + 19)").await.unwrap();
        let up = transaction.bind(&series, &[&self.number]).await.unwrap();
        let far = transaction.bind(&series, &[&(self.number + 1000)]).await.unwrap();
        for turn in 0..4 {
            for (portal, first) in [(&up, self.number), (&far, self.number + 1000)] {
                let rows = transaction.query_portal(portal, 7).await.unwrap();
                let values: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
                let start = first + turn * 7;
                assert_eq!(values, (start..(start + 7).min(first + 20)).collect::<Vec<_>>());
            }
        }
        transaction.commit().await.unwrap();
    }

    async fn large(&self) {
        let digits = (self.number % 10).to_string().repeat(100);
        let sql = "select value, $1::text from generate_series(1, 30000) value";
        let mut rows = pin!(self.client.query_raw(sql, [&digits]).await.unwrap());
        let mut value = 0;
        while let Some(row) = rows.next().await {
            let row = row.unwrap();
            value += 1;
            assert_eq!((row.get(0), row.get(1)), (value, digits.as_str()));
        }
        assert_eq!(value, 30_000);
    }

    /// Cancels a statement that another connection sees running.
    async fn cancel(&self) {
        let sql = format!("select pg_sleep(60) /* of {} */", self.number);
        let watch = async {
            let other = connect(self.port).await;
            let active = "select from pg_stat_activity where state = 'active' and query = $1";
            while other.query_opt(active, &[&sql]).await.unwrap().is_none() {}
            self.client.cancel_token().cancel_query(NoTls).await.unwrap();
        };
        join(fails(SqlState::QUERY_CANCELED, self.client.batch_execute(&sql)), watch).await;
        assert_eq!(self.int("select $1::int", &[&self.number]).await.unwrap(), self.number);
    }
}
