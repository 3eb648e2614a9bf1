"""A random text encoder with its tokenizer, a thousandth of the size of a real one, laid out as the hub does."""

from pathlib import Path

WORDS = (
    "pack",
    "of",
    "a",
    "cup",
    "plate",
    "towel",
    "toy",
    "plain",
    "large",
    "small",
    "fine",
    "cheap",
    "rare",
)


def tiny_bert(folder: Path) -> Path:
    """Write config, tokenizer and weights into a folder."""
    from shelfwise.models.torchvision_repair import import_torchvision

    import_torchvision()
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    letters = "0123456789."
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{one}" for one in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=24,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder
