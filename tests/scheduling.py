"""Which process of a run gets which test file: those that need the shared service go to half of the processes.

Each process that needs it starts one of its own, whose worker imports torch and loads models.
"""

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

ON_THEIR_OWN = ("tests/unit/", "tests/faults/", "tests/gpu/")
"""Folders of tests that need no service, or break one of their own."""


class ByService(LoadFileScheduling):
    """File by file, as they come; a process gets one of the other half's only when none of its own half is left."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        is_sharing = self.nodes.index(node) < (len(self.nodes) + 1) // 2
        for file in self.workqueue:
            if file.startswith(ON_THEIR_OWN) != is_sharing:
                self.workqueue.move_to_end(file, last=False)
                break
        super()._assign_work_unit(node)
