"""Training of detectors: data, augmentation, schedule, loop, evaluation."""
