"""Whether a memory of faces needs no retraining, and how far it goes."""
