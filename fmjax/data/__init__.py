"""Sources of labelled images, and the pipelines that bring them to the devices."""
