"""Files in a bucket on S3, or on what speaks S3's protocol. Credentials, region and endpoint are the AWS tools' own.

What is relied on, all of it promised by S3:

1. An object appears with all its bytes or not at all: a PUT that breaks off leaves nothing, and a multipart upload
   appears when it is completed.
2. Reads and listings are strongly consistent: whatever was acknowledged is seen by everybody from then on.
3. `If-None-Match: *` creates a name or is refused, however many try at once. Manifests and leases are written so.
"""

import asyncio
import errno
import mmap
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Any, Final, NoReturn, TypeVar

import aiohttp
from botocore.exceptions import BotoCoreError, NoCredentialsError
from fsspec.utils import glob_translate
from s3fs import S3FileSystem
from upath.implementations.cloud import S3Path
from upath.registry import register_implementation

from pipeline.storage.lease import held

CONNECT_SECONDS: Final = 3.0
READ_SECONDS: Final = 10.0
"""For the first byte of an answer, and from one to the next."""
TRIES: Final = 2
"""The library's, and as many of its own client's: four in all, after 40 s at most. Whoever asked then tries again."""

CALL_SECONDS: Final = 60.0
"""For all tries of one request: the client does not count while it waits to be asked for the body of a PUT."""

PART_BYTES: Final = 16 * 1024 * 1024
"""What is no larger than two of these is one PUT; S3 takes up to 10,000 parts."""
PARTS_AT_ONCE: Final = 4

_PATTERN: Final = re.compile(r"[*?\[]")
_ACCESS: Final = "see the AWS credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID, …) and the bucket's policy"


class LakeFileSystem(S3FileSystem):  # type: ignore[misc]  # ships no types
    """S3 as files, every failure an OSError whose text says what is wrong, in one line and without secrets."""

    connect_timeout = CONNECT_SECONDS
    read_timeout = READ_SECONDS
    retries = TRIES
    call_seconds = CALL_SECONDS

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            async with asyncio.timeout(self.call_seconds) as limit:
                return await super()._call_s3(method, *args, **kwargs)
        except TimeoutError as error:
            told = (
                f"timeout: no answer in {self.call_seconds:g} s" if limit.expired() else f"timeout: {error}"
            )
            # Not as TimeoutError, which the library would replace by one that says nothing.
            raise OSError(errno.EIO, told) from error
        except (OSError, BotoCoreError, aiohttp.ClientError) as error:
            _tell(error, method, str(kwargs.get("Bucket")))

    async def _exists(self, path: str) -> bool:
        bucket, key, _ = self.split_path(path)
        with suppress(FileNotFoundError):
            await self._call_s3("head_object", Bucket=bucket, Key=key)
            return True
        # It may be a folder. And this tells whether there is the bucket, which the answer to HEAD does not.
        prefix = key.rstrip("/") + "/"
        found = await self._call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return bool(found.get("KeyCount"))

    async def _glob(self, path: str, **options: Any) -> Any:
        """One listing of all below the part of the pattern that is none; the library asks for each folder."""
        path = self._strip_protocol(path)
        sign = _PATTERN.search(path)
        bucket, prefix, _ = self.split_path(
            path if sign is None else path[: path.rindex("/", 0, sign.start()) + 1]
        )
        matches = re.compile(glob_translate(path)).fullmatch
        found: dict[str, Any] = {}
        page: dict[str, Any] = {"NextContinuationToken": None}
        while "NextContinuationToken" in page:
            token = page["NextContinuationToken"]
            more = {} if token is None else {"ContinuationToken": token}
            page = await self._call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
            for item in page.get("Contents", ()):
                name = f"{bucket}/{item['Key']}"
                if matches(name):
                    about = {"name": name, "type": "file", "size": item["Size"], "ETag": item["ETag"]}
                    found[name] = about | {"LastModified": item["LastModified"]}
        return found if options.get("detail") else list(found)


def _tell(error: Exception, method: str, bucket: str) -> NoReturn:
    answer = getattr(error.__cause__, "response", None) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    told = re.sub(r"//[^/@\s]*@", "//", " ".join(str(error).split()))
    if code == "NoSuchBucket":
        raise OSError(errno.ENXIO, f"there is no bucket {bucket}") from error
    if code in ("PreconditionFailed", "412") and method in ("put_object", "complete_multipart_upload"):
        raise FileExistsError(errno.EEXIST, "it is there already") from error
    if isinstance(error, PermissionError):
        raise PermissionError(f"{told}: {_ACCESS}") from error
    if isinstance(error, NoCredentialsError):
        raise PermissionError(f"no credentials: {_ACCESS}") from error
    if isinstance(error, OSError):
        raise error
    raise OSError(errno.EIO, told) from error


_System = TypeVar("_System", bound=LakeFileSystem)


@cache
def file_system(kind: type[_System], process: int) -> _System:
    """The one of its kind and of a process (`os.getpid()`): connections, and the thread that serves them, do not
    survive a fork. Not from the library's cache, which makes one for each thread.
    """
    return kind(
        skip_instance_cache=True,
        # Others write, too: what is listed is listed now.
        use_listings_cache=False,
        config_kwargs={"retries": {"mode": "standard", "total_max_attempts": TRIES}},
    )


class LakePath(S3Path):
    """A path on S3, with the methods of a `Path`."""

    __slots__ = ()

    @property
    def fs(self) -> LakeFileSystem:
        """The one of the process, also where the path came here through a fork."""
        found: LakeFileSystem = file_system(LakeFileSystem, os.getpid())
        return found

    def read_bytes(self) -> bytes:
        """All of it, in one request."""
        content: bytes = self.fs.cat_file(self.path)
        return content

    def read_text(
        self, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> str:
        """All of it, as it is."""
        assert newline is None
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes it, in one request; S3 does not say whether it was there."""
        if not missing_ok and not self.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        self.fs.rm_file(self.path)


register_implementation("s3", LakePath, clobber=True)


class Bucket:
    """What is below a prefix of a bucket."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def _fs(self) -> LakeFileSystem:
        found: LakeFileSystem = self._root.fs  # type: ignore[attr-defined]  # a UPath
        return found

    def lay_out(self, *folders: Path) -> None:
        """There are no folders on S3: a name is all of it."""

    def scratch(self) -> Path:
        """A folder of this machine and user; `sweep` tidies it."""
        folder = Path(tempfile.gettempdir()) / f"callfold-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def put(
        self,
        fill: Callable[[Any], None],
        target: Path,
        check: Callable[[], None] = lambda: None,
        *,
        is_new: bool = False,
    ) -> None:
        """What `fill` writes appears at `target`. `check` is called before the upload, with `is_new` FileExistsError
        if there is something else already.
        """
        # It never has a name: nothing is left of it, however the process ends.
        with tempfile.SpooledTemporaryFile(max_size=2 * PART_BYTES) as file:
            fill(file)
            size = file.tell()
            file.seek(0)
            check()
            if size < 2 * PART_BYTES:
                self._upload(file.read(), target, is_new=is_new)
                return
            file.flush()
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
                self._upload(content, target, is_new=is_new)

    def put_text(self, text: str, target: Path, *, is_new: bool = False) -> None:
        """The same for a text."""
        self._upload(text.encode("utf-8"), target, is_new=is_new)

    def _upload(self, content: bytes | mmap.mmap, target: Path, *, is_new: bool) -> None:
        path, mode = _key(target), "create" if is_new else "overwrite"
        try:
            self._fs.pipe_file(path, content, chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE, mode=mode)
        except FileExistsError:
            # The answer to a first try may have been lost on its way.
            if not self._holds(path, content):
                raise

    def _holds(self, path: str, content: bytes | mmap.mmap) -> bool:
        if self._fs.info(path)["size"] != len(content):
            return False
        starts = range(0, len(content), PART_BYTES)
        return all(
            self._fs.cat_file(path, start=start, end=min(start + PART_BYTES, len(content)))
            == content[start : start + PART_BYTES]
            for start in starts
        )

    def age_seconds(self, path: Path) -> float:
        """How long ago the object was written, by the clock of the object store."""
        bucket, key, _ = self._fs.split_path(_key(path))
        answer = self._fs.call_s3("head_object", Bucket=bucket, Key=key)
        return _now(answer) - float(answer["LastModified"].timestamp())

    def sweep(self, older_than_seconds: float) -> None:
        """Removes what crashed writers left behind: parts of uploads that were never completed, files of merges."""
        bucket, prefix, _ = self._fs.split_path(_key(self._root))
        # A user or a store may be without the right to look; the README names the bucket's own rule for it.
        with suppress(OSError):
            answer = self._fs.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/".lstrip("/")
            )
            for upload in answer.get("Uploads", ()):
                if _now(answer) - upload["Initiated"].timestamp() > older_than_seconds:
                    names = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                    self._fs.call_s3("abort_multipart_upload", Bucket=bucket, **names)
        for left in self.scratch().iterdir():
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > older_than_seconds:
                    rmtree(left) if left.is_dir() else left.unlink()

    @contextmanager
    def only_one(self, task: str) -> Iterator[Callable[[], None] | None]:
        """A check that this process still has the task's lease, or None where another one has it."""
        with held(self, self._root / "_locks" / task) as check:
            yield check


def _key(path: Path) -> str:
    key: str = path.path  # type: ignore[attr-defined]  # a UPath
    return key


def _now(answer: Any) -> float:
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
