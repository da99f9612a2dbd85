"""The processes of a run (one, or those started by torchrun) and the stop signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from models.precision import best_device


class Processes:
    """This process among the training processes.

    Attributes:
        device: of this process.
        rank: 0 for the one that validates and saves.
        world: how many there are.
    """

    def __init__(self, device: torch.device, rank: int, world: int) -> None:
        self.device, self.rank, self.world = device, rank, world

    @property
    def leads(self) -> bool:
        """Whether this one validates, saves and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must ask at the same step."""
        if self.world == 1:
            return flag
        shared = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return bool(shared)


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the process group if torchrun started several."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = best_device(device)
    if world == 1:
        yield Processes(chosen, 0, 1)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(chosen, rank, world)
    finally:
        dist.destroy_process_group()


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that holds the signal that asked to stop, once it was received."""
    received: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            before[number] = signal.signal(number, lambda caught, frame: received.append(caught))
        except ValueError:  # not the main thread: the caller handles stopping
            break
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
