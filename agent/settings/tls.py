"""The table `[tls]`, which is the same for every role."""

from agent.model.roles import TlsFiles
from agent.settings.kinds import FILE_PATH
from agent.settings.tables import Table


def tls_files(table: Table, default: TlsFiles) -> TlsFiles:
    return TlsFiles(
        ca=table.get("ca", FILE_PATH, default.ca),
        certificate=table.get("certificate", FILE_PATH, default.certificate),
        key=table.get("key", FILE_PATH, default.key),
    )
