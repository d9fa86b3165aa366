"""What the program costs in time and memory."""
