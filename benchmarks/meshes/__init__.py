"""Memory and exchanges of training steps on meshes of H100s that are not here, and how they must scale."""
