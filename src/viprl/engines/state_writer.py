"""The state of VIP, written in a thread beside the checkpoint of an engine."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from viprl.utils import state_file
from viprl.vip import STATE_KIND, STATE_VERSION, VIP


class StateWriter:
    """Writes states of a VIP while the engine does something else, such as writing the weights.

    `start` copies the state, so that the file is that of one moment, whatever happens to the VIP afterwards. An engine
    calls `finish` before it marks its checkpoint as complete. A process that is killed at any moment then leaves no
    complete checkpoint without a state: the file appears when it is whole, see `viprl.utils.state_file.save`.

    Args:
        vip: whose state is written.
    """

    def __init__(self, vip: VIP) -> None:
        self.vip = vip
        self.path: Path | None = None
        """The file that is being written, until `finish`."""
        self._written: Future[None] | None = None

    @property
    def written(self) -> bool:
        """Whether no thread is at work."""
        return self._written is None or self._written.done()

    def start(self, path: Path) -> None:
        """Begin to write the state of this moment. Raises what an earlier file that was not finished raises."""
        self.finish()
        state = self.vip.state_dict()
        thread = ThreadPoolExecutor(1, thread_name_prefix="viprl-state")
        self.path = path
        self._written = thread.submit(state_file.save, path, state, kind=STATE_KIND, version=STATE_VERSION)
        thread.shutdown(wait=False)  # it ends when the file is written

    def finish(self) -> None:
        """Wait until the file is complete, if there is one. Raises FileError if it could not be written."""
        written, self._written, self.path = self._written, None, None
        if written is not None:
            written.result()
