"""How a run is trained, saved and scored, whatever it learns."""
