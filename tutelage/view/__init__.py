"""A local viewer of run folders: pages over what is there, on loopback or as files; it writes nothing into a run."""
