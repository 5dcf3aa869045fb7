import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/**
 * Logs in through JDBC and asks a little. For each user prints who it was, and whether inside TLS; or the SQLSTATE with which it was refused.
 *
 * <p>Usage: Login PORT USER:PASSWORD[,...] disable|require|verify-full [CA [CERTIFICATE KEY]]; the key as PKCS #8 in DER.
 */
public final class Login {
    public static void main(String[] arguments) throws SQLException {
        for (String pair : arguments[1].split(",")) {
            String[] login = pair.split(":");
            System.out.println(logIn(login[0], login[1], arguments));
        }
    }

    static String logIn(String user, String password, String[] arguments) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", user);
        properties.setProperty("password", password);
        properties.setProperty("sslmode", arguments[2]);
        String[] files = {"sslrootcert", "sslcert", "sslkey"};
        for (int at = 3; at < arguments.length; at++) {
            properties.setProperty(files[at - 3], arguments[at]);
        }
        Connection connection;
        try {
            connection = DriverManager.getConnection("jdbc:postgresql://localhost:" + arguments[0] + "/app", properties);
        } catch (SQLException refused) {
            return "refused " + refused.getSQLState();
        }
        try (connection) {
            return user(connection) + " " + (arguments[2].equals("disable") ? "clear" : "tls");
        }
    }

    static String user(Connection connection) throws SQLException {
        try (PreparedStatement query = connection.prepareStatement("select current_user, ?::int"); Statement other = connection.createStatement()) {
            query.setInt(1, 7);
            try (ResultSet row = query.executeQuery(); ResultSet longRow = other.executeQuery("select repeat('x', 300000)")) {
                row.next();
                longRow.next();
                if (row.getInt(2) != 7 || longRow.getString(1).length() != 300000) {
                    throw new IllegalStateException("wrong rows");
                }
                return row.getString(1);
            }
        }
    }
}
