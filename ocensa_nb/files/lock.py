"""Lock a folder: with filelock or, on a disk without file locks, a file that names its holder, refreshed every minute.

Such a file outlives its process, so another process must check whether the holder is alive: on the same machine by its
process id, on another machine by the time of the last refresh.
"""

import contextlib
import errno
import inspect
import json
import logging
import os
import platform
import re
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import replace
from ocensa_nb.files.verify import LARGEST_JSON, read_regular
from ocensa_nb.paths import reason

logger = logging.getLogger(__name__)

LOCK = ".lock"
HEARTBEAT = f"{LOCK}-heartbeat"  # replaces the lock on a disk without file locks
REFRESH_SECONDS = 60.0
STALE_SECONDS = 600.0  # a holder on another machine that has not refreshed the lock for this long counts as dead
START_TOLERANCE = 10.0  # seconds; the clock may be set while a process runs, and psutil derives its start from it
ATTEMPTS = 3  # another attempt is needed if the lock was released while it was read


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock; `id` is new for each acquisition."""

    host: str
    pid: int
    started: float
    id: str

    @classmethod
    def here(cls) -> "Holder":
        return cls(platform.node(), os.getpid(), psutil.Process().create_time(), uuid.uuid4().hex)

    @classmethod
    def parse(cls, text: str) -> "Holder | None":
        """Return the holder in the text of a lock file; None if the text is damaged or still empty."""
        try:
            holder = cls(**json.loads(text))
            valid = re.fullmatch("[0-9a-f]{32}", holder.id) and holder.pid > 0 and holder.started > 0
            return holder if valid and isinstance(holder.pid, int) else None
        except (ValueError, TypeError):
            return None

    @property
    def is_local(self) -> bool:
        return self.host == platform.node()

    @property
    def is_running(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            # a later process may have the same pid
            same = abs(process.create_time() - self.started) < START_TOLERANCE
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True


class HeartbeatLock:
    """An exclusive lock on a folder; a suspended holder can lose it, so it must call `check` before each write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._holder = Holder.here()
        self._released = threading.Event()

    def acquire(self) -> None:
        """Acquire the lock; if its holder is dead, take it over and print a message."""
        for _ in range(ATTEMPTS):
            if self._create(self.path) or self._take_over():
                threading.Thread(target=self._refresh, name="heartbeat-lock", daemon=True).start()
                return
        raise UserError(f"Otro proceso acaba de tomar la carpeta «{self.path.parent}». Elija otro nombre en out.")

    def check(self) -> None:
        """Raise `UserError` if another process has taken the lock over; do nothing after `release`."""
        if not self._released.is_set() and not self._is_ours():
            raise UserError(
                f"Otro proceso tomó la carpeta «{self.path.parent}», porque este dejó de dar señales durante más de "
                f"{STALE_SECONDS / 60:.0f} min (máquina suspendida o disco desconectado). Este se detiene y no "
                "escribe nada más; el otro continúa desde lo que estaba guardado."
            )

    def release(self) -> None:
        ours = self._is_ours()
        self._released.set()
        if ours:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _create(self, path: Path) -> bool:
        try:
            with open(path, "x", encoding="utf-8") as file:
                json.dump(asdict(self._holder), file)
        except FileExistsError:
            return False
        return True

    def _take_over(self) -> bool:
        """Take the lock from a dead holder; return False if it was released meanwhile."""
        try:
            dead, age = _read(self.path)
            self._refuse_live(dead, age)
            # Only one process can create the claim. It is valid only while the lock still names the dead holder.
            claim = self.path.with_name(f"{self.path.name}-{dead.id if dead else 'unknown'}")
            if not self._create(claim):
                rival, since = _read(claim)
                self._refuse_live(rival, since)
                claim.unlink()
                return False
            if _read(self.path)[0] != dead:
                claim.unlink()
                return False
        except FileNotFoundError:
            return False
        replace(claim, self.path)
        why = "ya no existe" if dead and dead.is_local else f"no da señales desde hace {age / 60:.0f} min"
        logger.warning(f"Se toma la carpeta «{self.path.parent}»: {_name(dead)}, que la usaba, {why}.")
        return True

    def _refuse_live(self, holder: Holder | None, age: float) -> None:
        if holder and holder.is_local:
            if holder.is_running:
                raise UserError(
                    f"Otro proceso está entrenando en la carpeta «{self.path.parent}»: {_name(holder)}, en esta "
                    "máquina. Espere a que termine, o elija otro nombre en out."
                )
        elif age < STALE_SECONDS:
            wait = (STALE_SECONDS - age) / 60
            raise UserError(
                f"Otro proceso está entrenando en la carpeta «{self.path.parent}»: {_name(holder)}, que dio señales "
                f"hace {age:.0f} s. Espere a que termine, o elija otro nombre en out. Si esa máquina ya no existe, "
                f"repita lo mismo dentro de {wait:.0f} min: continúa donde quedó."
            )

    def _is_ours(self) -> bool:
        try:
            return _read(self.path)[0] == self._holder
        except FileNotFoundError:
            return False
        # a temporary disk error
        except OSError:
            return True

    def _refresh(self) -> None:
        while not self._released.wait(REFRESH_SECONDS):
            with contextlib.suppress(OSError):
                if not self._is_ours():
                    return
                os.utime(self.path)


def _read(path: Path) -> tuple[Holder | None, float]:
    holder = Holder.parse(read_regular(path, LARGEST_JSON).decode(errors="replace"))
    return holder, max(0.0, time.time() - path.stat().st_mtime)


def _name(holder: Holder | None) -> str:
    return f"el proceso {holder.pid} de «{holder.host}»" if holder else "un proceso desconocido"


NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
# A soft lock remains after its machine dies. filelock 3.32 made the fallback to a soft lock a parameter.
NO_FALLBACK = {"fallback_to_soft": False} if "fallback_to_soft" in inspect.signature(FileLock).parameters else {}

Lock = BaseFileLock | HeartbeatLock


def lock_folder(path: Path) -> Lock | None:
    """Return the held lock of a folder, or None if another process holds it.

    Raises `UserError` if the disk cannot be written, or has no file locks and a live process holds the folder.
    """
    lock = FileLock(path / LOCK, **NO_FALLBACK)
    heartbeat = HeartbeatLock(path / HEARTBEAT)
    try:
        try:
            lock.acquire(timeout=0)
            if not isinstance(lock, SoftFileLock):
                return lock
            lock.release()  # filelock 3.21 to 3.31 falls back to a soft lock on a disk without locks
        except (Timeout, PermissionError):  # Windows denies access to a file that another process has open
            if not isinstance(lock, SoftFileLock):
                return None
        except (NotImplementedError, OSError) as error:
            if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
                raise
        heartbeat.acquire()
    except OSError as error:
        raise UserError(f"No se puede escribir en «{path}»: {reason(error)}. Elija otro nombre en out.") from error
    logger.warning(
        f"El disco de «{path}» no admite bloqueos: la carpeta se reserva con un archivo que se renueva cada minuto."
    )
    return heartbeat
