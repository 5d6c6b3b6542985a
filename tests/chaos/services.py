"""The processes of a round: a collector and some workers, with whoever starts the killed ones again."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import whereabouts
from running import AS_INSTALLED

from pipeline.providers import provider_names

PROGRAM = Path(__file__).with_name("faulty_worker.py")
SESSION_SECONDS = 3.0
STOP_SECONDS = 60.0
ANSWER_SECONDS = 10.0


class Service:
    """One process, its log and its end."""

    def __init__(self, name: str, folder: Path, command: str, settings: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("CALLFOLD_", "CHAOS_"))
        }
        open_doors = {f"CALLFOLD_{provider.upper()}_AUTH": "none" for provider in provider_names()}
        self.at = settings.get("CHAOS_AT", "")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM), command],
                env=kept | open_doors | AS_INSTALLED | settings,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.is_told_to_stop = False
        self.paused_at: float | None = None

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def is_paused(self) -> bool:
        """Whether it stands still (SIGSTOP), whoever did that."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] == "T"

    def signal(self, number: int) -> None:
        if self.is_alive:
            self.process.send_signal(number)

    def stop(self) -> None:
        """Asks it to stop in order."""
        self.is_told_to_stop = True
        self.signal(signal.SIGTERM)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class Services:
    """Keeps a collector and workers running, as `restart: unless-stopped` would, and wakes the paused ones."""

    def __init__(self, folder: Path, settings: dict[str, str], dice: random.Random) -> None:
        self.folder = folder
        self.workers: list[Service] = []
        self.collector: Service | None = None
        self.failed: list[str] = []
        """Processes that ended with an error of their own, and how."""
        self._settings = settings | {"CHAOS_FOLDER": str(folder), "CHAOS_SESSION": str(SESSION_SECONDS)}
        self._dice = dice
        self._count = 0
        self._lock = threading.RLock()
        self._is_over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._ended: list[Service] = []

    def start(self, workers: int, accidents: list[str]) -> None:
        """Starts everything; `accidents` are the `CHAOS_AT` of the first workers."""
        self.collector = self._start("collect")
        for number in range(workers):
            self.add_worker(accidents[number] if number < len(accidents) else "")
        self._keeper.start()

    def add_worker(self, accident: str = "") -> Service:
        """One worker more."""
        with self._lock:
            worker = self._start("work", accident)
            self.workers.append(worker)
        return worker

    def _start(self, command: str, accident: str = "") -> Service:
        self._count += 1
        return Service(
            f"{command}-{self._count}", self.folder, command, self._settings | {"CHAOS_AT": accident}
        )

    def any_worker(self) -> Service:
        """One that runs, or will in a moment."""
        with self._lock:
            running = [worker for worker in self.workers if worker.is_alive and not worker.is_told_to_stop]
            return self._dice.choice(running or self.workers)

    def all(self) -> list[Service]:
        with self._lock:
            return [*self.workers, *([self.collector] if self.collector else [])]

    def is_steady(self) -> bool:
        """Whether all run that should, and none of them stands still."""
        return all(service.is_alive and not service.is_paused for service in self.all())

    def _keep(self) -> None:
        restarts: dict[Service, float] = {}
        while not self._is_over.wait(0.1):
            for service in self.all():
                if service.is_paused:
                    self._wake(service)
                elif not service.is_alive and not service.is_told_to_stop:
                    if service not in restarts:
                        restarts[service] = time.monotonic() + self._dice.uniform(0.1, 1.0)
                        self._note_end(service)
                    elif time.monotonic() >= restarts[service]:
                        self._replace(service)

    def _wake(self, service: Service) -> None:
        if service.paused_at is None:
            service.paused_at = time.monotonic() + SESSION_SECONDS + self._dice.uniform(0.5, 2.5)
        elif time.monotonic() >= service.paused_at:
            service.paused_at = None
            service.signal(signal.SIGCONT)

    def _note_end(self, service: Service) -> None:
        code = service.process.returncode
        if code != -signal.SIGKILL:
            said = service.said().strip().splitlines() or [""]
            self.failed.append(f"{service.name} exited with {code}: {said[-1][:300]}")

    def _replace(self, service: Service) -> None:
        with self._lock:
            if service is self.collector:
                self.collector = self._start("collect")
            elif service in self.workers:
                self.workers[self.workers.index(service)] = self._start("work")

    def take_out(self, worker: Service) -> None:
        """Stops a worker in order; it must drain and exit with 0."""
        worker.stop()
        self._await_end(worker)
        with self._lock:
            if worker in self.workers:
                self.workers.remove(worker)

    def _await_end(self, service: Service) -> None:
        try:
            code = service.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.failed.append(f"{service.name} did not stop within {STOP_SECONDS:g} s")
            service.process.kill()
            service.process.wait()
            return
        is_its_fault = code == -signal.SIGKILL and service.at.endswith("kill")
        # It had not come as far as handling the signal: nothing had been begun.
        is_too_soon = code == -signal.SIGTERM and not service.said()
        if code != 0 and not is_its_fault and not is_too_soon:
            said = service.said().strip().splitlines() or [""]
            self.failed.append(f"{service.name} exited with {code} when stopped: {said[-1][:300]}")

    def stop(self) -> None:
        """Stops all of them in order, the collector first; the keeper still wakes what stands still."""
        with self._lock:
            every = [*([self.collector] if self.collector else []), *self.workers]
            for service in every:
                service.is_told_to_stop = True
        for service in every:
            service.stop()
        for service in every:
            self._await_end(service)
        self._is_over.set()

    def ask_where(self) -> None:
        """Lets every worker write into its log what it waits for."""
        asked = [worker for worker in self.workers if worker.is_alive]
        for worker in asked:
            worker.signal(whereabouts.REQUEST)
        deadline = time.monotonic() + ANSWER_SECONDS
        # One whose interpreter is blocked never answers; its threads are in the log all the same, or it hangs in C.
        while time.monotonic() < deadline and not all(whereabouts.TOLD in worker.said() for worker in asked):
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends whatever is left."""
        self._is_over.set()
        for service in self.all():
            if service.is_alive:
                service.signal(signal.SIGKILL)
                service.process.wait(20)
