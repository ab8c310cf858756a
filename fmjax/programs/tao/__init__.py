"""What a spec of NVIDIA TAO's image classification says, in fmjax's words. Facts of TAO are those of its own source."""
