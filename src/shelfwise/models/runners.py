"""The engines themselves: torch, torch on a GPU, OpenVINO, onnxruntime.

It knows neither how an engine is chosen nor where anything is kept; see ``engines``.

Legend: B pictures of one call, H height, W width, D features.
"""

import copy
import os
import queue
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shelfwise.errors import EngineError, require

if TYPE_CHECKING:
    from torch import nn

Images = NDArray[np.uint8]
Vectors = NDArray[np.float32]
CUDA_BATCH = 64


class TorchEngine:
    """Torch on the CPU, eager, one picture and one thread a call."""

    name: str
    batch = 1

    def __init__(self, module: "nn.Module", precision: str = "f32") -> None:
        self.name = "torch" if precision == "f32" else "torch-bf16"
        self.precision = precision
        self._module = module

    def run(self, images_BHWC: Images) -> Vectors:
        """Return the vectors of one picture."""
        import torch

        from shelfwise.models.towers import one_thread

        low = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")
        with one_thread(), torch.inference_mode(), low:
            found: Vectors = self._module(torch.from_numpy(np.ascontiguousarray(images_BHWC))).float().numpy()
        return found


class CudaEngine:
    """Torch on a CUDA GPU, batches of one size; calls take turns."""

    name = "cuda"
    batch = CUDA_BATCH

    def __init__(self, module: "nn.Module", precision: str) -> None:
        """Copy the module to the GPU; ``bf16`` becomes ``f16`` on a GPU without it."""
        import torch

        low = "bf16" if torch.cuda.is_bf16_supported() else "f16"
        self.precision = "f32" if precision == "f32" else low
        self._type = torch.bfloat16 if self.precision == "bf16" else torch.float16
        self._module = copy.deepcopy(module).to("cuda")
        self._turn = threading.Lock()

    def run(self, images_BHWC: Images) -> Vectors:
        """Return the vectors of one batch."""
        import torch

        low = torch.autocast("cuda", self._type, enabled=self.precision != "f32")
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with self._turn, torch.inference_mode(), low, exact:
            images = torch.from_numpy(np.ascontiguousarray(images_BHWC)).to("cuda")
            found: Vectors = self._module(images).float().cpu().numpy()
        return found


class OpenVINOEngine:
    """OpenVINO on the CPU, one picture and one thread a request, several requests side by side."""

    batch = 1

    def __init__(self, directory: Path, precision: str, jobs: int, name: str = "openvino") -> None:
        """Read the network that ``to_openvino`` or ``quantise`` wrote; what is quantised stays so in any precision.

        Raises:
            EngineError: it is not there, damaged, or OpenVINO cannot run it.
        """
        self.name, self.precision = name, precision
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": jobs,
            "INFERENCE_NUM_THREADS": jobs,
            # Pinned threads and threads that decode pictures would wait for the same processor.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model = openvino_core().read_model(directory / "model.xml")
            compiled = openvino_core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot load this network: {first_line(error)}") from error
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(jobs):
            self._free.put(compiled.create_infer_request())
        # OpenVINO's binding sets itself up inside the first call. Two threads that make it together wait for
        # each other for ever, one with Python's lock and one with the binding's, so it is made here, alone.
        self.run(np.zeros(tuple(compiled.input(0).shape), np.uint8))

    def run(self, images_BHWC: Images) -> Vectors:
        """Return the vectors of one picture."""
        request = self._free.get()
        try:
            request.infer({0: np.ascontiguousarray(images_BHWC)}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        finally:
            self._free.put(request)


class OnnxEngine:
    """Onnxruntime on the CPU, one picture and one thread a call, several calls side by side."""

    name = "onnxruntime"
    precision = "f32"
    batch = 1

    def __init__(self, file: Path) -> None:
        """Read the network that ``to_onnx`` wrote.

        Raises:
            EngineError: it is not there, damaged, or onnxruntime cannot run it.
            MissingExtra: onnxruntime is not installed.
        """
        runtime: Any = require("onnxruntime", extra="onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        faults: Any = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="onnx")
        try:
            self._session = runtime.InferenceSession(
                file.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except (
            OSError,
            faults.Fail,
            faults.InvalidArgument,
            faults.InvalidGraph,
            faults.InvalidProtobuf,
            faults.NotImplemented,
            faults.RuntimeException,
        ) as error:
            raise EngineError(f"onnxruntime cannot load {file}: {first_line(error)}") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, images_BHWC: Images) -> Vectors:
        """Return the vectors of one picture."""
        found: Vectors = self._session.run(None, {self._input: np.ascontiguousarray(images_BHWC)})[0]
        return found


_core: Any = None


def openvino_core() -> Any:
    """Return this process's OpenVINO core, made once."""
    global _core
    if _core is None:
        _core = require("openvino", extra="openvino").Core()
        if os.name == "nt":  # there, a file that is mapped into memory cannot be moved to its place
            _core.set_property({"ENABLE_MMAP": False})
    return _core


def to_openvino(module: "nn.Module", size: tuple[int, int], directory: Path) -> None:
    """Write a module that takes uint8 pictures [1, H, W, 3] as ``model.xml`` and ``model.bin``.

    The frontend is called directly: the converter on top of it reports its use over the network. Engines
    always read these files, as a network that never was on disk gives other last bits.

    Raises:
        EngineError: OpenVINO does not know an operation of the network.
    """
    import openvino
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from shelfwise.models.towers import one_thread

    example = torch.zeros((1, *size, 3), dtype=torch.uint8)
    try:
        with one_thread(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns that shapes become constants: they are fixed
            decoder = TorchScriptPythonDecoder(module, example_input=example)
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
            model.reshape([1, *size, 3])
            openvino.save_model(model, directory / "model.xml", compress_to_fp16=False)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot convert this network: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
