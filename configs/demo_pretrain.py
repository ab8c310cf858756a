"""How the demo checkpoint was made: a 0.7 M parameter vision transformer on Fashion-MNIST, from random weights.

Expected: about 85 % on the 10,000 test images. Cost: about 20 minutes on 2 CPU cores.
Command: python docs/make_demo_checkpoint.py FASHION_MNIST_DIR OUT_DIR (which lays out the images, then runs this
preset)
"""

from fmjax.config import ClassifyConfig, DataConfig, ModelConfig, Recipe, RunConfig

config = RunConfig(
    out="runs/demo_pretrain",
    model=ModelConfig(name="demo_vit_ti4.fashion_mnist", init="random"),
    data=DataConfig(source="folder:fashion_mnist", crop_scale=0.6, flip=0.5),
    task=ClassifyConfig(label_smoothing=0.1),
    recipe=Recipe(lr=1.5e-3, warmup_steps=200, weight_decay=0.05),
    steps=2500,
    batch_size=128,
    eval_every=500,
    save_every=500,
    log_every=50,
)
