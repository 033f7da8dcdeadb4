"""The release command: brings the database to this release's schema. Run twice, it changes nothing the second time."""

from shop import VERSION, database, log


def main() -> None:
    connection = database.connect()
    connection.executescript(database.SCHEMA)
    connection.close()
    log.write(message="the database has the schema of this release", version=VERSION)
