"""A linear classifier on a frozen backbone, trained with augmentation; only the classifier has gradients.

Expected: on a folder with a few hundred photographs of everyday things, CLIP ViT-B/16 reaches what `fmjax probe`
says, within a point or two. Cost: 260 images take 12 minutes on 2 CPU cores (5 passes).
Command: fmjax finetune linear_probe --data.source folder:DIR --model.name ViT-B-16.openai
"""

from fmjax.config import DataConfig, FinetuneConfig, ModelConfig, OptimConfig

config = FinetuneConfig(
    out="runs/linear_probe",
    model=ModelConfig(name="ViT-B-16.openai"),
    data=DataConfig(source="folder:images", crop_scale=0.5),
    optim=OptimConfig(lr=1e-2, warmup_steps=0, weight_decay=0.0, freeze=(r"(?!classifier).*",)),
    steps=40,
    batch_size=32,
    eval_every=20,
    save_every=20,
)
