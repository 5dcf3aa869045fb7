import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Tables change while JDBC holds prepared statements. Prints, for every use of one, whether it gave the right rows or which error.
 *
 * <p>Usage: Altered PORT kept|evicted. The scenario is that of {@code tests/tests/unnoticed/altered.rs}, the same in every language.
 */
public final class Altered {
    static final int CLIENTS = 4;
    static final int SERVERS = 3;
    /** More than a server keeps. */
    static final int FLOOD = 25;

    static final String CREATE = """
        drop table if exists changing; drop type if exists mood;
        create table changing (id int, value int, note text);
        insert into changing select n, n, 'note ' || n from generate_series(1, 3) n;
        create type mood as enum ('good', 'bad');
        """;
    static final String[][] STEPS = {
        {"nothing", "select"},
        {"a column more", "alter table changing add extra int default 7"},
        {"other types", "alter table changing alter value type real, alter id type bigint"},
        {"a column less", "alter table changing drop note"},
        {"another table", "drop table changing; create table changing (value int, id int); insert into changing values (2, 7)"},
        {"the type anew", "drop type mood; create type mood as enum ('bad', 'good')"},
    };
    static final String[] NAMES = {"all", "one", "parameter", "mood"};
    static final String[] QUERIES = {
        "select * from changing order by id",
        "select * from changing where value = ?",
        "select 'found' as found from changing where id = ?",
        "select ?::text::mood as mood",
    };
    static final Object[][] VALUES = {{}, {2}, {2}, {"good"}};

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/app?user=app";
        // Uses that the driver lets pass before it gives a statement a name; the clients' is what the driver does by itself.
        String never = url + "&prepareThreshold=0";
        String always = url + "&prepareThreshold=1";
        Connection control = DriverManager.getConnection(never);
        execute(control, CREATE);
        List<Connection> clients = connections(url, CLIENTS);
        List<Connection> holders = connections(never, SERVERS);
        Connection other = DriverManager.getConnection(always);
        Connection last = clients.get(CLIENTS - 1);
        for (Connection client : clients) {
            for (int query = 0; query < QUERIES.length; query++) {
                for (int turn = 0; turn < 6; turn++) {
                    rows(client, query);
                }
            }
        }
        for (String[] step : STEPS) {
            execute(control, step[1]);
            if (arguments[1].equals("evicted")) {
                for (int busy = 0; busy < SERVERS; busy++) {
                    hold(holders, 0, busy);
                    for (int text = 0; text < FLOOD; text++) {
                        try (PreparedStatement statement = other.prepareStatement("select " + text)) {
                            statement.execute();
                        }
                    }
                    release(holders);
                }
            }
            for (int query = 0; query < QUERIES.length; query++) {
                String label = step[0] + ", " + NAMES[query] + ", ";
                // The last client meets the change in a transaction.
                for (int turn = 0; turn < 2; turn++) {
                    last.setAutoCommit(false);
                    use(control, last, label + "transaction " + turn, query);
                    last.rollback();
                    last.setAutoCommit(true);
                }
                try (Connection late = DriverManager.getConnection(always)) {
                    for (int turn = 0; turn < 2; turn++) {
                        use(control, late, label + "late client, use " + turn, query);
                    }
                }
                // The comparison needs a server, too.
                for (int busy = 0; busy < SERVERS; busy++) {
                    hold(holders, 1, busy);
                    for (int index = 0; index < CLIENTS; index++) {
                        for (int turn = 0; turn < 2; turn++) {
                            use(control, clients.get(index), label + "client " + index + ", " + busy + " busy, use " + turn, query);
                        }
                    }
                    release(holders);
                }
            }
        }
    }

    static List<Connection> connections(String url, int count) throws SQLException {
        List<Connection> connections = new ArrayList<>();
        for (int index = 0; index < count; index++) {
            connections.add(DriverManager.getConnection(url));
        }
        return connections;
    }

    /** Some connections hold a server each, so that what is done meanwhile is done on the others. */
    static void hold(List<Connection> holders, int from, int count) throws SQLException {
        for (Connection holder : holders.subList(from, Math.min(holders.size(), from + count))) {
            holder.setAutoCommit(false);
            execute(holder, "select");
        }
    }

    static void release(List<Connection> holders) throws SQLException {
        for (Connection holder : holders) {
            holder.setAutoCommit(true);
        }
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static void use(Connection control, Connection client, String label, int query) throws SQLException {
        // The rows as a statement gives them that nobody has prepared before.
        List<Map<String, String>> expected = rows(control, query);
        String outcome;
        try {
            List<Map<String, String>> found = rows(client, query);
            outcome = found.equals(expected) ? "right" : "WRONG " + found + " for " + expected;
        } catch (SQLException error) {
            outcome = error.getSQLState() == null ? "WRONG " + error : error.getSQLState();
        }
        System.out.println(label + ": " + outcome);
    }

    static List<Map<String, String>> rows(Connection connection, int query) throws SQLException {
        List<Map<String, String>> rows = new ArrayList<>();
        try (PreparedStatement statement = connection.prepareStatement(QUERIES[query])) {
            for (int index = 0; index < VALUES[query].length; index++) {
                statement.setObject(index + 1, VALUES[query][index]);
            }
            try (ResultSet found = statement.executeQuery()) {
                while (found.next()) {
                    Map<String, String> row = new LinkedHashMap<>();
                    for (int column = 1; column <= found.getMetaData().getColumnCount(); column++) {
                        row.put(found.getMetaData().getColumnName(column), String.valueOf(found.getObject(column)));
                    }
                    rows.add(row);
                }
            }
        }
        return rows;
    }
}
