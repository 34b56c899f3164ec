"""The daemon: the one place where cameras, the model and MQTT meet."""
