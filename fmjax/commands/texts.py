"""What the help says of each sub-command, and a line that runs."""

from __future__ import annotations

# name: (what it is for, an example)
TEXTS: dict[str, tuple[str, str]] = {
    "models": (
        "search architectures or published weights, sorted and filtered",
        "fmjax models dinov2 --pretrained",
    ),
    "info": (
        "all that is known of one model",
        "fmjax info ViT-B-16.openai",
    ),
    "download": (
        "published weights -> checked files in the cache",
        "fmjax download 'ViT-B-16.*' dinov2_vits14 --dry-run",
    ),
    "convert": (
        "a PyTorch checkpoint -> fmjax's own names",
        "fmjax convert ViT-B-16.openai clip.safetensors out.safetensors",
    ),
    "verify": (
        "check a checkpoint, and its way there and back, bit by bit",
        "fmjax verify ViT-B-16.openai --checkpoint clip.safetensors",
    ),
    "embed": (
        "images -> embeddings",
        "fmjax embed demo_vit_ti4.fashion_mnist --data.source digits",
    ),
    "knn": (
        "nearest-neighbour accuracy of frozen embeddings",
        "fmjax knn demo_vit_ti4.fashion_mnist --data.source digits",
    ),
    "probe": (
        "linear-probe accuracy of frozen embeddings",
        "fmjax probe demo_vit_ti4.fashion_mnist --data.source digits",
    ),
    "finetune": (
        "fine-tune a model or a preset (a .py file is run) on your images",
        "fmjax finetune quickstart --recipe.lr 3e-4",
    ),
    "eval": (
        "scores of a fine-tuned run",
        "fmjax eval runs/quickstart",
    ),
    "predict": (
        "what a fine-tuned run says of new pictures, as a table or a file",
        "fmjax predict runs/quickstart cat.jpg photos --out predictions.csv",
    ),
    "average": (
        "runs of one model -> a run with their average: WiSE-FT, soups",
        "fmjax average runs/a runs/b --out runs/soup --greedy",
    ),
    "export": (
        "a model -> files of PyTorch's libraries, StableHLO, ONNX, TFLite",
        "fmjax export runs/quickstart model.safetensors --dialect timm",
    ),
    "report": (
        "a run -> one page: curves, mistakes, calibration, what it sees",
        "fmjax report runs/quickstart",
    ),
    "report --backbones": (
        "frozen backbones -> one page: neighbours, probe, speed, memory, what they see",
        "fmjax report --backbones dinov2_vits14 ViT-B-16.openai --data photos",
    ),
    "push": (
        "a run -> a repository of the Hugging Face hub, or its folder",
        "fmjax push runs/quickstart hub/quickstart/",
    ),
    "data": (
        "a set of images: check it before a run, pack it into a few files",
        "fmjax data check folder:images --page check.html",
    ),
    "from-tao": (
        "a spec of NVIDIA TAO's classification -> a preset",
        "fmjax from-tao spec.yaml --images 50000",
    ),
    "ckpt": (
        "the checkpoints of a run: ls, verify, prune, export",
        "fmjax ckpt verify runs/quickstart",
    ),
    "doctor": (
        "what there is to compute with, what would go wrong, with each fix",
        "fmjax doctor --offline",
    ),
    "bench": (
        "how fast a model is here: a step, embeddings, attention, start",
        "fmjax bench demo_vit_ti4.fashion_mnist --kinds product forward",
    ),
    "completion": (
        "commands, flags and model names by tab, in bash, zsh or fish",
        "fmjax completion bash",
    ),
}
# what stands before the flags, where the flags' own parser does not see it
PLACES: dict[str, str] = {
    "embed": "MODEL [PICTURES]",
    "knn": "MODEL",
    "probe": "MODEL",
    "bench": "MODEL",
    "finetune": "PRESET|MODEL",
    "eval": "RUN",
    "predict": "RUN",
    "report": "RUN",
    "push": "RUN FOLDER/|OWNER/NAME",
    "average": "RUN RUN ...",
    "data check": "SOURCE",
    "data pack": "SOURCE",
}
