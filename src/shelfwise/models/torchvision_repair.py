"""Make torchvision importable beside a CPU build of torch, where its compiled operators are absent.

It knows nothing of models. The torchvision wheel on the package index is built for CUDA torch; beside a
CPU torch its own import stops with ``operator torchvision::nms does not exist``, and with it timm and
open_clip. Defining the two missing operator schemas lets the import run through. On a healthy
installation the schemas exist, and defining them again would abort, so the repair happens only after
that very failure. After it ``torchvision.ops.nms`` and ``torchvision.io`` do not work: they are not used.
"""

import importlib
import sys
import threading
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_lock = threading.Lock()
#: The definitions last as long as this object.
_fragment: Any = None


def import_torchvision() -> bool:
    """Import torchvision, repairing the import where that is needed; any number of calls do no harm.

    Returns:
        Whether this process runs on the repaired import.

    Raises:
        RuntimeError: torchvision fails for another reason.
    """
    global _fragment
    with _lock:
        if "torchvision" in sys.modules:
            return _fragment is not None
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        else:
            return _fragment is not None
        import torch

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        if _fragment is None:
            library: Any = torch.library
            fragment = library.Library("torchvision", "FRAGMENT")
            for schema in _SCHEMAS:
                fragment.define(schema)
            _fragment = fragment
        importlib.import_module("torchvision")
        return True
