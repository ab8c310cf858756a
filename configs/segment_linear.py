"""A class for every pixel of images with masks, by a linear layer on a frozen backbone (arXiv:2304.07193 sec. 7.4).

Expected: 27.0 % mean IoU on 50 held-out scenes of photographs, 11 classes, after 150 steps of 8 of 200 others
(docs/segmentation.md); 39.8 % with --task.layers 4.
Cost: about 0.1 s a picture and step on 2 CPU cores, float32.
Command: fmjax finetune segment_linear --data.source masks:DIR
"""

from fmjax.config import DataConfig, ModelConfig, Recipe, RunConfig, SegmentConfig

config = RunConfig(
    out="runs/segment_linear",
    model=ModelConfig(name="dinov2_vits14.lvd142m"),
    data=DataConfig(source="masks:scenes"),
    task=SegmentConfig(),
    recipe=Recipe(lr=1e-3, warmup_steps=0, weight_decay=0.0, rates=((r"backbone\..*", 0.0),)),
    steps=200,
    batch_size=16,
    eval_every=50,
    save_every=50,
)
