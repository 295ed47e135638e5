"""Writers: each turns detections into one kind of file."""
