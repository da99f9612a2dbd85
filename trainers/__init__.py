"""How a detector is made: data, augmentation, schedule, loop, evaluation."""
