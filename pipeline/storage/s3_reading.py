"""What DuckDB reads a lake on S3 through: few requests, many at once.

DuckDB lists, then asks for size and time of every file and opens it twice, one file after the other: through s3fs as it
comes that is 15 requests a file. Here a listing says what there is to know, and small files are fetched whole as soon
as they are listed, 32 at a time, and kept by name and ETag: no name in a lake gets other bytes, so that the hot files
of a worker are fetched once and not at every look.
"""

import asyncio
import io
import threading
from collections import OrderedDict
from typing import Any, Final

from pipeline.storage.s3 import LakeFileSystem

SMALL_BYTES: Final = 1024 * 1024
"""Files up to this size are fetched whole."""
KEPT_BYTES: Final = 64 * 1024 * 1024
"""Most that is kept of them."""
AT_ONCE: Final = 32
BLOCK_BYTES: Final = 1024 * 1024
"""Of larger files, what is fetched at least with what is asked for."""
MOST_KNOWN: Final = 100_000


class _Kept:
    """Whole files by name and ETag; what was used least recently goes first."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> bytes | None:
        with self._lock:
            found = self._files.get(key)
            if found is not None:
                self._files.move_to_end(key)
            return found

    def put(self, key: tuple[str, str], content: bytes) -> None:
        with self._lock:
            if key in self._files:
                return
            self._files[key] = content
            self._bytes += len(content)
            while self._bytes > KEPT_BYTES:
                self._bytes -= len(self._files.popitem(last=False)[1])


class ReadingFileSystem(LakeFileSystem):
    """S3 as DuckDB asks for it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._known: dict[str, dict[str, Any]] = {}
        self._kept = _Kept()

    async def _glob(self, path: str, **options: Any) -> Any:
        named = self._known.get(self._strip_protocol(path))
        if named is not None:
            # A name and no pattern. Should it be gone by now, that shows when it is opened.
            return {named["name"]: named} if options.get("detail") else [named["name"]]
        found = await super()._glob(path, detail=True)
        if len(self._known) > MOST_KNOWN:
            self._known = {}
        self._known.update(found)
        await self._fetch(found)
        return found if options.get("detail") else list(found)

    async def _fetch(self, found: dict[str, dict[str, Any]]) -> None:
        """The small files of a listing that are not kept yet, as many as there is room for."""
        room, wanted = KEPT_BYTES // 2, []
        for path, about in found.items():
            room -= about["size"]
            if room < 0:
                break
            if about["size"] <= SMALL_BYTES and self._kept.get((path, about["ETag"])) is None:
                wanted.append(path)
        places = asyncio.Semaphore(AT_ONCE)

        async def fetch(path: str) -> None:
            async with places:
                try:
                    self._kept.put((path, found[path]["ETag"]), await self._cat_file(path))
                except FileNotFoundError:
                    # A compaction has removed it. Whoever opens it is told so.
                    return

        await asyncio.gather(*map(fetch, wanted))

    async def _info(self, path: str, *args: Any, **options: Any) -> Any:
        return self._known.get(self._strip_protocol(path)) or await super()._info(path, *args, **options)

    def modified(self, path: str, *args: Any, **options: Any) -> Any:
        """When it was written: a name whose bytes never change is as old as it was."""
        return self.info(path)["LastModified"]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            raise OSError("a lake on S3 is read here, and not written")
        about = self.info(path)
        key = (path, str(about.get("ETag")))
        content = self._kept.get(key)
        if content is None and about["size"] <= SMALL_BYTES:
            content = self.cat_file(path)
            self._kept.put(key, content)
        if content is not None:
            return io.BytesIO(content)
        return super()._open(path, mode, block_size=BLOCK_BYTES, cache_type="readahead")
