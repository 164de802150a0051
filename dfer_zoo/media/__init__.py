"""Media files, clips, and the faces in them."""
