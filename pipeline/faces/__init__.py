"""From a frame to aligned face crops: detection, tracking, quality, geometry."""
