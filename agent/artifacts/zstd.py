"""zstd as Rollway uses it: one name for the module of Python 3.14 and its backport, and one set of parameters.

The same tar gives the same archive only with the same libzstd, level and (single) thread: the manifest records both.
"""

import sys
from typing import Final

if sys.version_info >= (3, 14):
    from compression.zstd import (
        DecompressionParameter,
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
        zstd_version,
    )
else:
    from backports.zstd import (
        DecompressionParameter,
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
        zstd_version,
    )

__all__ = ["LEVEL", "ZstdCompressor", "ZstdDecompressor", "ZstdError", "compressor", "decompressor", "zstd_version"]

LEVEL: Final = 10
_WINDOW_LOG_MAX: Final = 23
"""8 MiB, what every reader must support (RFC 8878); level 10 needs 4 MiB."""


def compressor() -> ZstdCompressor:
    return ZstdCompressor(level=LEVEL)


def decompressor() -> ZstdDecompressor:
    return ZstdDecompressor(options={DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
