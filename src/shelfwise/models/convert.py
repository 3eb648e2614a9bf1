"""Convert: a backbone's module to ONNX, and a network of OpenVINO's to 8-bit integers.

It knows neither bundles nor how near the result has to come; see ``export``. ``runners.to_openvino`` is the third of
the kind; it lies beside the engine that uses it every day.

Quantisation is after training (https://arxiv.org/abs/1712.05877): the ranges of weights are known, those of what
flows between layers are measured on pictures, and layers' means are corrected on them. NNCF
(https://github.com/openvinotoolkit/nncf) does it.

Legend: N pictures, H height, W width.
"""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelfwise.errors import EngineError, require
from shelfwise.models.runners import Images, first_line, openvino_core

if TYPE_CHECKING:
    from torch import nn

#: The file that is written; ``exported`` reads it.
ONNX = "model.onnx"
#: What the input and the output of an ONNX network are called.
INPUT, OUTPUT = "images", "features"
OPSET = 20
#: Convolutions from the input that are not quantised. In EfficientNet-Lite0 features of shop photos are off by 11 % of
#: their length with 0, by 5.7 % with 1, 4.1 % with 2 and 3.5 % with 4; they are a small part of the work.
KEPT = 4


def to_onnx(module: "nn.Module", size: tuple[int, int], directory: Path) -> None:
    """Write a module that takes uint8 pictures [N, H, W, 3] as ``model.onnx``, for any N if it can be.

    Raises:
        EngineError: the exporter does not know an operation of the network.
        MissingExtra: onnx or onnxscript is not installed.
    """
    import torch

    from shelfwise.models.towers import one_thread

    require("onnx", extra="export")
    require("onnxscript", extra="export")
    said = ""
    # With two pictures N is free. A network that insists on its example is converted for one.
    for count, shapes in ((2, ({0: torch.export.Dim("N")},)), (1, None)):
        example = torch.zeros((count, *size, 3), dtype=torch.uint8)
        try:
            with one_thread(), torch.no_grad(), _quiet():
                program: Any = torch.onnx.export(
                    module,
                    (example,),
                    dynamo=True,
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    dynamic_shapes=shapes,
                    opset_version=OPSET,
                    verbose=False,
                )
            program.save(directory / ONNX, external_data=False)
            return
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            said = first_line(error)
    raise EngineError(f"the network cannot be converted to ONNX: {said}")


def quantise(source: Path, pictures_NHWC: Images, target: Path) -> None:
    """Write a network of OpenVINO's with weights and what flows between its layers as 8-bit integers.

    Args:
        source: the folder that ``to_openvino`` wrote.
        pictures_NHWC: uint8 photos that ranges are measured on.
        target: gets ``model.xml`` and ``model.bin``.

    Raises:
        EngineError: NNCF or OpenVINO fails.
        MissingExtra: nncf is not installed.
    """
    with _unreported():
        nncf: Any = require("nncf", extra="export")
    openvino: Any = require("openvino", extra="openvino")
    passes: Any = require("openvino._offline_transformations", extra="openvino")
    nncf.set_log_level(logging.ERROR)
    try:
        model = openvino_core().read_model(source / "model.xml")
        # Batch norms become part of the weights: quantised beside them, a network errs three times as much.
        passes.apply_moc_transformations(model, True)
        with _quiet():
            small = nncf.quantize(
                model,
                nncf.Dataset([picture_HWC[None] for picture_HWC in pictures_NHWC]),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(pictures_NHWC),
                fast_bias_correction=False,
                ignored_scope=nncf.IgnoredScope(names=_first(model)),
            )
        openvino.save_model(small, target / "model.xml", compress_to_fp16=False)
    except RuntimeError as error:
        raise EngineError(f"the network cannot be quantised: {first_line(error)}") from error


def _first(model: Any) -> list[str]:
    """Return the names of the first convolutions, which stay as they are."""
    kinds = ("Convolution", "GroupConvolution")
    found = [each.get_friendly_name() for each in model.get_ordered_ops() if each.get_type_name() in kinds]
    return found[:KEPT]


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """Keep NNCF from reporting its use over the network, which it settles when it is imported."""
    name = "NNCF_CI"
    before = os.environ.get(name)
    os.environ[name] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep converters from drawing bars and warning of their own insides."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
