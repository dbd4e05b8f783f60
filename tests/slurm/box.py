"""A real SLURM on the loopback interface of one machine: several nodes with stand-ins for GPUs.

root starts it without systemd, in a separate directory and on free ports. It includes accounting
(slurmdbd on MariaDB), because submitit calls sacct. `.ci/run` lists the packages of Debian 12.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PROGRAMS = (
    *("munged", "slurmctld", "slurmd", "slurmdbd", "sbatch", "sacct"),
    *("mariadbd", "mariadb-install-db"),
)
NODES = 5
GPUS = 4
CPUS = 8
HOST = socket.gethostname().partition(".")[0]


def why_not() -> str:
    """Return why no SLURM can be started here; empty if one can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no SLURM is installed: {', '.join(missing)} missing"
    return "" if os.geteuid() == 0 else "only root can start SLURM's daemons"


class SlurmBox:
    """The daemons of a cluster of `NODES` nodes: n1, n2, ....

    Partitions: main (n1, n2), crash (n3, n4), low and high (n5; high preempts low).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf")}
        ports = list(_free_ports(NODES + 3))
        self._controller, self._accounting, self._database, *self._nodes = ports
        self._server: subprocess.Popen[bytes] | None = None
        for name in ("state", "spool", "log", "run", "dev"):
            (directory / name).mkdir(parents=True)

    def start(self) -> None:
        """Start all daemons, and wait until all nodes are idle."""
        self._start_munge()
        self._start_accounting()
        self.configure(warn_before_preemption=True)
        self._run("slurmctld", "-c")
        for node in range(1, NODES + 1):
            (self.directory / "spool" / f"n{node}").mkdir()
            self._run("slurmd", "-N", f"n{node}")
        _wait(lambda: set(self.ask("sinfo", "-N", "-h", "-t", "idle", "-o", "%N").split()), NODES)

    def stop(self) -> None:
        """End every daemon and every job, including orphans."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.ask("scancel", "--user", "root")
            time.sleep(1)
        for process in psutil.process_iter(["cmdline", "environ"]):
            here = str(self.directory)
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.info["cmdline"] or ())
                variables = (process.info["environ"] or {}).get("SLURM_CONF", "")
                is_ours = here in words or (here in variables and process.pid != os.getpid())
                if is_ours and process.pid not in _ancestors():
                    process.kill()
        if self._server is not None:
            self._server.wait(timeout=60)

    def ask(self, *command: str) -> str:
        """Return the output of one of SLURM's programs."""
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    def crash(self, node: str, job_process: int) -> None:
        """Kill a node without warning: its daemon, the job's slurmstepd processes and the job.

        Then report it to the controller, which would notice only after `SlurmdTimeout`.
        """
        daemon = int((self.directory / "run" / f"slurmd.{node}.pid").read_text())
        step_daemons = [
            p.pid for p in psutil.process_iter(["name"]) if p.info["name"] == "slurmstepd"
        ]
        job = psutil.Process(job_process)
        above = [p.pid for p in job.parents() if p.pid in step_daemons]
        for pid in (daemon, *above, job_process):
            os.kill(pid, signal.SIGKILL)
        self.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=crashed")

    def configure(self, *, warn_before_preemption: bool) -> None:
        """Write the configuration, and have running daemons read it again."""
        path = self.directory / "slurm.conf"
        is_running = path.exists()
        path.write_text(self._configuration(warn_before_preemption))
        if is_running:
            self.ask("scontrol", "reconfigure")

    def _start_munge(self) -> None:
        here = self.directory
        key = here / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        self._run(
            *("munged", "--force", "--num-threads=2", f"--key-file={key}"),
            *(f"--socket={here}/run/munge.socket", f"--pid-file={here}/run/munged.pid"),
            *(f"--log-file={here}/log/munged.log", f"--seed-file={here}/state/munged.seed"),
            "--origin=127.0.0.1",
        )

    def _start_accounting(self) -> None:
        here = self.directory
        self._run(
            *("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={here}/db"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )
        with (here / "log" / "mariadbd.log").open("w") as log:
            self._server = subprocess.Popen(
                [
                    *("mariadbd", "--no-defaults", "--user=root", f"--datadir={here}/db"),
                    *(f"--socket={here}/run/db.sock", f"--pid-file={here}/run/mariadbd.pid"),
                    *(f"--port={self._database}", "--bind-address=127.0.0.1"),
                    *("--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"),
                    # Nothing in it needs to survive the tests.
                    *("--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        sql = ("mariadb", "--no-defaults", "-S", f"{here}/run/db.sock", "-e")
        _wait(lambda: self._answers(*sql, "select 1"), 1)
        self._run(
            *sql,
            "create database slurm_acct; create user slurm@'127.0.0.1' identified by 'box';"
            "grant all on slurm_acct.* to slurm@'127.0.0.1'",
        )
        path = here / "slurmdbd.conf"
        path.touch(0o600)
        path.write_text(
            f"""AuthType=auth/munge
AuthInfo=socket={here}/run/munge.socket
DbdHost={HOST}
DbdAddr=127.0.0.1
DbdPort={self._accounting}
SlurmUser=root
LogFile={here}/log/slurmdbd.log
PidFile={here}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self._database}
StorageUser=slurm
StoragePass=box
StorageLoc=slurm_acct
"""
        )
        # sacctmgr finds slurmdbd by a configuration of the cluster.
        (here / "slurm.conf").write_text(self._configuration(True))
        self._run("slurmdbd")
        _wait(lambda: self._answers("sacctmgr", "-n", "-i", "show", "cluster"), 1)
        self._answers("sacctmgr", "-n", "-i", "add", "cluster", "box")
        (here / "slurm.conf").unlink()

    def _configuration(self, warn_before_preemption: bool) -> str:
        here = self.directory
        for index in range(GPUS):
            device = here / "dev" / f"gpu{index}"
            if not device.exists():
                # SLURM requires a character device as a GPU: this one is /dev/null.
                os.mknod(device, 0o600 | 0o020000, os.makedev(1, 3))
        (here / "gres.conf").write_text(f"Name=gpu File={here}/dev/gpu[0-{GPUS - 1}]\n")
        nodes = "\n".join(
            f"NodeName=n{index} NodeHostname={HOST} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} "
            f"RealMemory=4000 Gres=gpu:{GPUS} State=UNKNOWN"
            for index, port in enumerate(self._nodes, start=1)
        )
        warning = "SlurmctldParameters=preempt_send_user_signal" if warn_before_preemption else ""
        return f"""ClusterName=box
SlurmctldHost={HOST}(127.0.0.1)
SlurmctldPort={self._controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={here}/run/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/spool/%n
SlurmctldPidFile={here}/run/slurmctld.pid
SlurmdPidFile={here}/run/slurmd.%n.pid
SlurmctldLogFile={here}/log/slurmctld.log
SlurmdLogFile={here}/log/slurmd.%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self._accounting}
AccountingStoragePass={here}/run/munge.socket
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{warning}
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=2
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=30
{nodes}
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
PartitionName=crash Nodes=n[3-4] MaxTime=INFINITE State=UP
PartitionName=low Nodes=n5 MaxTime=INFINITE PriorityTier=1 GraceTime=3 State=UP
PartitionName=high Nodes=n5 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def _answers(self, *command: str) -> list[str]:
        done = subprocess.run(command, env=self.environment, capture_output=True, timeout=60)
        return [] if done.returncode else ["yes"]


def _ancestors() -> set[int]:
    return {os.getpid(), *(process.pid for process in psutil.Process().parents())}


def _wait(answers: object, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(answers()) < count:  # pyright: ignore[reportCallIssue]
        assert time.monotonic() < deadline, "SLURM did not start within a minute"
        time.sleep(0.1)


def _free_ports(count: int) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            yield int(listener.getsockname()[1])


@contextlib.contextmanager
def running(directory: Path) -> Iterator[SlurmBox]:
    """Run a cluster during the body."""
    box = SlurmBox(directory)
    try:
        box.start()
        yield box
    finally:
        box.stop()
