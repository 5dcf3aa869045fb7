import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.postgresql.PGConnection;

/**
 * What JDBC sees of the connection's own state: what it asked for at startup, errors that refuse or end it. Prints what it saw.
 *
 * <p>Usage: Unnoticed PORT startup|terminated|pid, or Unnoticed PORT login USER PASSWORD DATABASE.
 */
public final class Unnoticed {
    static final String[] NAMES = {"search_path", "statement_timeout", "work_mem", "application_name", "DateStyle", "TimeZone"};

    static String server;

    public static void main(String[] arguments) throws Exception {
        server = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/";
        switch (arguments[1]) {
            case "startup" -> startup();
            case "terminated" -> terminated();
            case "pid" -> pid();
            case "login" -> System.out.println(outcome(() ->
                DriverManager.getConnection(server + arguments[4], arguments[2], arguments[3]).close()));
            default -> throw new AssertionError(arguments[1]);
        }
    }

    static Connection connect(String parameters) throws SQLException {
        return DriverManager.getConnection(server + "app?user=app" + parameters);
    }

    /**
     * Connections that ask for different things take turns. The driver asks for a DateStyle and for extra_float_digits by itself; for the
     * latter once more by SET, so that only what it is for can be compared.
     */
    static void startup() throws SQLException {
        Connection[] connections = {
            connect(""),
            connect("&currentSchema=pg_catalog&ApplicationName=asks&options=-c%20statement_timeout=100ms"),
            connect("&options=-c%20work_mem=5MB"),
        };
        for (int round = 0; round < 2; round++) {
            for (Connection connection : connections) {
                for (String name : NAMES) {
                    System.out.print(name + "=" + value(connection, "show " + name) + " ");
                }
                System.out.print(value(connection, "select 0.1::float8 + 0.2::float8") + " ");
                System.out.println(outcome(() -> value(connection, "select pg_sleep(0.25)")));
            }
        }
    }

    static void terminated() throws Exception {
        Connection connection = connect("");
        String sql = "select pg_sleep(60) /* terminated */";
        Thread ender = new Thread(() -> {
            try (Connection other = connect("")) {
                String end = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and query = '" + sql + "'";
                while (value(other, end) == null) { }
            } catch (SQLException error) {
                throw new AssertionError(error);
            }
        });
        ender.start();
        System.out.println(outcome(() -> value(connection, sql)));
        ender.join();
        System.out.println(connection.isClosed());
    }

    static void pid() throws SQLException {
        Connection connection = connect("");
        int pid = connection.unwrap(PGConnection.class).getBackendPID();
        System.out.println(value(connection, "select pg_backend_pid()").equals(Integer.toString(pid)));
    }

    interface Action {
        void run() throws SQLException;
    }

    static String outcome(Action action) {
        try {
            action.run();
            return "no error";
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    /** The first value as text, or null if there is no row. */
    static String value(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            return rows.next() ? rows.getString(1) : null;
        }
    }
}
