import java.io.StringReader;
import java.io.StringWriter;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

/**
 * Mixed work through JDBC, all its settings as they are by default, from many connections at once: batches, fetch sizes, savepoints,
 * COPY, cancel. Prints the totals that the tables hold at the end.
 *
 * <p>Usage: Mixed PORT. It knows no pooler: run against PostgreSQL itself it must print the same.
 */
public final class Mixed {
    static final int CONNECTIONS = 50;
    static final int ROUNDS = 2;
    /** More than the pooler keeps on a server, so that statements are evicted while others use them. */
    static final int TEXTS = 60;

    static final String TABLES = """
        drop table if exists item, counter;
        create table item (owner int, number int, note text, tags int[], data bytea, amount int, primary key (owner, number));
        create table counter (id int primary key, value int not null);
        insert into counter select id, 0 from generate_series(0, 9) id;
        """;
    static final String INSERT = "insert into item (owner, number, note, tags, data, amount) values (?, ?, ?, ?, ?, ?)";
    static final String COUNT = "select count(*)::int from item where owner = ? and number between ? and ?";
    static final String TOTALS = """
        select (select count(*) from item), (select sum(amount) from item), (select sum(octet_length(data)) from item),
               (select sum(value) from counter)
        """;
    static final String UNIQUE = "23505";
    static final String IN_FAILED = "25P02";

    static String url;

    public static void main(String[] arguments) throws Exception {
        url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/app?user=app";
        try (Connection first = DriverManager.getConnection(url)) {
            try (Statement statement = first.createStatement()) {
                statement.execute(TABLES);
            }
            ExecutorService threads = Executors.newFixedThreadPool(CONNECTIONS);
            CyclicBarrier everyone = new CyclicBarrier(CONNECTIONS);
            List<Callable<Void>> all = new ArrayList<>();
            for (int number = 0; number < CONNECTIONS; number++) {
                Mixed one = new Mixed(number);
                all.add(() -> one.work(everyone));
            }
            List<Future<Void>> ended = threads.invokeAll(all);
            threads.shutdown();
            for (Future<Void> end : ended) {
                end.get();
            }
            List<Object> totals = row(first, TOTALS);
            System.out.println(totals.stream().map(String::valueOf).collect(Collectors.joining(" ")));
        }
    }

    final int number;
    Connection connection;

    Mixed(int number) {
        this.number = number;
    }

    Void work(CyclicBarrier everyone) throws Exception {
        connection = DriverManager.getConnection(url);
        everyone.await(60, TimeUnit.SECONDS);
        for (int round = 1; round <= ROUNDS; round++) {
            select(round);
            write(round * 100);
            err(round * 100);
            save(round * 100);
            copy(round * 100);
            batch(round * 100);
        }
        if (number % 10 == 0) {
            large();
        }
        if (number % 25 == 0) {
            cancel();
        }
        connection.close();
        return null;
    }

    void select(int round) throws Exception {
        String sql = "select ?::int + ?::int, ?::text";
        try (PreparedStatement sum = connection.prepareStatement(sql)) {
            for (int turn = 0; turn < 8; turn++) {
                same(Arrays.asList(number + turn, "ü".repeat(round)), row(sum, number, turn, "ü".repeat(round)));
            }
        }
        for (int turn = 0; turn < 12; turn++) {
            int text = (number * 7 + round * 12 + turn) % TEXTS;
            try (PreparedStatement statement = connection.prepareStatement("select ?::int * " + text + ", '" + text + "'")) {
                // From its fifth use on the driver gives the statement a name.
                for (int use = 0; use < turn; use++) {
                    same(Arrays.asList((number + use) * text, Integer.toString(text)), row(statement, number + use));
                }
            }
        }
        byte[] data = new byte[256 * round];
        Arrays.fill(data, (byte) number);
        String typed = "select ?::int[], ?::bytea, ?::text, ?::float8";
        try (PreparedStatement statement = bound(typed, connection.createArrayOf("int4", new Object[] {number, null}), data, null, 0.1);
                ResultSet found = statement.executeQuery()) {
            found.next();
            same(Arrays.asList(number, null), Arrays.asList((Object[]) found.getArray(1).getArray()));
            same(Arrays.toString(data), Arrays.toString(found.getBytes(2)));
            same(null, found.getString(3));
            same(0.1, found.getDouble(4));
        }
    }

    void write(int key) throws Exception {
        String own = "select pg_backend_pid(), pg_current_xact_id()::text";
        connection.setAutoCommit(false);
        List<Object> backend = row(connection, own);
        insert(key, "written", new byte[] {0, -1}, 1);
        String update = "update item set amount = amount + ? where owner = ? and number = ? returning amount";
        same(Arrays.asList(1 + number), row(connection, update, number, number, key));
        same(backend, row(connection, own));
        connection.commit();
        insert(key + 1, null, null, 1000);
        connection.rollback();
        connection.setAutoCommit(true);
        same(Arrays.asList("written", 1 + number), row(connection, "select note, amount from item where owner = ? and number = ?", number, key));
        same(0, count(key + 1, key + 1));
        try (PreparedStatement statement = bound("update counter set value = value + 1 where id = ?", number % 10)) {
            same(1, statement.executeUpdate());
        }
        connection.setReadOnly(true);
        connection.setAutoCommit(false);
        fails("25006", () -> insert(key + 1, null, null, 1000));
        connection.rollback();
        connection.setReadOnly(false);
        connection.setAutoCommit(true);
    }

    void err(int key) throws Exception {
        List<Failing> failing = Arrays.asList(
            new Failing("22012", () -> row(connection, "select 1 / ?::int", 0)),
            new Failing("42601", () -> row(connection, "selec ?::int", 0)),
            new Failing("42P01", () -> row(connection, "select ?::int from nowhere", 0)),
            new Failing(UNIQUE, () -> insert(key, null, null, 0)));
        for (Failing one : failing) {
            // As often as makes the driver name its statement.
            for (int turn = 0; turn < 6; turn++) {
                fails(one.state, one.action);
            }
            same(Arrays.asList(number), row(connection, "select ?::int", number));
            connection.setAutoCommit(false);
            insert(key + 2, null, null, 5000);
            fails(one.state, one.action);
            fails(IN_FAILED, () -> row(connection, "select ?::int", number));
            connection.rollback();
            connection.setAutoCommit(true);
            same(0, count(key + 2, key + 2));
        }
    }

    void save(int key) throws Exception {
        connection.setAutoCommit(false);
        insert(key + 3, null, null, 1);
        Savepoint here = connection.setSavepoint("here");
        insert(key + 4, null, null, 1000);
        fails(UNIQUE, () -> insert(key + 3, null, null, 1000));
        connection.rollback(here);
        insert(key + 5, null, null, 1);
        connection.commit();
        connection.setAutoCommit(true);
        same(2, count(key + 3, key + 5));
    }

    void copy(int key) throws Exception {
        CopyManager copies = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        StringBuilder expected = new StringBuilder();
        for (int value = 0; value < 20; value++) {
            lines.append(number + "\t" + (key + 10 + value) + "\t2\n");
            expected.append((key + 10 + value) + "\n");
        }
        String into = "copy item (owner, number, amount) from stdin";
        same(20L, copies.copyIn(into, new StringReader(lines.toString())));
        fails(UNIQUE, () -> copies.copyIn(into, new StringReader(lines.toString())));
        fails("22P02", () -> copies.copyIn(into, new StringReader("no number\n")));
        StringWriter out = new StringWriter();
        String numbers = "select number from item where owner = " + number + " and number between " + (key + 10) + " and " + (key + 39);
        copies.copyOut("copy (" + numbers + " order by 1) to stdout", out);
        same(expected.toString(), out.toString());
        connection.setAutoCommit(false);
        try (PreparedStatement statement = bound("select value from generate_series(?::int, ?::int) value", number, number + 99)) {
            statement.setFetchSize(7);
            for (int turn = 0; turn < 6; turn++) {
                int value = number;
                try (ResultSet rows = statement.executeQuery()) {
                    // Every other time the cursor is left half read.
                    while ((turn % 2 == 0 || value < number + 20) && rows.next()) {
                        same(value++, rows.getInt(1));
                    }
                }
                same(turn % 2 == 0 ? number + 100 : number + 20, value);
            }
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    void batch(int key) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
            for (int value = 0; value < 10; value++) {
                bind(statement, number, key + 40 + value, "batch " + value, null, null, 3);
                statement.addBatch();
            }
            int[] counts = new int[10];
            Arrays.fill(counts, 1);
            same(Arrays.toString(counts), Arrays.toString(statement.executeBatch()));
            connection.setAutoCommit(false);
            for (int value : new int[] {60, 61, 40, 62}) {
                bind(statement, number, key + value, null, null, null, 1000);
                statement.addBatch();
            }
            try {
                statement.executeBatch();
                throw new AssertionError("no BatchUpdateException");
            } catch (BatchUpdateException error) {
                same(UNIQUE, error.getSQLState());
            }
            connection.rollback();
            connection.setAutoCommit(true);
            same(0, count(key + 60, key + 62));
        }
    }

    void large() throws Exception {
        String digits = Integer.toString(number % 10).repeat(100);
        try (PreparedStatement statement = bound("select value, ?::text from generate_series(1, 30000) value", digits);
                ResultSet rows = statement.executeQuery()) {
            int value = 0;
            while (rows.next()) {
                same(++value, rows.getInt(1));
                same(digits, rows.getString(2));
            }
            same(30000, value);
        }
    }

    /** Cancels a statement that another connection sees running. */
    void cancel() throws Exception {
        String sql = "select pg_sleep(60) /* of " + number + " */";
        try (Statement sleep = connection.createStatement()) {
            Thread watcher = new Thread(() -> {
                try (Connection other = DriverManager.getConnection(url)) {
                    while (row(other, "select pid from pg_stat_activity where state = 'active' and query = ?", sql) == null) { }
                    sleep.cancel();
                } catch (SQLException error) {
                    throw new AssertionError(error);
                }
            });
            watcher.start();
            fails("57014", () -> sleep.executeQuery(sql));
            watcher.join();
            // The driver's own clock; it runs while the statement has its server.
            connection.setAutoCommit(false);
            same(Arrays.asList(number), row(connection, "select ?::int", number));
            sleep.setQueryTimeout(1);
            fails("57014", () -> sleep.executeQuery(sql));
            connection.rollback();
            connection.setAutoCommit(true);
        }
        same(Arrays.asList(number), row(connection, "select ?::int", number));
    }

    interface Action {
        void run() throws Exception;
    }

    record Failing(String state, Action action) {}

    static void fails(String state, Action action) throws Exception {
        try {
            action.run();
        } catch (SQLException error) {
            if (!state.equals(error.getSQLState())) {
                throw new AssertionError(error.getSQLState() + " is not " + state, error);
            }
            return;
        }
        throw new AssertionError("no error " + state);
    }

    static void same(Object expected, Object found) {
        if (expected == null ? found != null : !expected.equals(found)) {
            throw new AssertionError(found + " is not " + expected);
        }
    }

    void insert(int key, String note, byte[] data, int amount) throws SQLException {
        try (PreparedStatement statement = bound(INSERT, number, key, note, null, data, amount)) {
            same(1, statement.executeUpdate());
        }
    }

    int count(int from, int to) throws SQLException {
        return (Integer) row(connection, COUNT, number, from, to).get(0);
    }

    PreparedStatement bound(String sql, Object... values) throws SQLException {
        PreparedStatement statement = connection.prepareStatement(sql);
        bind(statement, values);
        return statement;
    }

    static void bind(PreparedStatement statement, Object... values) throws SQLException {
        for (int index = 0; index < values.length; index++) {
            if (values[index] == null) {
                statement.setNull(index + 1, java.sql.Types.NULL);
            } else {
                statement.setObject(index + 1, values[index]);
            }
        }
    }

    /** The first row, or null. */
    static List<Object> row(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            return row(statement, values);
        }
    }

    static List<Object> row(PreparedStatement statement, Object... values) throws SQLException {
        bind(statement, values);
        try (ResultSet found = statement.executeQuery()) {
            if (!found.next()) {
                return null;
            }
            List<Object> row = new ArrayList<>();
            for (int column = 1; column <= found.getMetaData().getColumnCount(); column++) {
                row.add(found.getObject(column));
            }
            return row;
        }
    }
}
