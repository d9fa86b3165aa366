"""World folders, an oracle annotator, and the methods compared on them."""
