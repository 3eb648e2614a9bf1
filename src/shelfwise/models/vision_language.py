"""Vision-language model on this machine: the likelihood of given replies to a question about a picture.

It does not know taxonomies, nor what the replies mean. Any model that transformers loads as image-text-to-text is
meant; it is tested with Qwen2-VL. A picture and its question are run once; the possible replies are then run as a batch
on top of what was remembered of them (the key-value cache). Products are never put into one batch, so that an answer
does not depend on its neighbours.
Legend: v possible replies, t tokens of the longest one, U tokens of the vocabulary.
"""

import copy
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shelfwise.errors import EngineError, require
from shelfwise.models.engines import settle_device
from shelfwise.models.torchvision_repair import import_torchvision

if TYPE_CHECKING:
    import torch
    from PIL import Image

Float = npt.NDArray[np.float64]
#: Possible replies run side by side; bounds memory.
SIDE_BY_SIDE = 16
#: Files of a model's folder whose content, and whose size, tell it from another.
CONTENT, SIZES = (".json", ".jinja", ".txt", ".model"), (".safetensors",)


class VisionLanguage:
    """A model with its processor.

    Attributes:
        source: folder or hub name.
        model: the network, in eval.
        processor: pictures and text to what the network takes.
        fingerprint: tells it from other models.
    """

    def __init__(self, source: str, model: Any, processor: Any) -> None:
        self.source, self.model, self.processor = source, model, processor
        self.fingerprint = fingerprint_of(source)

    def inputs(self, image: "Image.Image", question: str) -> "dict[str, torch.Tensor]":
        """Return what the network takes for one question about one picture."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        found = self.processor(text=[prompt], images=[image], return_tensors="pt")
        return {name: tensor.to(self.model.device) for name, tensor in found.items()}

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a part of a reply."""
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def likelihoods(
        self, image: "Image.Image", question: str, replies: Sequence[tuple[str, Sequence[str]]]
    ) -> list[Float]:
        """Return the log-likelihood of possible replies.

        Args:
            image: the picture.
            question: in words.
            replies: how a reply begins, and the ways it may go on; several of these.

        Returns:
            float64 [v] for each: log-probability of the tokens that go on.
        """
        import torch

        with torch.inference_mode():
            given = self.inputs(image, question)
            start = self.model(**given, use_cache=True, logits_to_keep=1)
            return [self._scored(start.past_key_values, lead, endings) for lead, endings in replies]

    def _scored(self, past: Any, lead: str, endings: Sequence[str]) -> Float:
        """Log-likelihoods of the endings after the question and the lead."""
        import torch

        begun, parts = self.tokens(lead), [self.tokens(ending) for ending in endings]
        found: list[Float] = []
        for at in range(0, len(parts), SIDE_BY_SIDE):
            chunk = parts[at : at + SIDE_BY_SIDE]
            most = max(map(len, chunk))
            # Filled up at the end, where nothing that counts looks back at it: no mask is needed.
            rows = [begun + part + [0] * (most - len(part)) for part in chunk]
            real = [[1.0] * len(part) + [0.0] * (most - len(part)) for part in chunk]
            ids_vt = torch.tensor(rows, device=self.model.device)
            real_vt = torch.tensor(real, device=self.model.device)
            cache = copy.deepcopy(past)
            cache.batch_repeat_interleave(len(chunk))
            logits_vtU = self.model(input_ids=ids_vt, past_key_values=cache, use_cache=True).logits
            logs_vtU = logits_vtU[:, len(begun) - 1 : -1].float().log_softmax(dim=-1)
            picked_vt = logs_vtU.gather(2, ids_vt[:, len(begun) :, None])[:, :, 0]
            found.append((picked_vt * real_vt).sum(dim=1).double().cpu().numpy())
        return np.concatenate(found)


@lru_cache(maxsize=1)
def shared_model(source: str, device: str, precision: str) -> VisionLanguage:
    """Return a model that several predictors use unchanged; loaded once."""
    return load_model(source, device, precision)


def load_model(source: str, device: str, precision: str) -> VisionLanguage:
    """Load a model and its processor.

    Args:
        source: a folder, or a name on the hub.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto`` (bf16 on a GPU, else fp32), ``fp32`` or ``bf16``.

    Raises:
        EngineError: it cannot be had.
        MissingExtra: transformers is not installed.
    """
    import torch

    import_torchvision()
    transformers = require("transformers", extra="transformers")
    device = settle_device(device)
    exact = precision == "fp32" or (precision == "auto" and device == "cpu")
    try:
        processor = transformers.AutoProcessor.from_pretrained(source)
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            source, dtype=torch.float32 if exact else torch.bfloat16
        )
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(
            f"the vision-language model {source!r} cannot be loaded: {' '.join(str(error).split())[:300]}. Without a "
            "network, put its files into a folder and name the folder"
        ) from error
    return VisionLanguage(source, model.eval().to(device), processor)


def fingerprint_of(source: str) -> str:
    """Return a digest of a hub name; or of a folder: the content of its small files, the sizes of its weights."""
    folder = Path(source)
    digest = hashlib.sha256()
    if not folder.is_dir():
        digest.update(source.encode())
        return digest.hexdigest()
    for file in sorted(folder.iterdir()):
        if file.suffix in CONTENT:
            digest.update(f"{file.name}\x00".encode() + file.read_bytes())
        elif file.suffix in SIZES:
            digest.update(f"{file.name}\x00{file.stat().st_size}".encode())
    return digest.hexdigest()
