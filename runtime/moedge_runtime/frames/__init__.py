"""What happens to a frame between its camera and the model: masks, crop, zones, motion, times, alerts, counts."""
