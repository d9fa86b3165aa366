"""The whole loop on one machine: a real Label Studio, the backend and a simulated annotator."""
