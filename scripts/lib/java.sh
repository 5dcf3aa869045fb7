# A Java compiler and Debian's JDBC driver. Sourced.

# Sets and exports PGFLEET_JDBC_JAR. One named by the caller is kept as it is.
need_java_driver() {
  command -v javac >/dev/null || need_packages default-jdk-headless
  [ -z "${PGFLEET_JDBC_JAR:-}" ] || return 0
  need_packages libpostgresql-jdbc-java
  export PGFLEET_JDBC_JAR=/usr/share/java/postgresql.jar
}
